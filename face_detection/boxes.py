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
from face_detection.base import Box, Detector


class KnownBoxes(Detector):
    """Hands out the file's boxes in order, as `detect` is called; `reset()` starts again.

    Not shared among threads: it remembers which frame comes next.
    """

    name = "boxes"
    about = "known ones, from a JSON file"

    def __init__(self, path: str | os.PathLike | None = None, device: str = "cpu"):
        if path is None:
            raise InputError("the `boxes` detector needs a JSON file of boxes: give its path")
        self.boxes = read_boxes(os.fspath(path))
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
            content = json.load(file, parse_int=float)  # whole numbers of any length
    except (ValueError, RecursionError) as error:  # not JSON, not text, or nested without end
        raise InputError(f"box file is not valid JSON: {path} ({error})") from error
    if isinstance(content, dict):
        if "boxes" not in content:
            raise InputError(f'box file has no "boxes": {path}')
        content = content["boxes"]
    if not isinstance(content, list) or not content:
        raise InputError(f"box file must hold a list of boxes with at least one entry: {path}")
    return [
        _read_entry(entry, f"box file {path}, entry {number} (counted from 0)")
        for number, entry in enumerate(content)
    ]


def _read_entry(entry, where: str) -> list[Box]:
    if entry is None:
        return []
    got = json.dumps(entry)[:80]
    numbers = isinstance(entry, list) and all(isinstance(value, float) for value in entry)
    if not numbers or len(entry) not in (4, 5):
        raise InputError(
            f"{where}: expected [x1, y1, x2, y2], a score behind it or null, got {got}"
        )
    if not all(map(math.isfinite, entry)):
        raise InputError(f"{where}: its numbers must be finite")
    box = Box(*entry[:4], *(entry[4:] or [1.0]))
    if box.x2 <= box.x1 or box.y2 <= box.y1:
        raise InputError(f"{where}: x2 must be above x1 and y2 above y1, got {got}")
    return [box]
