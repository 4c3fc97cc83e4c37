"""What a detector found in a video, kept beside it: the next run need not search again.

`<video>.faces.json` holds one record; it serves only the same content, detector and settings.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable

from face_detection.base import Box
from face_detection.choice import Detections
from media.files import digest, write_json

SUFFIX = ".faces.json"


def cached_detections(
    video: str, settings: dict, count: int, detect: Callable[[], Detections]
) -> Detections:
    """The detections in `video` by `settings` (JSON values), from the cache or made by `detect`.

    count: frames that are needed; a record of the video's first frames alone serves no more than
    those. A record that cannot be read is made anew; a folder that cannot be written to costs a
    line on standard error, not the run.
    """
    key = {"sha256": digest(video), **json.loads(json.dumps(settings))}
    path = video + SUFFIX
    found = _read(path, key, count)
    if found is None:
        found = detect()
        record = {
            "key": key,
            "asked": count,
            "count": found.count,
            "cuts": found.cuts,
            "boxes": {str(index): boxes for index, boxes in found.boxes.items()},
        }
        try:
            write_json(path, record)
        except OSError as error:
            print(f"faces not cached: {path} ({error.strerror})", file=sys.stderr)
    return found


def _read(path: str, key: dict, count: int) -> Detections | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        # a record of fewer frames than were asked for holds the whole video
        if record["key"] == key and (record["asked"] >= count or record["count"] < record["asked"]):
            length = min(count, int(record["count"]))
            boxes = {
                int(index): [Box(*map(float, box)) for box in found]
                for index, found in record["boxes"].items()
                if int(index) < length
            }
            return Detections(length, [int(c) for c in record["cuts"] if c < length], boxes)
    return None
