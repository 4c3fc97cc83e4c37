import numpy as np
import pytest
from conftest import GOLDEN

from errors import InputError
from face_detection import Box
from face_detection.track import (
    batched,
    checked_box,
    face_frames,
    padded_box,
    smooth_boxes,
    track_faces,
)


def released_smoothing(boxes, window=5):
    """The released loop's meaning, written out: in place, so that late means see smoothed boxes."""
    boxes = boxes.copy()
    for i in range(len(boxes)):
        part = boxes[len(boxes) - window :] if i + window > len(boxes) else boxes[i : i + window]
        boxes[i] = part.mean(axis=0)
    return boxes


def test_smoothing_meets_the_golden_values():
    golden = np.load(GOLDEN / "box_smoothing.npz")
    np.testing.assert_array_equal(smooth_boxes(golden["boxes"]), golden["smooth"])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 9, 50])
def test_smoothing_is_the_released_loop_s(count):
    boxes = np.random.default_rng(count).integers(0, 300, (count, 4))
    np.testing.assert_array_equal(smooth_boxes(boxes), released_smoothing(boxes))


class Script:
    """A detector that finds what it is told to, frame after frame."""

    def __init__(self, found):
        self.found, self.calls = list(found), []

    def detect(self, frames):
        self.calls.append(len(frames))
        return [self.found.pop(0) for _ in frames]


def test_every_frame_comes_back_with_its_best_box():
    boxes = [Box(x, 10, x + 40, 60, 0.9) for x in (0, 10, 20, 30, 40, 50)]
    found = [[box, Box(0, 0, 9, 9, 0.5)] for box in boxes[:3]] + [[]] + [[b] for b in boxes[3:]]
    frames = [np.full((80, 100, 3), i, np.uint8) for i in range(7)]
    tracked = list(track_faces(frames, Script(found), batch_size=2))
    assert [int(frame[0, 0, 0]) for frame, _ in tracked] == list(range(7))  # in order, none lost
    expected = [box[:4] for box in boxes]
    assert [box for _, box in tracked] == [*expected[:3], None, *expected[3:]]


def test_detection_is_batched_and_nothing_is_read_ahead():
    read = []

    def frames():
        for i in range(100):
            read.append(i)
            yield np.zeros((20, 20, 3), np.uint8)

    detector = Script([[Box(2, 2, 12, 12, 0.9)]] * 100)
    tracked = track_faces(frames(), detector, batch_size=8)
    next(tracked)
    assert len(read) <= 8
    assert detector.calls == [8]


def test_pads_and_edges():
    assert padded_box((10.9, 20.9, 50.9, 60.9), (0, 10, 0, 0), 100, 100) == (10, 20, 50, 70)
    assert padded_box((-5, -5, 30, 95), (3, 10, 2, 1), 100, 100) == (0, 0, 31, 100)
    for nothing in ((-30, 5, -10, 20), (10, 10, 11, 50), (10, 10, 50, 11)):
        assert padded_box(nothing, (0, 0, 0, 0), 100, 100) is None
    assert padded_box((10, 10, 12, 12), (0, 0, 0, 0), 100, 100) == (10, 10, 12, 12)


def test_user_box_is_top_bottom_left_right():
    assert checked_box((5, 50, 10, 40), 60, 60) == (10, 5, 40, 50)
    for box in ((50, 5, 10, 40), (5, 61, 10, 40), (-1, 20, 0, 10), (5, 50, 40, 40)):
        with pytest.raises(InputError, match="--box"):
            checked_box(box, 60, 60)


def test_batches():
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []


def test_face_frames_resize_rotate_crop_in_the_released_order(tmp_path):
    import cv2

    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :40] = 255  # the left half is bright; after a clockwise turn, the upper half
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    face = str(tmp_path / "p.png")
    (frame,) = face_frames(face, resize_factor=2, rotate=True, crop=(0, 20, 5, -1))
    assert frame.shape == (20, 15, 3)
    assert frame.mean() > 250
    with pytest.raises(InputError, match="--crop"):
        next(face_frames(face, crop=(39, 40, 0, -1)))
    with pytest.raises(InputError, match="--resize_factor"):
        next(face_frames(face, resize_factor=100))
