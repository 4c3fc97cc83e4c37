"""Known face boxes from a JSON file, for footage whose faces are annotated already.

The file holds {"boxes": [...]} (other keys are ignored) or the bare list: one entry per frame in
order, [x1, y1, x2, y2], [x1, y1, x2, y2, score] or null for a frame without a face. A list of one
entry serves every frame.
"""

from __future__ import annotations

import json
import math
import os

from errors import InputError, require_file
from face_detection.base import Box


class KnownBoxes:
    """Hands out the file's boxes in order, as `detect` is called; `reset()` starts again.

    Not shared among threads: it remembers which frame comes next.
    """

    name = "boxes"

    def __init__(self, path: str | os.PathLike | None = None):
        if path is None:
            raise InputError("the `boxes` detector needs a JSON file of boxes: give its path")
        self.path = os.fspath(path)
        self.boxes = read_boxes(self.path)
        self.position = 0

    def reset(self, frame: int = 0) -> None:
        """The next frame is number `frame`, counted from 0."""
        self.position = frame

    def detect(self, frames) -> list[list[Box]]:
        """Boxes of the next len(frames) frames as the file has them; none past its end.

        The pixels are not looked at, so any sized sequence will do, and boxes are not clipped.
        """
        first = self.position
        self.position += len(frames)
        if len(self.boxes) == 1:
            return [list(self.boxes[0]) for _ in range(len(frames))]
        found = [list(entry) for entry in self.boxes[first : self.position]]
        return found + [[] for _ in range(len(frames) - len(found))]


def read_boxes(path: str) -> list[list[Box]]:
    """Per frame its boxes (one or none); InputError naming the file and the entry at fault."""
    require_file(path, "box file")
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:  # not JSON, not text, or nested without end
        raise InputError(f"box file is not valid JSON: {path} ({error})") from error
    if isinstance(content, dict):
        if "boxes" not in content:
            raise InputError(f'box file has no "boxes": {path}')
        content = content["boxes"]
    if not isinstance(content, list) or not content:
        raise InputError(f"box file must hold a list of boxes with at least one entry: {path}")
    return [_read_entry(entry, number, path) for number, entry in enumerate(content)]


def _read_entry(entry, number: int, path: str) -> list[Box]:
    if entry is None:
        return []
    where = f"box file {path}, entry {number} (counted from 0)"
    if not isinstance(entry, list) or len(entry) not in (4, 5) or not all(map(_is_number, entry)):
        raise InputError(
            f"{where}: expected [x1, y1, x2, y2], a score behind it or null, "
            f"got {json.dumps(entry)[:80]}"
        )
    try:
        box = Box(*map(float, entry), *([1.0] if len(entry) == 4 else []))
    except OverflowError:  # an integer beyond what a float can hold
        box = Box(*[math.inf] * 5)
    if not all(map(math.isfinite, box)):
        raise InputError(f"{where}: its numbers must be finite")
    if box.x2 <= box.x1 or box.y2 <= box.y1:
        raise InputError(
            f"{where}: x2 must be above x1 and y2 above y1, got {json.dumps(entry)[:80]}"
        )
    return [box]


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
