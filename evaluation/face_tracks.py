"""Face tracks of a video and their crops, as SyncNet's own pipeline makes them: the first half of
the `real` protocol of LSE-D and LSE-C (Chung and Zisserman, "Out of time", 2016).

    head = lambda frame, track, i: square_crop(frame, track.squares[i])   # 224 x 224
    tracks = find_tracks("video.mp4", create_detector("sfd"))   # first pass: boxes
    for crops in iter_crops("video.mp4", tracks, head): ...   # and again, track by track

The video is read again, so that only boxes are kept of it. All frames are at 25 fps by timestamp.
The numbers below are the published ones.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from audio import TRAINING_FPS as FPS
from errors import InputError
from evaluation.fid import same_size
from face_detection.base import DETECTORS, Box, Detector, detector_class
from face_detection.shots import ShotCuts, overlap

MIN_IOU = 0.5  # a box continues a track whose last box it overlaps by more
MAX_MISSED = 24  # frames in a row without a box that a track survives
MIN_TRACK = 100  # tracks with more frames than this in which a box was found count
MIN_FACE = 100  # px: tracks whose mean width or height is above it count
MEDIAN = 13  # frames of the median filter on centre and size
CROP_SCALE = 0.4  # c: the crop reaches (1+c)s to the sides, (1+2c)s down, s up from the centre
GREY = 110  # beyond the frame's edge
CROP_SIZE = 224  # px: the side of SyncNet v2's frames
CUT_THRESHOLD, MIN_SCENE = 30.0, 15  # of the shot cuts; frames

SMALL_FRAMES, WHOLE_FRAMES = 32, 8  # scaled ones, and as they are, that wait for the detector


def detector_rules(detector: str) -> tuple[float, float]:
    """(scale, lowest score) for the detector of that name: the published ones where none is."""
    return detector_class(detector).tracks if detector in DETECTORS else Detector.tracks


def track_rules(detector: str) -> dict[str, float]:
    """All numbers on which tracks and crops depend, for a record of the scores."""
    scale, score = detector_rules(detector)
    return {
        "det_scale": scale, "min_score": score, "min_iou": MIN_IOU, "max_missed": MAX_MISSED,
        "min_track": MIN_TRACK, "min_face_size": MIN_FACE, "median_width": MEDIAN,
        "crop_scale": CROP_SCALE, "grey": GREY, "cut_threshold": CUT_THRESHOLD,
        "min_scene": MIN_SCENE,
    }  # fmt: skip


@dataclass(frozen=True)
class Track:
    """One face in consecutive frames, the first being number `first` at 25 fps.

    boxes (N, 4): x1, y1, x2, y2 as detected, gaps interpolated. squares (N, 3): x, y of the centre
    and half the longer side, each median-filtered.
    """

    first: int
    boxes: np.ndarray
    squares: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.boxes)


def link_tracks(
    frames: Iterable[tuple[bool, Sequence[Box]]], min_score: float = Detector.tracks[1]
) -> list[Track]:
    """The tracks that count in consecutive frames, of each of which is given whether a shot begins
    with it, and its boxes.

    Older tracks choose first, and of several boxes the closest, as in SyncNet's pipeline, which
    goes over a shot once for each track.
    """
    tracks: list[list[tuple[int, Box]]] = []  # (frame, box), by their first frames
    going: list[list[tuple[int, Box]]] = []  # those of them that may be continued
    for index, (cut, boxes) in enumerate(frames):
        going = [found for found in going if not cut and index - found[-1][0] - 1 <= MAX_MISSED]
        free = [box for box in boxes if box.score > min_score]
        for found in going:
            last = found[-1][1]
            best = max(free, key=lambda box: overlap(box, last), default=None)
            if best is not None and overlap(best, last) > MIN_IOU:
                found.append((index, best))
                free.remove(best)
        begun = [[(index, box)] for box in free]
        going += begun
        tracks += begun
    finished = (_finished(found) for found in tracks if len(found) > MIN_TRACK)
    return [track for track in finished if track is not None]


def _finished(found: list[tuple[int, Box]]) -> Track | None:
    """The track of all frames from the first to the last one found; None of a small face."""
    from scipy.signal import medfilt

    frames = np.array([frame for frame, _ in found])
    corners = np.array([box[:4] for _, box in found])
    every = np.arange(frames[0], frames[-1] + 1)
    boxes = np.stack([np.interp(every, frames, side) for side in corners.T], axis=1)
    size = boxes[:, 2:] - boxes[:, :2]
    if size.mean(axis=0).max() <= MIN_FACE:
        return None
    # beyond the ends the filter sees zeros, as in the released pipeline: the first and last frames
    # get the smallest of their neighbours' values
    columns = (*((boxes[:, :2] + boxes[:, 2:]) / 2).T, size.max(axis=1) / 2)
    squares = np.stack([medfilt(column, MEDIAN) for column in columns], axis=1)
    return Track(found[0][0], boxes, squares)


def find_tracks(video: str | os.PathLike, detector) -> list[Track]:
    """The face tracks of a video that count; several at a time where it shows several people."""
    import cv2

    from face_detection.track import batched
    from media.read import iter_frames

    scale, min_score = detector_rules(detector.name)

    def found() -> Iterator[tuple[bool, list[Box]]]:
        frames = (frame for _, frame in iter_frames(video, FPS))
        for (height, width, _), same in itertools.groupby(frames, key=lambda frame: frame.shape):
            size = max(1, round(width * scale)), max(1, round(height * scale))
            factor = np.tile((size[0] / width, size[1] / height), 2)
            shots = ShotCuts(CUT_THRESHOLD, MIN_SCENE)
            shrunk = (  # whether a shot begins, as with every new size; bilinear as released
                (shots.feed(n, frame) or n == 0, frame if scale == 1 else cv2.resize(frame, size))
                for n, frame in enumerate(same)
            )
            for batch in batched(shrunk, SMALL_FRAMES if scale < 1 else WHOLE_FRAMES):
                cuts, small = zip(*batch, strict=True)
                for cut, boxes in zip(cuts, detector.detect(np.stack(small)), strict=True):
                    yield cut, [Box(*np.divide(b[:4], factor).tolist(), b.score) for b in boxes]

    return link_tracks(found(), min_score)


def iter_crops(
    video: str | os.PathLike,
    tracks: Sequence[Track],
    crop: Callable[[np.ndarray, Track, int], np.ndarray],
) -> Iterator[Iterator[np.ndarray]]:
    """For each track crop(frame, track, i), see square_crop, of its i-th frame, one after the
    other, to be taken before the next track's. tracks: by their first frames; those that do not
    overlap share one reading of the video.
    """
    from media.read import iter_frames

    readings: dict[Iterator, int] = {}  # the frames, and which of them comes next
    for track in tracks:
        free = (frames for frames, place in readings.items() if place <= track.first)
        frames = next(free, None) or iter_frames(video, FPS, skip=track.first)
        ahead = track.first - readings.get(frames, track.first)
        own = itertools.islice(frames, ahead, ahead + track.frames)
        yield (crop(frame, track, i) for i, (_, frame) in enumerate(own))
        readings[frames] = track.first + track.frames


def square_crop(frame: np.ndarray, square: Sequence[float]) -> np.ndarray:
    """The published crop of a frame (H, W, 3) around a square (x, y, s): (224, 224, 3), bilinear.

    The frame is padded with grey by int(1.8 s); rows y - s .. y + 1.8 s, columns x - 1.4 s .. x +
    1.4 s of that, truncated to integers there.
    """
    import cv2

    x, y, half = square
    side, down = half * (1 + CROP_SCALE), half * (1 + 2 * CROP_SCALE)
    pad = int(down)
    padded = cv2.copyMakeBorder(frame, *[pad] * 4, cv2.BORDER_CONSTANT, value=[GREY] * 3)
    rows, columns = (
        slice(max(0, int(at + pad - before)), max(0, int(at + pad + after)))
        for at, before, after in ((y, half, down), (x, side, side))
    )
    crop = padded[rows, columns]
    if not crop.size:
        raise InputError(f"a face at {x:.0f}, {y:.0f} lies outside the frame")
    return cv2.resize(crop, (CROP_SIZE, CROP_SIZE))


def box_crop(frame: np.ndarray, box: Sequence[float], size: int) -> np.ndarray:
    """The box alone of a frame (H, W, 3), as preprocess.py crops it: (size, size, 3)."""
    from face_detection.track import crop_face, padded_box

    inside = padded_box(box, (0, 0, 0, 0), *frame.shape[:2])
    if inside is None:
        raise InputError(f"a face box {np.round(box).tolist()} lies outside the frame")
    return crop_face(frame, inside, size)


def best_faces(frames: Iterable[np.ndarray], detector, size: int) -> Iterator[np.ndarray]:
    """The best face's box of every frame (H, W, 3), as preprocess.py crops it: (size, size, 3).

    InputError at the first frame without a face.
    """
    from face_detection.track import crop_face, track_faces

    for index, (frame, box) in enumerate(track_faces(same_size(frames), detector, WHOLE_FRAMES)):
        if box is None:
            raise InputError(f"no face in frame {index} (at 25 fps)")
        yield crop_face(frame, box, size)
