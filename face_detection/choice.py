"""Which face of a video is meant, and where it is in every frame.

The video is looked through once before anything is generated: every k-th frame is searched, faces
are linked to tracks inside each shot, one track is chosen, the frames between are interpolated.
Only boxes are kept, so memory does not grow with the pixels. With --cache they are kept beside the
video, too: `<video>.faces.json` holds one record, which serves only the same content, detector and
settings.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from face_detection.base import Box
from face_detection.shots import ShotCuts, area, overlap
from face_detection.track import batched
from media.files import digest, write_json
from media.streams import frames_at_once

SUFFIX = ".faces.json"
MIN_IOU = 0.3  # of one face in two searched frames
FILL = 12  # frames (half a second at 25 fps) for which a lost face is still interpolated
REJOIN_IOU = 0.1  # of a track's end and the beginning of the one that continues it


@dataclass
class Detections:
    """What the detector found. count: frames of the video; cuts: first frames of new shots;
    boxes: every face of each frame that was searched; size: height and width of the frames.
    """

    count: int = 0
    cuts: list[int] = field(default_factory=list)
    boxes: dict[int, list[Box]] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)


Track = dict[int, Box]  # frame -> box, in order


def detect_faces(
    frames: Iterable[np.ndarray],
    detector,
    every: int = 1,
    batch_size: int = 16,
    find_cuts: bool = True,
) -> Detections:
    """Search every `every`-th frame (uint8 BGR (H, W, 3)) of each shot, its last one too."""
    found, shots, frames = Detections(), ShotCuts(), iter(frames)

    def searched() -> Iterator[tuple[int, np.ndarray]]:
        due, looked, previous = 0, -1, None
        for index, frame in enumerate(itertools.chain(first, frames)):
            if find_cuts and shots.feed(index, frame):
                found.cuts.append(index)
                due = index
                if looked != index - 1:  # where the old shot's last face is, none behind can tell
                    yield index - 1, previous
            if index == due:
                yield index, frame
                looked, due = index, index + every
            previous, found.count = frame, index + 1
        if looked != found.count - 1:
            yield found.count - 1, previous

    first = list(itertools.islice(frames, 1))
    for frame in first:
        found.size = frame.shape[:2]
        batch_size = frames_at_once(frame, batch_size)
    for batch in batched(searched(), batch_size):
        indices, seen = zip(*batch, strict=True)
        found.boxes.update(zip(indices, detector.detect(np.stack(seen)), strict=True))
    return found


def choose_boxes(
    found: Detections, face_index: int = 0, target: Sequence[float] | None = None, fill: int = FILL
) -> list[Box | None]:
    """The box of the face that is meant in every frame, None where it is not to be seen.

    In every shot it is the face nearest to `target` (x, y), else number `face_index` of its faces,
    the one that shows the most (area times frames) being 0; a shot with fewer faces has none.
    Gaps of at most `fill` frames are interpolated, 0: none.
    """
    boxes: list[Box | None] = [None] * found.count
    edges = [0, *found.cuts, found.count]
    step = max(np.diff(sorted(found.boxes)), default=1)  # between two searched frames, at most
    for first, last in zip(edges, edges[1:], strict=False):
        tracks = link_tracks(found, first, last, max(fill, step))
        if target is not None:
            tracks.sort(key=lambda track: _distance(track, target))
            face_index = 0
        for track in tracks[face_index:][:1]:
            for index, box in _interpolated(rejoin(track, tracks), max(fill + 1, step)):
                boxes[index] = box
    return boxes


def link_tracks(found: Detections, first: int, last: int, gap: int) -> list[Track]:
    """Tracks of the faces in frames first..last-1, one shot, largest in all first."""
    tracks: list[Track] = []
    open_tracks: list[Track] = []
    for index in sorted(index for index in found.boxes if first <= index < last):
        free = found.boxes[index]
        open_tracks = [t for t in open_tracks if index - next(reversed(t)) <= gap + 1]
        pairs = [
            (overlap(t[next(reversed(t))], box), number, slot)
            for number, t in enumerate(open_tracks)
            for slot, box in enumerate(free)
        ]
        used_tracks, used_boxes = set(), set()
        for iou, number, slot in sorted(pairs, reverse=True):
            if iou >= MIN_IOU and number not in used_tracks and slot not in used_boxes:
                open_tracks[number][index] = free[slot]
                used_tracks.add(number)
                used_boxes.add(slot)
        begun = [{index: box} for slot, box in enumerate(free) if slot not in used_boxes]
        tracks += begun
        open_tracks += begun
    return sorted(tracks, key=_shown, reverse=True)


def rejoin(track: Track, tracks: Sequence[Track]) -> Track:
    """`track` with those others that continue it: after a longer gap, in the same place."""
    joined = dict(track)
    for other in tracks:
        start, end = next(iter(other)), next(reversed(other))
        if any(start <= index <= end for index in joined):  # another face, or `track` itself
            continue
        before = max((index for index in joined if index < start), default=None)
        after = min((index for index in joined if index > end), default=None)
        if any(
            index is not None and overlap(joined[index], other[edge]) >= REJOIN_IOU
            for index, edge in ((before, start), (after, end))
        ):
            joined.update(other)
    return dict(sorted(joined.items()))


def _shown(track: Track) -> float:
    return sum(area(box) * box.score for box in track.values())


def _distance(track: Track, point: Sequence[float]) -> tuple[float, float]:
    """How far a point lies outside the track's boxes, then from their centres; smallest of all."""
    x, y = point
    outside = min(
        np.hypot(max(b.x1 - x, 0, x - b.x2), max(b.y1 - y, 0, y - b.y2)) for b in track.values()
    )
    centre = min(np.hypot((b.x1 + b.x2) / 2 - x, (b.y1 + b.y2) / 2 - y) for b in track.values())
    return float(outside), float(centre)


def _interpolated(track: Track, step: int) -> Iterable[tuple[int, Box]]:
    """Every frame's box: the found ones, and between two at most `step` apart a straight line."""
    indices = list(track)
    for index, following in zip(indices, [*indices[1:], None], strict=True):
        yield index, track[index]
        if following is None or following - index > step:
            continue
        start, end = np.array(track[index]), np.array(track[following])
        for between in range(index + 1, following):
            share = (between - index) / (following - index)
            yield between, Box(*map(float, start + share * (end - start)))


def faceless_spans(boxes: Sequence[object]) -> list[tuple[int, int]]:
    """Spans first..last (inclusive) of frames without a box."""
    missing = np.flatnonzero([box is None for box in boxes])
    runs = np.split(missing, np.flatnonzero(np.diff(missing) != 1) + 1)
    return [(int(run[0]), int(run[-1])) for run in runs if len(run)]


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
        try:
            write_json(path, {"key": key, "asked": count, **vars(found)})
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
            cuts, (height, width) = [int(c) for c in record["cuts"] if c < length], record["size"]
            return Detections(length, cuts, boxes, (int(height), int(width)))
    return None
