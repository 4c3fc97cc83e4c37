"""How one face and one speech are joined: the options of inference, their flags and defaults."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from errors import InputError
from lipsync.mark import check_mark

# What the words for a switch mean, on the command line and in a manifest
SWITCHES = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
PASTES = ("feather", "hard", "poisson")
MASKS = ("face", "lower")
PADS = ("loop", "bounce", "hold", "trim", "stretch")
REFERENCES = ("same", "first", "rest")  # and any picture's path
REFERENCE = "same"  # the default: as released
SIDES = ("TOP", "BOTTOM", "LEFT", "RIGHT")


@dataclass(frozen=True)
class Options:
    """Names and defaults are the released flags where it has them."""

    static: bool = False  # use the first frame only
    fps: float | None = None  # of a picture: 25; of a video: its own, at any other it is resampled
    pads: tuple[int, int, int, int] = (0, 10, 0, 0)  # top, bottom, left, right
    face_det_batch_size: int = 16
    wav2lip_batch_size: int = 128
    resize_factor: int = 1
    crop: tuple[int, int, int, int] = (0, -1, 0, -1)  # top, bottom, left, right; -1 = to the edge
    box: tuple[int, int, int, int] | None = None  # top, bottom, left, right: no detection
    rotate: bool = False  # 90 degrees clockwise
    nosmooth: bool = False
    faithful: bool = False  # the released program, frame by frame
    # which face, and what where there is none
    # Frames; those between are interpolated. On real clips every 4th gives boxes that differ from
    # those of every frame by 1.6% of their width, less than the detector's own jitter (2%).
    det_every: int = 4
    track: bool = False  # see face_detection/tracked.py
    face_index: int = 0  # 0: the one that shows the most
    target: tuple[float, float] | None = None  # x, y: the face nearest to it
    no_face: str = "pass"
    cache: bool = False  # keep the boxes beside the video
    pad: str = "loop"
    reference: str = REFERENCE  # whose mouth the network sees; see lipsync/reference.py
    # how it looks
    paste: str = "feather"
    mask: str = "face"
    match_color: bool = False
    silence_gate: float | None = None  # dBFS
    enhance: str | None = None  # a command; see lipsync/enhance.py
    enhance_size: int = 512
    mark: str | None = None  # a text in a corner of every frame; see lipsync/mark.py
    # for evaluation's protocols
    drop_last: bool = False  # with faithful: without the last, incomplete mel window
    video_fps: float | None = None  # resample a face video to this rate
    max_short_side: int | None = None  # scale larger frames down to this shorter side
    progress: bool = False  # bars, on a terminal

    def resolved(self) -> Options:
        """With `faithful` the released paste, every frame searched, none without a face."""
        if not self.faithful:
            return self
        return replace(
            self, paste="hard", mask="face", no_face="error", det_every=1, cache=False,
            track=False, silence_gate=None, enhance=None, reference="same", match_color=False,
        )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of Options."""
    # fmt: off
    add = parser.add_argument_group("video").add_argument
    # the released program takes `--static True`
    add("--static", type=str.lower, nargs="?", choices=SWITCHES, const="true",
        default="false", metavar="true|false", help="use the first video frame only")
    add("--fps", type=float,
        help="frames a second; default 25 for a picture, for a video its own rate")
    add("--resize_factor", type=positive, default=1, help="divide both sides of the video by this")
    add("--crop", nargs=4, type=int, default=[0, -1, 0, -1], metavar=SIDES,
        help="use this part of the frame; -1 = to the edge; after --resize_factor and --rotate")
    add("--rotate", action="store_true", help="turn the video 90 degrees clockwise")
    add("--pad", choices=PADS, default="loop",
        help="what a video shorter than the speech does: start again, go back and forth, keep its "
        "last frame, end the output, or show its frames longer; default %(default)s")
    add = parser.add_argument_group("face").add_argument
    add("--box", nargs=4, type=int, default=[-1, -1, -1, -1], metavar=SIDES,
        help="the face's place in every frame, instead of detection")
    add("--pads", nargs=4, type=int, default=[0, 10, 0, 0], metavar=SIDES,
        help="grow the detected face, to take in the chin; default 0 10 0 0")
    add("--face_index", type=natural, default=0,
        help="of several faces: 0 is the one that shows the most, 1 the next, ...")
    add("--target", type=point, metavar="X,Y", help="of several faces: the one nearest this point")
    add("--no_face", choices=("pass", "hold", "error"), default="pass",
        help="a frame without a face passes unchanged, keeps the last box, or is an error; "
        "default %(default)s")
    add("--nosmooth", action="store_true", help="do not smooth face boxes over time")
    add("--face_det_batch_size", type=positive, default=16)
    add("--det_every", type=positive, default=4,
        help="search every so many frames for faces; default %(default)s")
    add("--track", action="store_true",
        help="search around the face alone where it was found before: faster, boxes a little less "
        "steady")
    add("--cache", action="store_true", help="keep the boxes found beside the video, for next time")
    add("--reference", default=REFERENCE, metavar="|".join((*REFERENCES, "FILE")),
        help="where the network sees the whole face, mouth and all: in the same frame, in the "
        "first with a face, in the one whose mouth rests, or in a picture; default %(default)s")
    add = parser.add_argument_group("look").add_argument
    add("--faithful", action="store_true", help="frames exactly as the released program makes them")
    add("--paste", choices=PASTES, default="feather",
        help="edge of the new face; default %(default)s")
    add("--mask", choices=MASKS, default="face",
        help="what is replaced: the whole box, or its lower half; default %(default)s")
    add("--match_color", action="store_true",
        help="give the new face the colours that the old one has around the mouth")
    add("--silence_gate", type=float, metavar="DBFS",
        help="the mouth rests where the speech is below this level, e.g. -45")
    add("--enhance", metavar="COMMAND",
        help="an external restorer for the faces; see lipsync/enhance.py")
    add("--enhance_size", type=positive, default=512, help="side of the faces that it gets")
    add("--mark", metavar="TEXT", type=check_mark,
        help='a small text in the lower right corner of every frame, e.g. "AI generated"; what the '
        "video is stands in its metadata in any case")
    add("--wav2lip_batch_size", type=positive, default=128)
    # fmt: on


