"""The soft edge of a face that is put into a frame."""

from __future__ import annotations

import functools

import numpy as np

FEATHER = 0.08  # width of the soft edge as a share of the box


@functools.lru_cache(maxsize=32)
def feather_mask(height: int, width: int, mask: str) -> np.ndarray:
    """(height, width, 1): 1 inside, falling smoothly to 0 at the edges."""

    def ramp(length: int, first: int = 0) -> np.ndarray:
        """Of `length` values those before `first` are 0."""
        index = np.arange(length)
        distance = np.minimum(index - first, index[::-1]) + 0.5
        share = np.clip(distance / max(1.0, FEATHER * length), 0, 1)
        return share * share * (3 - 2 * share)  # smoothstep: no visible line where the ramp ends

    rows = ramp(height, height // 2 if mask == "lower" else 0)
    return np.outer(rows, ramp(width)).astype(np.float32)[..., None]
