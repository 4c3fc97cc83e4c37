"""From one frame to the next: whether a new shot begins, how far two boxes overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from face_detection.base import Box

CUT = 27.0  # mean difference of hue, saturation and brightness (PySceneDetect)
CUT_WIDTH = 160  # pixels; enough to tell a cut, and cheap for 4K


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (area(a) + area(b) - width * height)


def area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


class ShotCuts:
    """Tells, frame by frame, whether a new shot begins, as PySceneDetect's content detector does
    for two neighbouring frames: a run that is taken up in the middle judges alike.

    threshold: of the mean change in hue, saturation and value. min_scene: frames before which no
    shot ends.
    """

    def __init__(self, threshold: float = CUT, min_scene: int = 0) -> None:
        self._threshold, self._min_scene = threshold, min_scene
        self._before: np.ndarray | None = None
        self._begin: int | None = None  # of the shot

    def feed(self, index: int, frame: np.ndarray) -> bool:
        """Whether `frame`, uint8 BGR (H, W, 3), differs from the one before as two shots do."""
        import cv2

        height = max(1, round(frame.shape[0] * CUT_WIDTH / frame.shape[1]))
        small = cv2.resize(frame, (CUT_WIDTH, height), interpolation=cv2.INTER_AREA)
        before, self._before = self._before, cv2.cvtColor(small, cv2.COLOR_BGR2HSV)
        if self._begin is None:
            self._begin = index
        if before is None or index - self._begin < self._min_scene:
            return False
        same_size = before.shape == self._before.shape
        if same_size and cv2.absdiff(before, self._before).mean() < self._threshold:
            return False
        self._begin = index
        return True
