import json
import os
import re
import shutil

import av
import cv2
import numpy as np
import pytest
import torch
from conftest import GOLDEN, assert_refused, pixels, run_script, write_video
from test_enhance import INVERT, command

from errors import InputError
from inference import LipSync, Options, get_args_parser
from lipsync.engine import SHIPPED
from lipsync.options import options_from
from lipsync.source import source_fps
from media.read import probe

FOLDER = GOLDEN / "inference"
CASES = {
    "image25": ("face.png", {"box": (40, 200, 60, 190)}),
    "image30": ("face.png", {"box": (40, 200, 60, 190), "fps": 30.0}),
    "video25": ("face25.mkv", {"box": (30, 170, 40, 150)}),
    "video30": ("face30.mkv", {"box": (30, 170, 40, 150)}),
    "video25_resize_crop": (
        "face25.mkv",
        {"resize_factor": 2, "crop": (4, 94, 2, -1), "box": (10, 80, 10, 70)},
    ),
    "video25_rotate": ("face25.mkv", {"rotate": True, "box": (30, 160, 30, 160)}),
}
FACE, SPEECH, BOX = str(FOLDER / "face25.mkv"), str(FOLDER / "speech.wav"), (30, 170, 40, 150)


@pytest.fixture(scope="module")
def lipsync(filled_generator):
    return LipSync(filled_generator, device="cpu")


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out.mkv")


@pytest.mark.parametrize("case", CASES)
def test_faithful_frames_meet_the_golden_values(lipsync, out, case):
    golden = np.load(FOLDER / "frames.npz")
    face, options = CASES[case]
    lipsync.run(str(FOLDER / face), SPEECH, out, faithful=True, **options)
    frames = pixels(out)
    assert len(frames) == golden[f"{case}_count"]
    for index, expected in zip(golden[f"{case}_index"], golden[f"{case}_frames"], strict=True):
        assert np.abs(frames[index] - expected).max() <= 1


@pytest.mark.parametrize("backend", ["torch", "onnx"])  # auto, above, is OpenVINO
def test_other_back_ends_meet_the_golden_values_too(filled_generator, out, backend):
    golden = np.load(FOLDER / "frames.npz")
    lipsync = LipSync(filled_generator, "cpu", backend=backend)
    face, options = CASES["video25"]
    lipsync.run(str(FOLDER / face), SPEECH, out, faithful=True, **options)
    frames = pixels(out)
    for index, expected in zip(golden["video25_index"], golden["video25_frames"], strict=True):
        assert np.abs(frames[index] - expected).max() <= 1


def lengths(path):
    with av.open(path) as container:
        return [float(s.duration * s.time_base) for s in container.streams]


def speech_seconds():
    with av.open(SPEECH) as container:
        return container.duration / 1e6


@pytest.mark.parametrize(("face", "fps"), [("face25.mkv", 25), ("face30.mkv", 30)])
def test_default_output_lasts_as_long_as_the_speech(lipsync, tmp_path, face, fps):
    path = str(tmp_path / "out.mp4")
    summary = lipsync.run(str(FOLDER / face), SPEECH, path, box=BOX)
    video, audio = lengths(path)
    assert abs(video - audio) <= 1 / fps
    assert abs(video - speech_seconds()) <= 1 / fps
    assert summary.frames == round(video * fps)


def test_only_the_box_changes(lipsync, out):
    lipsync.run(FACE, SPEECH, out, box=BOX)
    before, after = pixels(FACE), pixels(out)
    before = np.resize(before, after.shape) if len(before) < len(after) else before[: len(after)]
    outside = np.ones(before.shape[1:3], bool)
    outside[30:170, 40:150] = False
    assert (before[:, outside] == after[:, outside]).all()
    assert np.abs(before[:, 60:140, 60:130] - after[:, 60:140, 60:130]).mean() > 5


def test_a_short_video_starts_again(lipsync, out, tmp_path):
    source = pixels(FACE).astype(np.uint8)[:4]
    summary = lipsync.run(write_video(tmp_path / "short.mkv", source), SPEECH, out, box=BOX)
    frames = pixels(out)
    assert len(frames) == summary.frames > 8
    for index, frame in enumerate(frames):
        assert (frame[:25] == source[index % 4][:25]).all()


def test_static_uses_the_first_frame(lipsync, out):
    lipsync.run(FACE, SPEECH, out, box=BOX, static=True)
    frames = pixels(out)
    assert (frames[:, :25] == pixels(FACE)[0, :25]).all()


def test_batch_size_does_not_change_the_frames(lipsync, out):
    lipsync.run(FACE, SPEECH, out, box=BOX, wav2lip_batch_size=128)
    whole = pixels(out)
    lipsync.run(FACE, SPEECH, out, box=BOX, wav2lip_batch_size=3)
    assert np.abs(pixels(out) - whole).max() <= 1


