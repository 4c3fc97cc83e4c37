"""A cheaper search: where a face was, it is looked for in a small picture of its surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from face_detection.base import Box, Detector, as_batch, shrunk
from face_detection.shots import ShotCuts, overlap

AROUND = 2.2  # sides of the surroundings over the face's longer one
SIDE = 128  # pixels to which they are scaled; a face is searched no larger than in the whole frame
SAME = 0.5  # overlap of one face in two searched frames; of two faces at most
SURE = 0.8  # of the score that the whole frame gave
MAX_FACES = 2


class TrackedDetector:
    """`detector`, a Detector, for frames of one video in order. It searches the whole frame where
    a shot begins, where a face is lost, less sure or at the edge of its surroundings, where there
    are none or more than MAX_FACES, and every `every`-th time.
    """

    def __init__(self, detector: Detector, every: int = 25) -> None:
        self.name, self._detector, self._every = detector.name, detector, every
        self._shots = ShotCuts()
        self._known: list[Box] = []  # of the frame before, in the order of the whole search
        self._offsets: list[np.ndarray | None] = []
        self._score, self._since = 0.0, 0

    def detect(
        self, frames: np.ndarray | Sequence[np.ndarray], cuts: Sequence[bool] | None = None
    ) -> list[list[Box]]:
        """As a Detector's; cuts: whether a shot begins with each frame, where that is known."""
        frames = as_batch(frames)
        cuts = cuts or [self._shots.feed(0, frame) for frame in frames]
        return [self._detect_one(*given) for given in zip(frames, cuts, strict=True)]

    def _detect_one(self, frame: np.ndarray, cut: bool) -> list[Box]:
        found = None
        self._since += 1
        if not cut and self._since < self._every and 0 < len(self._known) <= MAX_FACES:
            found = self._near(frame)
        if found is None:
            (found,) = self._detector.detect(frame[None])
            self._since, self._score = 0, min((box.score for box in found), default=0.0)
            # the same network draws a face's box a little otherwise where it sees it smaller
            near = [self._moved(frame, box) for box in found[:MAX_FACES]]
            self._offsets = [
                other and np.subtract(box[:4], other[:4]) / _sides(other)
                for box, other in zip(found, near, strict=False)
            ]
        self._known = found
        return found

    def _near(self, frame: np.ndarray) -> list[Box] | None:
        """The known faces in this frame; None where one is not surely there."""
        found = []
        for known, offset in zip(self._known, self._offsets, strict=True):
            box = None if offset is None else self._moved(frame, known)
            if box is None or any(overlap(box, other) > SAME for other in found):
                return None
            found.append(Box(*(box[:4] + offset * _sides(box)).tolist(), box.score))
        return found

    def _moved(self, frame: np.ndarray, known: Box) -> Box | None:
        height, width = frame.shape[:2]
        half = AROUND / 2 * max(known.x2 - known.x1, known.y2 - known.y1)
        x, y = (known.x1 + known.x2) / 2, (known.y1 + known.y2) / 2
        left, top = max(0, int(x - half)), max(0, int(y - half))
        right, bottom = min(width, int(x + half) + 1), min(height, int(y + half) + 1)
        whole = min(1.0, (self._detector.max_side or np.inf) / max(height, width))
        side = min(SIDE, whole * max(right - left, bottom - top))
        small, sx, sy = shrunk(frame[top:bottom, left:right], side)
        (boxes,) = self._detector.detect(small[None])
        moved = [
            Box(b.x1 / sx + left, b.y1 / sy + top, b.x2 / sx + left, b.y2 / sy + top, b.score)
            for b in boxes
        ]
        box = max(moved, key=lambda b: overlap(b, known), default=None)
        if box is None or box.score < SURE * self._score or overlap(box, known) < SAME:
            return None
        inside = (
            (box.x1 > left or left == 0)
            and (box.y1 > top or top == 0)
            and (box.x2 < right or right == width)
            and (box.y2 < bottom or bottom == height)
        )
        return box if inside else None


def _sides(box: Box) -> np.ndarray:
    """Its width and height, for each corner: (4,)."""
    return np.tile((box.x2 - box.x1, box.y2 - box.y1), 2)
