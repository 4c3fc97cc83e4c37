"""What every face detector here promises, and how one is made.

    detector = create_detector("centerface")
    faces = detector.detect(frames)   # frames: uint8 BGR (N, H, W, 3); faces: N lists of Box

A detector is not shared among threads (networks keep buffers, `boxes` a position): one per worker.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from errors import InputError

# A detector's name, which is its file's in here, too, and its class, of which all else is told
DETECTORS = {"centerface": "CenterFaceDetector", "sfd": "SFDDetector", "boxes": "KnownBoxes"}
NETWORKS = tuple(name for name in DETECTORS if name != "boxes")  # these look at the picture


class Box(NamedTuple):
    """One face: corners in pixels of the frame handed in, and how sure the detector is (0..1)."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float


class Detector:
    """A subclass in face_detection/<name>.py, made with `device` and options of its own, is a
    detector. What it imports beyond numpy it imports where it is used: --help reads the class.
    """

    name: str
    about = ""  # what --help says of it
    weights: tuple[str, str] | None = None  # their flag, and where they are looked for without it
    # evaluation's face tracks: by how much frames are scaled first, and the score above which a box
    # counts; these are the published ones
    tracks = (0.25, 0.9)
    max_side: int | None = None  # larger frames are searched scaled down to this longer side

    def detect(self, frames: np.ndarray | Sequence[np.ndarray]) -> list[list[Box]]:
        """uint8 BGR frames (N, H, W, 3) -> per frame its boxes, best score first, maybe none."""
        raise NotImplementedError


def detector_class(name: str) -> type[Detector]:
    """The class of the detector called `name`; InputError where there is none."""
    if name not in DETECTORS:
        raise InputError(f"unknown face detector {name!r}: choose one of {', '.join(DETECTORS)}")
    return getattr(importlib.import_module(f"face_detection.{name}"), DETECTORS[name])


def create_detector(name: str, device: str = "cpu", **options) -> Detector:
    """The detector called `name`, on `device` ("cpu", "cuda", "cuda:1", ...), with options of its
    class. InputError for an unknown name and for whatever it cannot be made from.
    """
    return detector_class(name)(device=device, **options)


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


def shrunk(frame: np.ndarray, max_side: float) -> tuple[np.ndarray, float, float]:
    """The frame with its longer side at most max_side, and its new size over its old (x, y)."""
    import cv2

    height, width = frame.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    if scale == 1.0:
        return frame, 1.0, 1.0
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA), size[0] / width, size[1] / height


def best_first(rows: np.ndarray) -> list[Box]:
    """Rows (K, 5) of x1, y1, x2, y2, score -> Boxes of Python floats, best score first."""
    order = np.argsort(-rows[:, 4], kind="stable")
    return [Box(*map(float, row)) for row in rows[order]]
