"""The face to be driven, as a stream: which frame of it is shown when, and where its face is."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from errors import InputError
from face_detection import choice, track
from face_detection.track import BoxTuple, NoFace
from lipsync.options import Options
from media.streams import ahead, frames_at_once

NO_FACE_REMEDY = "give its place with --box top bottom left right, or try another --detector"


def schedule(total: int, count: int, pad: str, held: float = 0) -> np.ndarray:
    """Which of a video's `total` frames is shown in each of `count` frames of speech: (count,).

    pad: what a shorter video does: "loop" starts again (released), "bounce" goes back and forth,
    "hold" keeps its last frame, "stretch" shows its frames longer, evenly, and "trim" ends the
    output with it. A longer one ends with the speech. held: for less than so many frames, and less
    than half of it, a video is not started again: its last frame is kept.
    """
    index = np.arange(count)
    rest = count % total
    if pad == "loop" and total <= count and 2 * rest < min(2 * held, total):
        return np.minimum(index, count - rest - 1) % total
    if total >= count:
        return index
    if pad == "loop":
        return index % total
    if pad == "bounce":
        return np.abs((index + total - 1) % max(1, 2 * total - 2) - (total - 1))
    if pad == "hold":
        return np.minimum(index, total - 1)
    if pad == "stretch":
        return index * total // count
    return index[:total]


def play(
    indices: Iterable[int], open_at: Callable[[int], Iterator[np.ndarray]]
) -> Iterator[np.ndarray]:
    """The frames with these numbers, each a copy of its own. open_at(first): frames from there on.

    A stretch that runs backwards is decoded in segments of frames_at_once.
    """
    stream, at, frame = None, -1, None
    segment: dict[int, np.ndarray] = {}  # frames behind us, while we go back
    for index in indices:
        if index in segment:
            frame, at, stream = segment.pop(index), index, None
        elif index == at - 1 and index > 0:
            room = frames_at_once(frame)
            first = max(0, index - room + 1)
            behind = itertools.islice(open_at(first), index - first + 1)
            segment = dict(enumerate(behind, first))
            frame, at, stream = segment.pop(index), index, None
        elif index != at:
            if stream is None or index < at:
                stream, at = open_at(index), index - 1
            frame = next(itertools.islice(stream, index - at - 1, None))
            at, segment = index, {}
        yield frame.copy()


@dataclasses.dataclass
class FaceSource:
    """A face picture or video and the box of its face in each of its frames.

    still: the first frame is shown all the time. fps: of the output. boxes: of the source's
    frames, None where there is no face. reference: the face (1, S, S, 3) that the network sees
    beside every frame; None: the frame's own.
    """

    path: str
    still: bool
    fps: float
    opts: Options
    boxes: list[BoxTuple | None]
    reference: np.ndarray | None = None

    def frames(
        self, count: int, picks: Sequence[int] | None = None
    ) -> Iterator[tuple[np.ndarray, BoxTuple | None]]:
        """(frame uint8 BGR (H, W, 3), its box), `count` of them, fewer if padded by "trim".

        picks: only those with these numbers.
        """
        order = self.order(count)
        return self.at(order if picks is None else order[picks])

    def at(self, indices: Iterable[int]) -> Iterator[tuple[np.ndarray, BoxTuple | None]]:
        """The source's own frames of these numbers, each with its box."""
        played, boxed = itertools.tee(map(int, indices))
        shown = play(played, lambda first: _frames(self.path, self.opts, first))
        return zip(shown, (self.boxes[index] for index in boxed), strict=True)

    def endless(self) -> Iterator[tuple[np.ndarray, BoxTuple | None]]:
        """As `frames`, without end; pad "loop", "bounce" or "hold"."""
        total, pad = len(self.boxes), "hold" if self.still else self.opts.pad
        once = schedule(total, max(1, 2 * total - 2) if pad == "bounce" else total, pad)
        again = itertools.repeat(total - 1) if pad == "hold" else itertools.cycle(once)
        return self.at(itertools.chain(once, again))

    def face_size(self) -> float:
        """The median length of the boxes' longer sides, in pixels."""
        sides = [max(x2 - x1, y2 - y1) for x1, y1, x2, y2 in filter(None, self.boxes)]
        return float(np.median(sides))

    def faceless(self, count: int) -> list[tuple[int, int]]:
        """Spans first..last (inclusive) of `count` shown frames that have no box."""
        return choice.faceless_spans([self.boxes[index] for index in self.order(count)])

    def order(self, count: int) -> np.ndarray:
        """The numbers of the source's frames that are shown."""
        held = 0 if self.opts.faithful else self.fps / 2  # a start of less is seen as a flash
        return schedule(len(self.boxes), count, "hold" if self.still else self.opts.pad, held)


def source_fps(face: str, opts: Options) -> float:
    """Frames a second of the output: the video's own, or what the options say."""
    from media.picture import is_image
    from media.read import probe

    if opts.fps is not None and not 0 < opts.fps < 1000:
        raise InputError(f"a video cannot have {opts.fps} frames a second")
    if is_image(face):
        return opts.fps or 25.0
    return _resampled(opts).video_fps or probe(face).fps


def _resampled(opts: Options) -> Options:
    """With --fps a video is resampled, which the released program does not."""
    rate = opts.video_fps or (None if opts.faithful else opts.fps)
    return dataclasses.replace(opts, video_fps=rate)