def test_paste_mask_and_enhancer_are_those_asked_for(lipsync, out, tmp_path):
    def boxed(**options):
        lipsync.run(FACE, SPEECH, out, box=BOX, **options)
        return pixels(out)[:5, 30:170, 40:150]

    before = pixels(FACE)[:5, 30:170, 40:150]
    hard, soft, lower = boxed(paste="hard"), boxed(), boxed(paste="hard", mask="lower")
    assert np.abs(hard - before)[:, :, 0].mean() > 10 > 2 > np.abs(soft - before)[:, :, 0].mean()
    assert (lower[:, :70] == before[:, :70]).all() and (lower[:, 70:] == hard[:, 70:]).all()
    enhanced = boxed(paste="hard", enhance=command(INVERT, "{size}", 3), enhance_size=96)
    assert np.abs(enhanced - (255 - hard)).max() <= 1


def test_int8_is_calibrated_and_checked_on_the_jobs_own_faces(weights, out, monkeypatch):
    seen = {}

    def spied(backend, own, more):
        seen["own"], seen["more"] = own, list(more())
        return backend

    monkeypatch.setattr("backends.quantize.quantized", spied)
    LipSync(weights, "cpu", int8=True, cache_dir="none").run(FACE, SPEECH, out, box=BOX)
    faces, mels, references = zip(*seen["own"], strict=True)
    faces, mels = np.concatenate(faces), np.concatenate(mels)
    assert set(references) == {None}  # each frame its own
    crop = cv2.resize(pixels(FACE)[1].astype(np.uint8)[30:170, 40:150], (96, 96))
    assert (faces[1] == crop).all() and mels.shape == (len(pixels(out)), 80, 16)
    assert sum(len(faces) for faces, *_ in seen["more"]) == SHIPPED
    with pytest.raises(InputError, match="--int8 needs the openvino"):
        LipSync(weights, "cpu", backend="torch", int8=True)


def boxes_file(tmp_path, boxes):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"boxes": boxes}))
    return {"path": str(path)}


def test_faceless_frames_pass_through_or_stop(weights, out, tmp_path):
    known = boxes_file(tmp_path, [[40, 30, 150, 170]] * 3 + [None] * 2 + [[40, 30, 150, 170]] * 30)
    lipsync = LipSync(weights, "cpu", "boxes", known)
    summary = lipsync.run(FACE, SPEECH, out, nosmooth=True, pads=(0, 0, 0, 0))
    before, after = pixels(FACE), pixels(out)
    again = len(before)  # the video is shorter than the speech and starts again
    assert summary.faceless == [(3, 4), (3 + again, 4 + again)]
    for frame, new in enumerate(after):
        assert (before[frame % again] == new).all() == (frame % again in (3, 4))
    os.remove(out)
    for options in ({"no_face": "error"}, {"faithful": True}):
        lipsync = LipSync(weights, "cpu", "boxes", known)
        with pytest.raises(InputError, match="no face in frame 3"):
            lipsync.run(FACE, SPEECH, out, **options)
        assert os.listdir(tmp_path) == ["boxes.json"]


def test_video_without_any_face(weights, out, tmp_path):
    lipsync = LipSync(weights, "cpu", "boxes", boxes_file(tmp_path, [None] * 40))
    with pytest.raises(InputError, match="no face found in any frame.*--box"):
        lipsync.run(FACE, SPEECH, out)
    assert os.listdir(tmp_path) == ["boxes.json"]


def test_memory_does_not_grow_with_the_video(lipsync, tmp_path, monkeypatch):
    """Of 200 frames only those of a few batches are alive at once."""
    import weakref

    from face_detection import track

    frames, alive = [], []
    original = track.crop_face

    def counted(frame, box, size):
        frames.append(weakref.ref(frame))
        alive.append(sum(frame() is not None for frame in frames))
        return original(frame, box, size)

    def blank(faces, mels, references=None):
        return np.zeros((len(faces), 96, 96, 3), np.uint8)

    monkeypatch.setattr(track, "crop_face", counted)
    monkeypatch.setattr(lipsync.backend, "generate", blank)
    seconds = 8
    black = np.zeros((25 * seconds, 200, 180, 3), np.uint8)
    video = write_video(tmp_path / "long.mkv", black, seconds=seconds)
    lipsync.run(video, video, str(tmp_path / "o.mkv"), box=BOX, wav2lip_batch_size=8)
    assert len(alive) == 25 * seconds
    assert max(alive) <= 4 * 8 + 4  # decoded, generated, waiting and pasted: a batch each


