"""evaluation/face_tracks.py: which boxes become tracks, and what is cropped around them."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from errors import InputError
from evaluation import face_tracks
from evaluation.face_tracks import (
    best_faces,
    box_crop,
    find_tracks,
    iter_crops,
    link_tracks,
    square_crop,
    track_rules,
)
from face_detection import create_detector
from face_detection.base import Box
from face_detection.centerface import CenterFaceDetector
from media import read
from media.read import iter_frames
from media.write import VideoWriter


def face(x=100.0, y=50.0, side=120.0, score=0.99, width=None) -> Box:
    return Box(x, y, x + (width or side), y + side, score)


def tracks_of(frames, cuts=()):
    """frames: the boxes of frame 0, 1, ..."""
    return link_tracks((index in cuts, boxes) for index, boxes in enumerate(frames))


def spans(tracks):
    return [(track.first, track.frames) for track in tracks]


def test_the_numbers_are_the_published_ones():
    assert track_rules("sfd") == track_rules("another") == {
        "det_scale": 0.25, "min_score": 0.9, "min_iou": 0.5, "max_missed": 24, "min_track": 100,
        "min_face_size": 100, "median_width": 13, "crop_scale": 0.4, "grey": 110,
        "cut_threshold": 30, "min_scene": 15,
    }  # fmt: skip
    assert (
        track_rules("centerface")["det_scale"] == 1
        and track_rules("centerface")["min_score"] == 0.5
    )


def test_more_than_100_frames_are_needed():
    assert tracks_of([[face()]] * 100) == []
    assert spans(tracks_of([[]] * 3 + [[face()]] * 101)) == [(3, 101)]
    # frames in which the face was missed are not counted, as in the released pipeline
    assert tracks_of([[face()]] * 50 + [[]] * 5 + [[face()]] * 50) == []
    assert spans(tracks_of([[face()]] * 50 + [[]] * 5 + [[face()]] * 51)) == [(0, 106)]


def test_a_track_survives_24_missed_frames():
    for missed, expected in ((24, [(0, 234)]), (25, [(0, 105), (130, 105)])):
        frames = [[face()]] * 105 + [[]] * missed + [[face()]] * 105
        assert spans(tracks_of(frames)) == expected


def test_a_box_continues_a_track_it_overlaps_by_more_than_half():
    # two squares of 120 shifted by d: (120 - d) / (120 + d), exactly 0.5 at 40
    for shift, expected in ((39, [(0, 202)]), (40, [(0, 101), (101, 101)])):
        frames = [[face()]] * 101 + [[face(100 + shift)]] * 101
        assert spans(tracks_of(frames)) == expected


def test_scores_sizes_and_cuts():
    assert tracks_of([[face(score=0.9)]] * 150) == []
    assert spans(tracks_of([[face(score=0.901)]] * 150)) == [(0, 150)]
    assert tracks_of([[face(side=100)]] * 150) == []
    assert spans(tracks_of([[face(side=80, width=100.5)]] * 150)) == [(0, 150)]
    assert spans(tracks_of([[face()]] * 250, cuts=[140])) == [(0, 140), (140, 110)]
    assert spans(tracks_of([[face()]] * 210, cuts=[100])) == [(100, 110)]


def test_several_people_are_several_tracks():
    left, right = face(0), face(400)
    frames = [[left]] * 10 + [[right, left], [left, right]] * 60 + [[right]] * 30
    tracks = tracks_of(frames)
    assert spans(tracks) == [(0, 130), (10, 150)]
    np.testing.assert_array_equal(tracks[0].boxes, np.tile(left[:4], (130, 1)))
    np.testing.assert_array_equal(tracks[1].boxes, np.tile(right[:4], (150, 1)))


def test_of_two_boxes_the_closest_continues_and_the_other_is_someone_new():
    near, far = face(102), face(130)
    tracks = tracks_of([[face()]] + [[far, near]] * 120)
    assert spans(tracks) == [(0, 121), (1, 120)]
    assert tracks[0].boxes[5, 0] == 102 and tracks[1].boxes[5, 0] == 130


def test_gaps_are_interpolated_linearly():
    frames = [[face(100)]] * 60 + [[]] * 3 + [[face(108, 58)]] * 60
    (track,) = tracks_of(frames)
    np.testing.assert_allclose(track.boxes[59:65, 0], [100, 102, 104, 106, 108, 108])
    np.testing.assert_allclose(track.boxes[59:65, 3], [170, 172, 174, 176, 178, 178])


def test_centre_and_size_are_median_filtered():
    """A jump shorter than half of the filter vanishes, a step stays; a ramp stays inside and
    becomes the smallest of the seven values that the filter still sees at the ends.
    """
    jump = [[face(100)]] * 60 + [[face(110, side=130)]] * 6 + [[face(100)]] * 60
    (track,) = tracks_of(jump)
    np.testing.assert_array_equal(track.squares, np.tile([160, 110, 60], (126, 1)))
    (track,) = tracks_of([[face(100)]] * 60 + [[face(110)]] * 60)
    np.testing.assert_array_equal(track.squares[:, 0], [160] * 60 + [170] * 60)
    (track,) = tracks_of([[face(100 + i, width=90)] for i in range(120)])
    centre = 145.0 + np.arange(120)
    np.testing.assert_array_equal(track.squares[6:-6, 0], centre[6:-6])
    assert track.squares[0, 0] == 145 and track.squares[-1, 0] == centre[-7]
    np.testing.assert_array_equal(track.squares[:, 2], 60)  # half of the longer side


def test_crop_has_the_published_geometry():
    """224 rows of 2.8 s = 224 px: nothing is resized, so every pixel tells where it is from."""
    frame = np.zeros((400, 600, 3), np.uint8)
    frame[..., 0], frame[..., 1] = np.arange(400)[:, None] // 2, np.arange(600) // 3
    crop = square_crop(frame, (300, 200, 80))
    np.testing.assert_array_equal(crop, frame[120:344, 188:412])
    # truncated in the padded frame: pad 144, rows 264.4 -> 264, columns 332.9 -> 332
    crop = square_crop(frame, (300.9, 200.4, 80))
    np.testing.assert_array_equal(crop, frame[120:344, 188:412])


@pytest.mark.parametrize("centre", [(40, 30), (590, 390), (0, 0), (600, 400)])
@pytest.mark.parametrize("half", [80, 33.7])
def test_crop_is_grey_beyond_the_frame(centre, half):
    """Against the whole frame padded, as the released pipeline does it."""
    frame = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    pad = int(half * 1.8)
    padded = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)), constant_values=110)
    x, y = centre[0] + pad, centre[1] + pad
    expected = padded[
        int(y - half) : int(y + half * 1.8), int(x - half * 1.4) : int(x + half * 1.4)
    ]
    crop = square_crop(frame, (*centre, half))
    np.testing.assert_array_equal(crop, cv2.resize(expected, (224, 224)))
    edge = (0, 0) if centre[0] < 300 else (-1, -1)
    assert (crop[edge] == 110).all()
    with pytest.raises(InputError, match="outside the frame"):
        square_crop(frame, (-500, 30, 50))


class MovingSquare:
    """Finds the white square, and counts what it is asked."""

    name = "square"

    def __init__(self):
        self.sizes, self.largest = [], 0

    def detect(self, frames):
        self.sizes += [frame.shape[:2] for frame in frames]
        self.largest = max(self.largest, len(frames))
        return [self._find(frame) for frame in frames]

    @staticmethod
    def _find(frame):
        rows, columns = np.nonzero(frame.min(axis=2) > 128)
        if not len(rows):
            return []
        corners = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        return [Box(*map(float, corners), 0.95)]


def square_video(path, positions, fps=25):
    """A white square of 112 px at x = positions[k] (None: not there) in frames of 320 x 240."""
    with VideoWriter(path, fps) as writer:
        for x in positions:
            frame = np.zeros((240, 320, 3), np.uint8)
            if x is not None:
                frame[80:192, x : x + 112] = 255
            writer.write(frame)
    return str(path)


def test_tracks_of_a_video_in_its_own_pixels(tmp_path):
    positions = [None] * 4 + [40 + 4 * (k // 10) for k in range(120)]
    video = square_video(tmp_path / "v.mkv", positions)
    detector = MovingSquare()
    (track,) = find_tracks(video, detector)
    assert set(detector.sizes) == {(60, 80)} and len(detector.sizes) == 124
    assert detector.largest <= 32
    assert (track.first, track.frames) == (4, 120)
    expected = [[x, 80, x + 112, 192] for x in positions[4:]]
    np.testing.assert_allclose(track.boxes, expected, atol=4)  # one of the detector's pixels
    (crops,) = map(list, iter_crops(video, [track], lambda frame, _, i: (i, frame[100].copy())))
    assert len(crops) == 120
    for k, (i, row) in enumerate(crops):
        assert i == k
        assert np.nonzero(row.min(axis=1) > 128)[0][0] == positions[4 + k]


def test_other_frame_rates_are_timed_by_their_stamps(tmp_path):
    video = square_video(tmp_path / "v.mkv", [None] * 10 + [60] * 230, fps=50)
    (track,) = find_tracks(video, MovingSquare())
    assert (track.first, track.frames) == (5, 115)


def test_a_scene_has_15_frames_or_more():
    """Cuts that come sooner after the one before, as in a flash, are none to the published shots;
    nor is a change between our own threshold for cuts and theirs.
    """
    grey = lambda level: np.full((240, 320, 3), level, np.uint8)  # noqa: E731

    def cuts(levels):
        shots = face_tracks.ShotCuts(face_tracks.CUT_THRESHOLD, face_tracks.MIN_SCENE)
        return [i for i, level in enumerate(levels) if shots.feed(i, grey(level))]

    assert cuts([0] * 20 + [255] * 14 + [0] * 20) == [20]
    assert cuts([0] * 20 + [255] * 15 + [0] * 20) == [20, 35]
    assert cuts([0] * 14 + [255] * 20) == [] and cuts([0] * 15 + [255] * 20) == [15]
    assert cuts([0] * 20 + [86] * 20) == [] and cuts([0] * 20 + [91] * 20) == [20]  # 28.7, 30.3


def test_tracks_that_do_not_overlap_share_one_reading(tmp_path, monkeypatch):
    video = square_video(tmp_path / "v.mkv", range(0, 120, 2))  # frame k: at 2 k px
    begun = []
    frames = lambda *a, **b: begun.append(b["skip"]) or iter_frames(*a, **b)  # noqa: E731
    monkeypatch.setattr("media.read.iter_frames", frames)
    spans = ((3, 10), (5, 20), (16, 4), (30, 30), (41, 19))
    tracks = [face_tracks.Track(first, np.zeros((n, 4)), None) for first, n in spans]
    place = lambda frame, *_: int(frame[100, :, 0].argmax()) // 2  # noqa: E731
    found = [list(crops) for crops in iter_crops(video, tracks, place)]
    assert found == [list(range(first, first + n)) for first, n in spans]
    assert begun == [3, 5]
    assert list(iter_crops(video, [], place)) == []


def test_boxes_are_cropped_as_in_training():
    frame = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        box_crop(frame, (-3.5, 20.9, 50.2, 70.7), 96), cv2.resize(frame[20:70, :50], (96, 96))
    )
    with pytest.raises(InputError, match="outside the frame"):
        box_crop(frame, (120, 20, 150, 60), 96)


def test_the_first_frame_without_a_face_ends_it():
    frames = [np.full((60, 60, 3), 255 * (k != 9), np.uint8) for k in range(12)]
    faces = best_faces(frames[:9], MovingSquare(), 96)
    assert [face.shape for face in faces] == [(96, 96, 3)] * 9
    smaller = np.full((50, 60, 3), 255, np.uint8)  # a stream may change its size
    assert len(list(best_faces([*frames[:3], smaller], MovingSquare(), 96))) == 4
    with pytest.raises(InputError, match="frame 9"):
        list(best_faces(frames, MovingSquare(), 96))


@pytest.fixture
def real_tracks(corpus, monkeypatch):
    """Tracks in the first 130 frames of a real clip."""
    whole = read.iter_frames
    monkeypatch.setattr(read, "iter_frames", lambda *a, **k: itertools.islice(whole(*a, **k), 130))
    monkeypatch.setattr(face_tracks, "MIN_TRACK", 40)
    monkeypatch.setattr(CenterFaceDetector, "tracks", (0.25, 0.5))
    return lambda name: find_tracks(corpus / "hard" / name, create_detector("centerface"))


@pytest.mark.corpus
def test_two_people_side_by_side(real_tracks):
    left, right = sorted(real_tracks("twofaces_debate_ac3.avi"), key=lambda t: t.boxes[0, 0])
    assert left.frames == right.frames == 130
    assert left.boxes[:, 2].max() < right.boxes[:, 0].min()


@pytest.mark.corpus
def test_no_track_passes_a_cut(real_tracks):
    """One man until frame 64, then two side by side."""
    tracks = real_tracks("overlapped_two_speakers_cut.mp4")
    assert spans(tracks) == [(0, 64), (64, 66), (64, 66)]
    for track in tracks:
        assert np.abs(np.diff(track.squares, axis=0)).max() < 10  # px from frame to frame
