"""face_source.py: which frame is shown when, forwards and backwards."""

from __future__ import annotations

import numpy as np
import pytest

import face_source
from face_source import play, schedule


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
    monkeypatch.setattr(face_source, "SEGMENT_BYTES", room * 48)
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
