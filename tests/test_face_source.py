"""lipsync/source.py: which frame is shown when, forwards and backwards."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import write_video
from test_face_track import released_smoothing

from face_detection import Box
from lipsync import source as face_source
from lipsync.options import Options
from lipsync.source import find_source, play, schedule
from media import streams


@pytest.mark.parametrize(
    ("pad", "expected"),
    [
        ("loop", [0, 1, 2, 0, 1, 2, 0]),
        ("bounce", [0, 1, 2, 1, 0, 1, 2]),
        ("hold", [0, 1, 2, 2, 2, 2, 2]),
        ("stretch", [0, 0, 0, 1, 1, 2, 2]),
        ("trim", [0, 1, 2]),
    ],
)
def test_a_short_video(pad, expected):
    assert schedule(3, 7, pad).tolist() == expected
    assert schedule(7, 3, pad).tolist() == [0, 1, 2]  # a longer one ends with the speech


def test_a_video_is_not_started_again_for_a_flash():
    assert schedule(20, 21, "loop", 12.5).tolist() == [*range(20), 19]
    assert schedule(50, 112, "loop", 12.5).tolist() == [*range(50), *range(50)] + [49] * 12
    assert schedule(50, 113, "loop", 12.5).tolist() == [*range(50), *range(50), *range(13)]
    assert schedule(4, 15, "loop", 12.5).tolist() == [index % 4 for index in range(15)]
    assert schedule(20, 21, "loop").tolist() == [*range(20), 0]  # as released


@pytest.mark.parametrize("pad", ["loop", "bounce", "hold", "stretch"])
def test_one_frame(pad):
    assert schedule(1, 4, pad).tolist() == [0] * 4


class Video:
    """Ten frames that hold their numbers, and how often it was opened."""

    def __init__(self):
        self.opened, self.decoded = [], 0

    def __call__(self, first):
        self.opened.append(first)
        for number in range(first, 10):
            self.decoded += 1
            yield np.full((4, 4, 3), number, np.uint8)


def shown(order, video=None):
    return [int(frame[0, 0, 0]) for frame in play(order, video or Video())]


@pytest.mark.parametrize("pad", ["loop", "bounce", "hold", "stretch"])
@pytest.mark.parametrize("room", [1, 3, 100])
def test_every_schedule_is_played_as_it_says(monkeypatch, pad, room):
    monkeypatch.setattr(streams, "FRAME_BYTES", room * 48)
    order = schedule(10, 45, pad).tolist()
    assert shown(order) == order


def test_any_frames_in_order_are_read_once():
    video = Video()
    assert shown([1, 4, 4, 9], video) == [1, 4, 4, 9]
    assert video.opened == [1] and video.decoded == 9


def test_frames_are_copies():
    made = list(play([0, 0], Video()))
    made[0][:] = 77
    assert made[1].max() == 0


class Numbers:
    """Finds a face whose x is three times the frame's brightness, or none where it is 0."""

    def __init__(self):
        self.searched = 0

    def detect(self, frames):
        self.searched += len(frames)
        values = [int(frame[5, 5, 0]) for frame in frames]
        return [[Box(3 * v, 10, 3 * v + 50, 70, 0.9)] if v else [] for v in values]


def shades(path, values):
    return write_video(path, [np.full((120, 160, 3), value, np.uint8) for value in values])


def found(video, detector, **options):
    opts = Options(**{"det_every": 1, "pads": (0, 0, 0, 0), "nosmooth": True} | options)
    return find_source(video, opts, 12, lambda: detector, {"detector": "numbers"})


def test_a_face_that_is_not_seen_is_where_it_was_last(tmp_path):
    video = shades(tmp_path / "v.mkv", [0, 0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0])
    seen = [(3 * v, 10, 3 * v + 50, 70) for v in range(1, 8)]
    passed, held = (found(video, Numbers(), no_face=what) for what in ("pass", "hold"))
    assert passed.boxes == [None] * 2 + seen + [None] * 3
    assert passed.faceless(14) == [(0, 1), (9, 13)]  # played from its beginning again
    assert held.boxes == [seen[0]] * 2 + seen + [seen[-1]] * 3 and held.faceless(14) == []


def test_boxes_are_smoothed_within_each_shot(tmp_path):
    values = [1, 9, 2, 8, 3, 7, 30, 36, 31, 35, 32, 34]
    boxes = np.array([(3 * v, 10, 3 * v + 50, 70) for v in values])
    frames = [np.full((120, 160, 3), v, np.uint8) for v in values]
    for frame in frames[6:]:
        frame[:, 80:] = 255  # another shot
    source = found(write_video(tmp_path / "v.mkv", frames), Numbers(), nosmooth=False)
    expected = np.concatenate([released_smoothing(boxes[:6]), released_smoothing(boxes[6:])])
    np.testing.assert_array_equal(source.boxes, expected)
    assert not np.array_equal(expected, released_smoothing(boxes))


def test_a_frame_without_a_face_parts_the_smoothing():
    boxes = np.random.default_rng(0).integers(0, 300, (13, 4))
    smoothed = face_source._smoothed([*boxes[:6], None, *boxes[6:]], [])
    assert smoothed[6] is None
    np.testing.assert_array_equal(smoothed[:6], released_smoothing(boxes[:6]))
    np.testing.assert_array_equal(smoothed[7:], released_smoothing(boxes[6:]))


@pytest.mark.parametrize(
    "change",
    [{"det_every": 5}, {"resize_factor": 2}, {"rotate": True}, {"crop": (0, 90, 0, -1)},
     {"video_fps": 12.5}, {"max_short_side": 80}],
)  # fmt: skip
def test_kept_boxes_serve_the_same_frames_only(tmp_path, change):
    video, detector = shades(tmp_path / "v.mkv", range(1, 13)), Numbers()
    first = found(video, detector, cache=True)
    assert found(video, detector, cache=True) == first and detector.searched == 12
    other = found(video, detector, cache=True, **change)
    assert detector.searched > 12 and other.boxes == found(video, Numbers(), **change).boxes