def test_released_flags_and_defaults():
    args = get_args_parser().parse_args(["--checkpoint_path", "c", "--face", "f", "--audio", "a"])
    released = {
        "outfile": "results/result_voice.mp4", "static": "false",
        "pads": [0, 10, 0, 0], "face_det_batch_size": 16, "wav2lip_batch_size": 128,
        "resize_factor": 1, "crop": [0, -1, 0, -1], "box": [-1, -1, -1, -1], "rotate": False,
        "nosmooth": False,
    }  # fmt: skip
    assert {name: getattr(args, name) for name in released} == released
    other = get_args_parser().parse_args(
        ["--checkpoint_path", "c", "--image", "i", "--audio", "a", "--output", "o", "--static",
         "False"]
    )  # fmt: skip
    assert (other.face, other.outfile) == ("i", "o")
    assert options_from(other)["static"] is False
    assert Options().pads == (0, 10, 0, 0)
    assert args.fps is None  # a video keeps its own rate
    assert source_fps(str(FOLDER / "face.png"), Options()) == 25.0  # a picture, as released


def cli(weights, *argv, face=FACE, audio=SPEECH, out="o.mp4", cwd):
    return run_script(
        "inference.py", "--checkpoint_path", weights, "--face", face, "--audio", audio,
        "--outfile", out, "--device", "cpu", *argv, cwd=cwd,
    )  # fmt: skip


def test_command_line_makes_a_video_with_odd_names(weights, tmp_path):
    face = shutil.copy(FACE, tmp_path / "my face ü 測試 (1).mkv")
    result = cli(weights, "--box", 30, 170, 40, 150, "--log_dir", "logs", face=face,
                 out="new folder/result é.mp4", cwd=tmp_path)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert probe(tmp_path / "new folder/result é.mp4").has_audio
    assert "frames at 25 fps" in result.stdout
    (line,) = (tmp_path / "logs/inference/processing.log").read_text().splitlines()
    assert re.search(r"^[\d-]+ [\d:]+ face=.* frames=\d+ seconds_faces=[\d.]+ seconds_lips=", line)


def test_bad_input_is_one_line_and_leaves_nothing(weights, tmp_path):
    """As a command; of other faults tell test_inputs.py and test_checkpoint.py."""
    (tmp_path / "empty.wav").touch()
    state = torch.load(weights, weights_only=True)["state_dict"]
    foreign = {name.replace("output_block", "o"): value for name, value in state.items()}
    torch.save({"state_dict": foreign}, tmp_path / "foreign.pth")
    assert_refused(cli(weights, face="nothing.mp4", cwd=tmp_path), "face not found")
    assert_refused(cli(weights, audio="empty.wav", cwd=tmp_path), "audio is empty")
    assert_refused(cli("foreign.pth", cwd=tmp_path), "is not a Wav2Lip")
    assert_refused(cli(weights, "--box", 30, 1700, 40, 150, cwd=tmp_path), "--box")
    assert sorted(os.listdir(tmp_path)) == ["empty.wav", "foreign.pth"]


def test_picture_without_a_face_is_refused_and_box_rescues_it(lipsync, out, tmp_path):
    flat = str(tmp_path / "flat.png")
    cv2.imwrite(flat, np.full((200, 200, 3), 90, np.uint8))
    with pytest.raises(InputError, match="no face.*--box"):
        lipsync.run(flat, SPEECH, out)
    assert os.listdir(tmp_path) == ["flat.png"]
    lipsync.run(flat, SPEECH, out, box=(20, 180, 20, 180))
    assert np.abs(pixels(out)[:, 60:140, 60:140] - 90).mean() > 5


@pytest.mark.corpus
@pytest.mark.parametrize("face", ["clips/vox2_00086.mp4", "images/macron_png.png"])
def test_real_face_with_a_real_mp3(lipsync, corpus, tmp_path, face):
    path = str(tmp_path / "out.mp4")
    summary = lipsync.run(str(corpus / face), str(corpus / "audio/mp3_input1.mp3"), path)
    video, audio = lengths(path)
    assert abs(video - audio) <= 1 / 25 and summary.faceless == []


def test_a_larger_generator_draws_at_its_own_size(out, tmp_path):
    from models import create_model
    from models.checkpoint import describe_model

    torch.manual_seed(0)
    model = create_model("Wav2Lip", 0.125, 192)
    weights = tmp_path / "w.pth"
    torch.save({"state_dict": model.state_dict(), "model": describe_model(model)}, weights)
    lipsync, face = LipSync(weights, "cpu"), str(FOLDER / "face.png")
    assert lipsync.img_size == 192
    lipsync.run(face, SPEECH, out, box=(40, 200, 60, 190))
    before, after = cv2.imread(face).astype(int), pixels(out)
    assert abs(len(after) / 25 - speech_seconds()) <= 1 / 25
    assert (after[:, :40] == before[:40]).all()  # above the box
    assert np.abs(after[:, 110:190, 80:170] - before[110:190, 80:170]).mean() > 5