def find_source(
    face: str,
    opts: Options,
    count: int,
    detector: Callable[[], object],
    key: dict,
    report: Callable[[str, int, int], None] | None = None,
) -> FaceSource:
    """Look through the first `count` frames of `face` once and choose the face that is meant.

    detector: makes the detector; not called where --box is given. key: its name ("detector") and
    what else its boxes depend on. report: told ("faces", frames looked at, frames in all) before
    each; what it raises ends the search. Raises NoFace where no frame has one, or where
    `opts.no_face` is "error" and some frame has none; InputError for files that cannot be used.
    """
    from media.picture import is_image

    still = is_image(face) or opts.static
    fps, opts = source_fps(face, opts), _resampled(opts)
    limit = 1 if still else count
    if opts.box is not None:
        boxes = _known_boxes(face, opts, limit)
    else:
        boxes = _found_boxes(face, opts, limit, detector, key, report)
    missing = [index for index, box in enumerate(boxes) if box is None]
    if len(missing) == len(boxes):
        where = "" if still else "any frame of "
        raise NoFace(f"no face found in {where}{face}; {NO_FACE_REMEDY}")
    if missing and opts.no_face == "error":
        raise NoFace(f"no face in frame {missing[0]} of {face}; give --box or --no_face pass")
    if opts.no_face == "hold":
        boxes = _held(boxes)
    return FaceSource(face, still, fps, opts, boxes)


def _frames(face: str, opts: Options, first: int = 0) -> Iterator[np.ndarray]:
    shape = (opts.resize_factor, opts.rotate, opts.crop, opts.video_fps, opts.max_short_side)
    return track.face_frames(face, *shape, skip=first)


def _known_boxes(face: str, opts: Options, limit: int) -> list[BoxTuple]:
    from media.read import count_frames, probe

    with ahead(_frames(face, opts), 1) as frames:
        box = track.checked_box(opts.box, *next(frames).shape[:2])
    if limit == 1:
        return [box]
    return [box] * count_frames(face, opts.video_fps or probe(face).fps, limit)


def _found_boxes(
    face: str, opts: Options, limit: int, detector: Callable, key: dict, report: Callable | None
) -> list[BoxTuple | None]:
    """Released: the best face of each frame alone. Else: the one that is meant, and in every
    shot smoothed by itself.
    """
    known = key["detector"] == "boxes"  # told frame by frame: none is left out, none is guessed

    def detect() -> choice.Detections:
        finder, batch = detector(), opts.face_det_batch_size
        every = 1 if opts.faithful or known else opts.det_every
        with ahead(itertools.islice(_frames(face, opts), limit), batch) as frames:
            seen = _counted(frames, face, limit, opts, report)
            find_cuts = not (opts.faithful or limit == 1)
            return choice.detect_faces(seen, finder, every, batch, find_cuts)

    if opts.cache and not opts.faithful and not known:
        names = ("det_every", "resize_factor", "rotate", "crop", "video_fps", "max_short_side")
        settings = key | {name: getattr(opts, name) for name in names}
        found = choice.cached_detections(face, settings, limit, detect)
    else:
        found = detect()
    if opts.faithful:
        chosen = [(found.boxes[index] or [None])[0] for index in range(found.count)]
    else:
        fill = 0 if known or opts.no_face == "error" else choice.FILL
        chosen = choice.choose_boxes(found, opts.face_index, opts.target, fill)
    boxes = [box and track.padded_box(box, opts.pads, *found.size) for box in chosen]
    most = max(map(len, found.boxes.values()), default=0)
    if most and not any(chosen):
        raise NoFace(
            f"there is no --face_index {opts.face_index} in {face}: {most} "
            f"{'face is' if most == 1 else 'faces are'} seen at once, numbered from 0"
        )
    if most and not any(boxes):
        raise NoFace(f"--pads {' '.join(map(str, opts.pads))} leave nothing of the face in {face}")
    return boxes if opts.nosmooth else _smoothed(boxes, found.cuts)


def _counted(
    frames: Iterable[np.ndarray], face: str, limit: int, opts: Options, report: Callable | None
) -> Iterator[np.ndarray]:
    """`frames`, shown on a bar and told to `report` before each."""
    from tqdm import tqdm

    from media.read import probe

    total, quiet = limit, not (opts.progress and sys.stderr.isatty()) or limit == 1
    if limit > 1 and (report or not quiet):  # the video may be shorter than the speech
        info = probe(face)
        total = min(limit, round(info.duration * (opts.video_fps or info.fps)) or limit)
    for done, frame in enumerate(tqdm(frames, "faces", total, unit="frame", disable=quiet)):
        if report:
            report("faces", min(done, total), total)
        yield frame


def _smoothed(boxes: Sequence[BoxTuple | None], cuts: Sequence[int]) -> list[BoxTuple | None]:
    """Boxes smoothed within each run of frames of one shot that have a face."""
    smoothed, shots = [], np.searchsorted(cuts, range(len(boxes)), side="right")
    for (_, missing), run in itertools.groupby(
        zip(shots, boxes, strict=True), key=lambda item: (item[0], item[1] is None)
    ):
        run = [box for _, box in run]
        smoothed += run if missing else track.smooth_boxes(run)
    return smoothed


def _held(boxes: Sequence[BoxTuple | None]) -> list[BoxTuple]:
    """Where the face is not seen, its last place, and before the first its first one."""
    first = next(filter(None, boxes))
    return list(itertools.accumulate([first, *boxes], lambda last, box: box or last))[1:]
