"""Putting the generated face back into the frame, so that no seam shows: its edge, its colours."""

from __future__ import annotations

import functools

import numpy as np

from face_detection.track import BoxTuple
from models.feather import feather_mask

# of --match_color
MOUTH = (0.5, 0.76), (0.24, 0.15)  # middle and half axes of what moves, as shares of the face
KEPT = 0.85  # of the correction of the frame before: it must not flicker
MOST = 1.25  # by which the spread of a channel is changed at most
RIM = 2  # pixels around the box that Poisson blending takes its colours from


def paste_face(
    frame: np.ndarray,
    face: np.ndarray,
    box: BoxTuple,
    paste: str = "feather",
    mask: str = "face",
    colour: ColorMatch | None = None,
) -> None:
    """Resize `face` (S, S, 3) uint8 BGR to the box and put it into `frame`, in place.

    paste: "hard" replaces the rectangle (released), "feather" blends over its outer edge, "poisson"
    takes the face's gradients and the frame's colours (slow: tens of milliseconds a face).
    mask: "lower" leaves the upper half of the box as it was, the model redraws it but need not.
    A face (S, S, 4) brings its model's own mask, 0..255, which takes the place of both. Pixels
    outside the box never change. colour: gives the face the colours of the frame.
    """
    import cv2

    x1, y1, x2, y2 = box
    height, width = y2 - y1, x2 - x1
    region = frame[y1:y2, x1:x2]
    face = cv2.resize(face if colour is None else colour.match(face, region), (width, height))
    if face.shape[2] == 4:
        _blend(region, face[..., :3], np.float32(face[..., 3:]) / 255)
    elif paste == "poisson":
        _poisson(frame, face, box, mask)
    elif paste == "hard":
        top = height // 2 if mask == "lower" else 0
        region[top:] = face[top:]
    else:
        _blend(region, face, feather_mask(height, width, mask))


def _blend(region: np.ndarray, face: np.ndarray, share: np.ndarray) -> None:
    old = region.astype(np.float32)
    region[:] = np.rint(old + share * (face.astype(np.float32) - old)).astype(np.uint8)


def _poisson(frame: np.ndarray, face: np.ndarray, box: BoxTuple, mask: str) -> None:
    """cv2.seamlessClone on the box and a rim around it, not on the whole frame."""
    import cv2

    x1, y1, x2, y2 = box
    top, left = max(0, y1 - RIM), max(0, x1 - RIM)
    region = frame[top : y2 + RIM, left : x2 + RIM]
    source = region.copy()
    source[y1 - top : y2 - top, x1 - left : x2 - left] = face
    inside = np.zeros(region.shape[:2], np.uint8)
    first = y1 + (y2 - y1) // 2 if mask == "lower" else y1
    inside[first - top : y2 - top, x1 - left : x2 - left] = 255
    inside[[0, -1]] = 0  # at the frame's edge there is no rim: the solver needs one pixel
    inside[:, [0, -1]] = 0
    rows, columns = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
    if len(rows) < 3 or len(columns) < 3:  # too small to blend
        region[:] = np.where(inside[..., None] > 0, source, region)
        return
    # seamlessClone centres the mask's bounding rectangle on this point
    centre = (int(columns[0] + columns[-1] + 1) // 2, int(rows[0] + rows[-1] + 1) // 2)
    region[:] = cv2.seamlessClone(source, region.copy(), inside, centre, cv2.NORMAL_CLONE)


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
