"""The flags that choose a face detector, the same in every script."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from errors import InputError
from face_detection.api import NETWORKS
from media.files import file_label

# detector -> the flag with its weights, and where they are looked for without it
WEIGHTS = {"sfd": ("s3fd_weights", "checkpoints/s3fd.pth")}


def add_detector_arguments(
    parser: argparse._ActionsContainer,
    choices: Sequence[str] = NETWORKS,
    default: str = "centerface",
    help: str | None = None,
) -> None:
    """--detector, to a parser or a group of one, with its help; the flags of all weights."""
    parser.add_argument("--detector", choices=choices, default=default, help=help)
    add_weights_arguments(parser)


def add_weights_arguments(parser: argparse._ActionsContainer) -> None:
    """The flags of all weights alone, for a script that takes several detectors."""
    for detector, (flag, place) in WEIGHTS.items():
        parser.add_argument(f"--{flag}", help=f"weights of --detector {detector}; default {place}")


def detector_options(args: argparse.Namespace, detector: str | None = None) -> dict:
    """What create_detector takes beside name and device. detector: default args.detector."""
    detector = detector or args.detector
    if detector == "boxes":
        if not args.boxes:
            raise InputError("--detector boxes needs --boxes FILE.json")
        return {"path": args.boxes}
    options = {"weights": getattr(args, WEIGHTS[detector][0])} if detector in WEIGHTS else {}
    det_size = getattr(args, "det_size", None)  # only inference.py and realtime.py have the flag
    return options | ({"max_side": det_size} if det_size else {})


def weights_files(args: argparse.Namespace) -> dict[str, str | None]:
    """The flags of all weights, with the files that they name."""
    return {flag: getattr(args, flag) for flag, _ in WEIGHTS.values()}


def detector_record(args: argparse.Namespace) -> dict[str, str]:
    """For what a run says of itself: the detector's name, and the weights that its flag names."""
    record = {"detector": args.detector}
    if args.detector in WEIGHTS:
        flag = WEIGHTS[args.detector][0]
        if getattr(args, flag):
            record[flag] = file_label(getattr(args, flag))
    return record
