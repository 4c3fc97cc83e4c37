"""face_detection/choice.py: which frames are searched, how faces become tracks, which is chosen."""

from __future__ import annotations

import numpy as np
import pytest

from face_detection.base import Box
from face_detection.choice import Detections, choose_boxes, detect_faces, faceless_spans


class Recorder:
    """Finds one face whose x1 is the frame's brightness, and notes which frames it got."""

    name = "recorder"

    def __init__(self):
        self.searched = []

    def detect(self, frames):
        values = [int(frame[0, 0, 0]) for frame in frames]
        self.searched += values
        return [[Box(v, 0, v + 50, 50, 0.9)] for v in values]


def frames(values):
    return (np.full((40, 60, 3), value, np.uint8) for value in values)


@pytest.mark.parametrize(
    ("every", "count", "expected"),
    [(1, 4, [0, 1, 2, 3]), (3, 8, [0, 3, 6, 7]), (3, 7, [0, 3, 6]), (5, 1, [0]), (9, 4, [0, 3])],
)
def test_every_kth_frame_and_the_last_are_searched(every, count, expected):
    detector = Recorder()
    found = detect_faces(frames(range(count)), detector, every, batch_size=2)
    assert detector.searched == expected == list(found.boxes)
    assert found.count == count and found.cuts == []


def test_both_sides_of_a_cut_are_searched():
    values = [10, 11, 12, 13, 14, 200, 201, 202, 203, 204]
    found = detect_faces(frames(values), Recorder(), every=3)
    assert found.cuts == [5]
    assert list(found.boxes) == [0, 3, 4, 5, 8, 9]


def test_no_frame_no_face():
    found = detect_faces(iter(()), Recorder())
    assert found.count == 0 and choose_boxes(found) == []


def moving(count, every=1, **changes):
    """A face that moves by 2 px a frame, searched every `every`-th frame."""
    boxes = {i: [Box(10 + 2 * i, 20, 60 + 2 * i, 80, 0.9)] for i in range(0, count, every)}
    boxes |= changes.pop("boxes", {})
    return Detections(count, changes.get("cuts", []), boxes)


def test_frames_between_are_interpolated_exactly():
    found = moving(9, every=4)
    assert [box.x1 for box in choose_boxes(found)] == [10 + 2 * i for i in range(9)]


def test_a_short_gap_is_filled_a_long_one_is_not():
    for gap, filled in ((12, True), (13, False)):
        found = moving(40)
        for index in range(10, 10 + gap):
            found.boxes[index] = []
        boxes = choose_boxes(found)
        assert faceless_spans(boxes) == ([] if filled else [(10, 9 + gap)])
        assert boxes[10 + gap] is not None  # and it is the same face afterwards
    assert faceless_spans(choose_boxes(found, fill=0)) == [(10, 22)]


def test_nothing_is_interpolated_across_a_cut():
    found = moving(20, cuts=[10])
    for index in (8, 9, 10, 11):
        found.boxes[index] = []
    assert faceless_spans(choose_boxes(found)) == [(8, 11)]


def two_people(count=10):
    """On the left a large face with a low score, on the right a small one with a high score."""
    return Detections(
        count, [], {i: [Box(300, 50, 340, 100, 0.99), Box(10, 10, 150, 200, 0.6)]
                    for i in range(count)},
    )  # fmt: skip


def test_the_face_that_shows_the_most_is_the_default():
    assert all(box.x1 == 10 for box in choose_boxes(two_people()))
    assert all(box.x1 == 300 for box in choose_boxes(two_people(), face_index=1))
    assert faceless_spans(choose_boxes(two_people(), face_index=2)) == [(0, 9)]


def test_a_face_that_is_large_in_one_frame_does_not_take_over():
    found = two_people()
    found.boxes[5] = [*found.boxes[5], Box(200, 0, 600, 400, 0.99)]
    assert all(box.x1 == 10 for box in choose_boxes(found))


@pytest.mark.parametrize(("point", "x1"), [((320, 70), 300), ((40, 40), 10), ((600, 90), 300)])
def test_the_target_chooses(point, x1):
    assert all(box.x1 == x1 for box in choose_boxes(two_people(), target=point))


def test_each_shot_has_its_own_face():
    found = two_people(10)
    found.cuts = [5]
    for index in range(5, 10):
        found.boxes[index] = [Box(500, 50, 700, 300, 0.9)]
    assert [box.x1 for box in choose_boxes(found)] == [10] * 5 + [500] * 5


def test_a_face_that_comes_back_elsewhere_is_another_one():
    found = Detections(60, [], {i: [] for i in range(60)})
    for index in range(25):
        found.boxes[index] = [Box(0, 0, 50, 50, 0.9)]
    for index in range(45, 60):
        found.boxes[index] = [Box(200, 0, 250, 50, 0.9)]
    assert faceless_spans(choose_boxes(found)) == [(25, 59)]
