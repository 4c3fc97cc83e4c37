"""What every face detector here promises, and how one is made.

    detector = create_detector("centerface")
    faces = detector.detect(frames)   # frames: uint8 BGR (N, H, W, 3); faces: N lists of Box

`sfd` is the paper's detector, `centerface` needs no download, `boxes` reads known boxes from JSON.
A detector is not shared among threads (networks keep buffers, `boxes` a position): one per worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from errors import InputError

NETWORKS = ("centerface", "sfd")  # these look at the picture
DETECTORS = (*NETWORKS, "boxes")


class Box(NamedTuple):
    """One face: corners in pixels of the frame handed in, and how sure the detector is (0..1)."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float


class Detector(Protocol):
    """What `create_detector` gives back."""

    name: str

    def detect(self, frames: np.ndarray | Sequence[np.ndarray]) -> list[list[Box]]:
        """uint8 BGR frames (N, H, W, 3) -> per frame its boxes, best score first, maybe none."""


def create_detector(name: str, device: str = "cpu", **options) -> Detector:
    """The detector called `name`, on `device` ("cpu", "cuda", "cuda:1", ...).

    sfd: `weights` (a path), `threshold`, `max_side`, `half`. centerface: `max_side`, `threshold`,
    `backend`. boxes: `path`. InputError for an unknown name and for whatever the detector cannot be
    made from.
    """
    # Imported here: each detector brings packages that take seconds to load.
    if name == "sfd":
        from face_detection.sfd import SFDDetector

        return SFDDetector(device=device, **options)
    if name == "centerface":
        from face_detection.centerface import CenterFaceDetector

        return CenterFaceDetector(device=device, **options)
    if name == "boxes":
        from face_detection.boxes import KnownBoxes

        return KnownBoxes(**options)  # reads a file: any device will do
    raise InputError(f"unknown face detector {name!r}: choose one of {', '.join(DETECTORS)}")


def as_batch(frames: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Frames as one uint8 array (N, H, W, 3); ValueError where they are not such frames.

    No frames at all give an array of length 0, whatever its other sides.
    """
    if len(frames) == 0:
        return np.zeros((0, 0, 0, 3), np.uint8)
    if not isinstance(frames, np.ndarray):
        shapes = {np.shape(frame) for frame in frames}
        if len(shapes) > 1:
            raise ValueError(f"frames of one call must be of one size, got {sorted(shapes)}")
        frames = np.stack(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(
            f"frames must be uint8 (N, H, W, 3), got {frames.dtype} {tuple(frames.shape)}"
        )
    return frames


def best_first(rows: np.ndarray) -> list[Box]:
    """Rows (K, 5) of x1, y1, x2, y2, score -> Boxes of Python floats, best score first."""
    order = np.argsort(-rows[:, 4], kind="stable")
    return [Box(*map(float, row)) for row in rows[order]]
