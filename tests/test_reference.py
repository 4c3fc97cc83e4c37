"""lipsync/reference.py, and the references of the back ends and of inference."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from conftest import GOLDEN, assert_refused, pixels, run_script, write_video
from test_backends import assert_close, generator, samples

from backends.api import create_backend
from errors import InputError
from face_detection import landmarks
from inference import LipSync
from lipsync.options import REFERENCE, Options
from lipsync.reference import find_reference, widest
from lipsync.source import FaceSource, find_source

FACE = cv2.imread(str(GOLDEN / "inference" / "face.png"))  # (256, 256, 3), a face at BOX
BOX = {"box": (40, 200, 60, 190)}
ENGINES = {"torch": (), "openvino": ("openvino",), "onnx": ("onnx", "onnxscript", "onnxruntime")}


@torch.inference_mode()
def eager(model, faces, mels, references):
    pictures = np.concatenate((faces, np.broadcast_to(references, faces.shape)), axis=3)
    pictures = torch.FloatTensor(pictures.transpose(0, 3, 1, 2) / 255.0)
    pictures[:, :3, faces.shape[1] // 2 :] = 0
    frames = model(torch.from_numpy(mels)[:, None], pictures)
    return (frames.numpy().transpose(0, 2, 3, 1) * 255.0).astype(np.uint8)


@pytest.mark.parametrize("name", ENGINES)
def test_back_ends_take_references(name):
    for package in ENGINES[name]:
        pytest.importorskip(package)
    model, (faces, mels) = generator(), samples(10)
    backend, references = create_backend(model, "cpu", name), samples(10, seed=7)[0]
    frames = backend.generate(faces, mels, references)
    assert_close(frames, eager(model, faces, mels, references))
    assert (frames != backend.generate(faces, mels)).any()
    one = references[:1]  # for all
    assert_close(backend.generate(faces, mels, one), eager(model, faces, mels, one))
    with pytest.raises(ValueError, match="2 references for 10 faces"):
        backend.generate(faces, mels, references[:2])
    if name == "torch":
        still = backend.generate_still(backend.prepare(faces[0], one), mels)
        assert_close(still, eager(model, np.repeat(faces[:1], 10, axis=0), mels, one))


def test_int8_takes_references():
    for package in ("openvino", "nncf"):
        pytest.importorskip(package)
    from backends.quantize import MIN_SSIM, mean_ssim, quantized

    model, (faces, mels) = generator(), samples(32)
    one = samples(1, seed=7)[0]
    backend = quantized(create_backend(model, "cpu"), [(faces, mels, one)])
    assert ", int8, " in backend.describe()
    expected = eager(model, faces, mels, one)
    assert mean_ssim(expected, backend.generate(faces, mels, one)) > MIN_SSIM


def test_lips_that_close_in_passing_are_not_at_rest():
    openings = [0.3, 0.3, 0.0, 0.3, 0.3, 0.2, 0.04, 0.03, 0.02, 0.03, 0.04, 0.3, 0.3]
    assert np.argmin(widest(openings)) == 8
    assert widest([0.1]).tolist() == [0.1]
    assert np.argmin(widest([0.0, 0.0, 0.1, 0.2, 0.2, 0.2, 0.2])) == 2  # of the start none knows


class Openings:
    """Landmarks whose lips are as far apart as the frame is bright."""

    def find(self, frames, boxes):
        points = np.zeros((len(frames), 468, 2))
        points[:, landmarks.CHIN, 1] = 255
        for upper, _ in landmarks.INNER_LIPS:
            points[:, upper, 1] = [frame.mean() for frame in frames]
        return points


@pytest.fixture
def video(tmp_path):
    """40 frames as bright as a mouth might be open: closed for one at 10, at rest from 24 to 34."""
    levels = np.full(40, 200)
    levels[[0, 1]], levels[10], levels[24:35] = 90, 20, 40
    frames = [np.full((64, 64, 3), level, np.uint8) for level in levels]
    return write_video(tmp_path / "mouth.mkv", frames, seconds=1.6)


def source_of(video, reference):
    return find_source(video, Options(box=(8, 56, 8, 56), reference=reference), 40, None, {})


def test_each_choice_shows_its_frame(video, monkeypatch, caplog):
    monkeypatch.setattr(landmarks, "load_landmarks", Openings)
    source = source_of(video, "first")
    source.boxes[:2] = None, None
    assert abs(find_reference(source, 96, None).mean() - 200) < 2  # the first that has a face
    source = source_of(video, "rest")
    found = find_reference(source, 96, None)
    assert found.shape == (1, 96, 96, 3) and abs(found.mean() - 40) < 2
    assert find_reference(source_of(video, "same"), 96, None) is None

    def missing():
        raise landmarks.MissingLandmarks("pip install it")

    monkeypatch.setattr(landmarks, "load_landmarks", missing)
    assert abs(find_reference(source, 96, None).mean() - 90) < 2
    assert [r.getMessage() for r in caplog.records] == ["--reference rest is first: pip install it"]


def test_a_still_face_is_its_own_reference():
    source = FaceSource("me.jpg", True, 25, Options(reference="rest"), [(0, 0, 9, 9)])
    assert find_reference(source, 96, None) is None


@pytest.fixture(scope="module")
def lipsync(weights):
    return LipSync(weights, "cpu", backend="torch")


class Everywhere:
    """Finds one face, in the middle."""

    def detect(self, frames):
        from face_detection import Box

        return [[Box(60, 40, 190, 200, 1.0)] for _ in frames]


def test_inference_with_another_picture(lipsync, tmp_path, monkeypatch):
    monkeypatch.setattr(lipsync, "_detector", Everywhere())
    other, text = str(tmp_path / "other.png"), str(tmp_path / "text.png")
    cv2.imwrite(other, 255 - FACE)
    (tmp_path / "text.png").write_text("no picture")
    face = write_video(tmp_path / "face.mkv", [FACE, np.roll(FACE, 4, axis=1)] * 5, seconds=0.4)
    made = {}
    for reference in ("same", "first", other):
        out = str(tmp_path / "out.mkv")
        lipsync.run(face, face, out, reference=reference, paste="hard", **BOX)
        made[reference] = pixels(out)
    assert (made["same"][0] == made["first"][0]).all()  # it is the first frame
    assert (made["same"][1] != made["first"][1]).any()
    assert (made["first"][0] != made[other][0]).any()
    faithful = str(tmp_path / "faithful.mkv")
    lipsync.run(face, face, faithful, reference=other, faithful=True, **BOX)
    plain = str(tmp_path / "plain.mkv")
    lipsync.run(face, face, plain, faithful=True, **BOX)
    assert (pixels(faithful) == pixels(plain)).all()
    for wrong, words in ((text, "no picture"), ("nothing.png", "reference not found")):
        with pytest.raises(InputError, match=words):
            lipsync.run(face, face, str(tmp_path / "no.mkv"), reference=wrong, **BOX)
    monkeypatch.setattr(Everywhere, "detect", lambda self, frames: [[] for _ in frames])
    with pytest.raises(InputError, match="no face found in the reference"):
        lipsync.run(face, face, str(tmp_path / "no.mkv"), reference=other, **BOX)
    assert not (tmp_path / "no.mkv").exists()


def test_the_flag(weights, tmp_path):
    assert REFERENCE == Options().reference == "same"
    face = str(GOLDEN / "inference" / "face.png")
    argv = ("inference.py", "--checkpoint_path", weights, "--face", face, "--audio", face)
    assert_refused(run_script(*argv, "--reference", "frist"), "reference not found: frist")


def test_a_manifests_reference_lies_beside_it(weights, tmp_path):
    from inference import get_args_parser
    from lipsync.jobs import read_manifest
    from lipsync.options import options_from

    path = tmp_path / "jobs.csv"
    path.write_text("face,audio,outfile,reference\na,b,c.mp4,me.png\na,b,d.mp4,rest\na,b,e.mp4,\n")
    args = get_args_parser().parse_args(["--checkpoint_path", "w", "--manifest", str(path)])
    jobs = read_manifest(args, options_from(args))
    wanted = [str(tmp_path / "me.png"), "rest", "same"]
    assert [job.options["reference"] for job in jobs] == wanted
