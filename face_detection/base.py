"""What every face detector promises: boxes, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np


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
