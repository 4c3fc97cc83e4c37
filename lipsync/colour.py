"""The new face in the old one's colours: `--match_color`."""

from __future__ import annotations

import functools

import numpy as np

MOUTH = (0.5, 0.76), (0.24, 0.15)  # middle and half axes of what moves, as shares of the face
KEPT = 0.85  # of the correction of the frame before: it must not flicker
MOST = 1.25  # by which the spread of a channel is changed at most


class ColorMatch:
    """Mean and spread in Lab of the ring around the mouth, as the frame has them, smoothed over the
    frames of one video, which come in order.
    """

    def __init__(self) -> None:
        self._smooth: np.ndarray | None = None  # (2, 3): shift of the mean, factor of the spread

    def match(self, face: np.ndarray, old: np.ndarray) -> np.ndarray:
        """face: uint8 BGR (S, S, 3), or (S, S, 4) with a mask, as the result is. old: what the
        frame shows in its place, uint8 BGR (H, W, 3).
        """
        import cv2

        height, width = face.shape[:2]
        old = cv2.resize(old, (width, height), interpolation=cv2.INTER_AREA)
        new, old = (_lab(picture) for picture in (face[..., :3], old))
        ring = _ring(height, width)
        middle, spread = new[ring].mean(axis=0), new[ring].std(axis=0) + 1e-3
        shift = old[ring].mean(axis=0) - middle
        factor = np.clip(old[ring].std(axis=0) / spread, 1 / MOST, MOST)
        now = np.stack((shift, factor))
        self._smooth = now if self._smooth is None else KEPT * self._smooth + (1 - KEPT) * now
        matched = (new - middle) * self._smooth[1] + middle + self._smooth[0]
        bgr = cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_LAB2BGR)
        bgr = np.rint(np.clip(bgr, 0, 1) * 255).astype(np.uint8)
        return np.dstack((bgr, face[..., 3:]))


def _lab(picture: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(picture, np.float32) / 255, cv2.COLOR_BGR2LAB)


@functools.lru_cache(maxsize=8)
def _ring(height: int, width: int) -> np.ndarray:
    """The lower half, which is what the network draws, without the mouth: bool (H, W)."""
    y, x = np.mgrid[:height, :width]
    y, x = (y + 0.5) / height, (x + 0.5) / width
    (right, down), (across, along) = MOUTH
    return (y > 0.5) & (((x - right) / across) ** 2 + ((y - down) / along) ** 2 > 1)