def options_from(args: argparse.Namespace) -> dict:
    """The keyword arguments of Options that parsed flags stand for."""
    names = [name for name in Options.__dataclass_fields__ if hasattr(args, name)]
    options = {name: getattr(args, name) for name in names}
    options["box"] = None if args.box[0] == -1 else tuple(args.box)
    options["static"] = SWITCHES[args.static]
    return options


class FlagParser(argparse.ArgumentParser):
    """The flags of Options for the cells of a table or the fields of a page: a fault is an
    InputError.
    """

    def __init__(self) -> None:
        super().__init__(prog="", add_help=False, allow_abbrev=False)
        add_arguments(self)

    def error(self, message: str) -> None:
        raise InputError(message)

    def value(self, name: str, text: str) -> object:
        """The option that the flag --`name` makes of a text, and no other, whatever it says."""
        default = self.get_default(name)
        if isinstance(default, bool):
            if text.lower() not in SWITCHES:
                raise InputError("neither true nor false")
            return SWITCHES[text.lower()]
        argv = [f"--{name}", *text.split()] if isinstance(default, list) else [f"--{name}={text}"]
        return options_from(self.parse_args(argv))[name]


def _number(kind: type, valid: Callable[[float], bool], words: str) -> Callable[[str], float]:
    """What argparse makes of a text: a `valid` number, described by `words`."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not valid(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not a {words}")
        return value

    return parse


positive = _number(int, lambda value: value >= 1, "whole number of at least 1")
natural = _number(int, lambda value: value >= 0, "whole number of at least 0")
seconds = _number(float, lambda value: 0 < value < math.inf, "number of seconds above 0")


def point(text: str) -> tuple[float, float]:
    """ "x,y" in pixels, for argparse."""
    try:
        x, y = map(float, text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a point: x,y") from error
    return x, y
