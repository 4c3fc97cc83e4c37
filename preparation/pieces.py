"""Cutting a video into pieces that each show one person: at shot cuts, where the tracked face is
lost, and at a length limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from face_detection.base import Box
from face_detection.shots import area, overlap

MIN_IOU = 0.3  # of a face in two neighbouring frames; a head does not jump further in 40 ms
MAX_GAP = 12  # frames (half a second) for which a tracked face may be missed


@dataclass(frozen=True)
class PieceRules:
    """split: cut videos into pieces of min_frames..max_frames; else each video is one clip."""

    split: bool
    min_frames: int
    max_frames: int


@dataclass
class Piece:
    """Consecutive frames of one person. first: its first frame in the source at 25 fps."""

    first: int
    boxes: list[Box | None] = field(default_factory=list)  # of every frame since `first`
    crowded: int = 0  # frames that show other faces too


def follow(boxes: Sequence[Box], last: Box | None) -> Box | None:
    """The box that continues `last`, if any."""
    best = max(boxes, key=lambda box: overlap(box, last), default=None) if last else None
    return best if best is not None and overlap(best, last) >= MIN_IOU else None


class Pieces:
    """The pieces of a video, frame by frame.

    `feed` says which face of a frame belongs to the open piece and hands out the piece that ended
    before that frame. A piece that is full ends, and the same face is followed in the next one.
    """

    def __init__(self, rules: PieceRules) -> None:
        self.rules = rules
        self.piece = None if rules.split else Piece(0)
        self._last: Box | None = None  # of the face that is followed
        self._missed = 0  # frames for which it has not been seen

    def feed(self, index: int, cut: bool, boxes: Sequence[Box]) -> tuple[Piece | None, Box | None]:
        """(piece that ended before frame `index`, box of the open piece's face in that frame).

        cut: whether a new shot begins with this frame. boxes: all faces found in it.
        """
        box, ended = follow(boxes, self._last), None
        self._missed += box is None
        if self.rules.split:
            lost = cut or self._missed > MAX_GAP
            if lost:
                box = self._last = None
            full = self.piece and index - self.piece.first >= self.rules.max_frames
            if lost or full:
                ended = self.end()
        if self._last is None or not (box or self.rules.split):
            box = max(boxes, key=area, default=None)  # a new person: the largest
        if box is not None and self.piece is None:
            self.piece = Piece(index)
        if self.piece is not None:
            self.piece.boxes.append(box)
            self.piece.crowded += len(boxes) > 1
        if box is not None:
            self._last, self._missed = box, 0
        return ended, box

    def end(self) -> Piece | None:
        """The open piece, closed; frames behind its last one with a face are cut off it."""
        ended, self.piece = self.piece, None
        while self.rules.split and ended and ended.boxes and ended.boxes[-1] is None:
            ended.boxes.pop()
        return ended
