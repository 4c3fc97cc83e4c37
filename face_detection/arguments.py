"""The flags that choose a face detector, the same in every script."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from errors import InputError
from face_detection.base import DETECTORS, NETWORKS, detector_class
from media.files import file_label


def add_detector_arguments(
    parser: argparse._ActionsContainer,
    choices: Sequence[str] = NETWORKS,
    default: str = "centerface",
    help: str | None = None,
) -> None:
    """--detector, whose help adds to `help` what the classes say; the flags of all weights."""
    about = [help] if help else []
    about += [f"{name}: {detector_class(name).about}" for name in choices]
    about = "; ".join((*about, "default %(default)s"))
    parser.add_argument("--detector", choices=choices, default=default, help=about)
    add_weights_arguments(parser)


def _weights() -> dict[str, tuple[str, str]]:
    """Of the detectors that have some: their flag, and where they are looked for without it."""
    found = {name: detector_class(name).weights for name in DETECTORS}
    return {name: weights for name, weights in found.items() if weights}


def add_weights_arguments(parser: argparse._ActionsContainer) -> None:
    """The flags of all weights alone, for a script that takes several detectors."""
    for detector, (flag, place) in _weights().items():
        parser.add_argument(f"--{flag}", help=f"weights of --detector {detector}; default {place}")


def detector_options(args: argparse.Namespace, detector: str | None = None) -> dict:
    """What create_detector takes beside name and device. detector: default args.detector."""
    detector = detector or args.detector
    if detector == "boxes":
        if not args.boxes:
            raise InputError("--detector boxes needs --boxes FILE.json")
        return {"path": args.boxes}
    weights = detector_class(detector).weights
    options = {"weights": getattr(args, weights[0])} if weights else {}
    det_size = getattr(args, "det_size", None)  # only inference.py and realtime.py have the flag
    return options | ({"max_side": det_size} if det_size else {})


def weights_files(args: argparse.Namespace) -> dict[str, str | None]:
    """The flags of all weights, with the files that they name."""
    return {flag: getattr(args, flag) for flag, _ in _weights().values()}


def detector_record(args: argparse.Namespace) -> dict[str, str]:
    """For what a run says of itself: the detector's name, and the weights that its flag names."""
    flag, _ = detector_class(args.detector).weights or ("", "")
    path = getattr(args, flag, None)
    return {"detector": args.detector} | ({flag: file_label(path)} if path else {})
