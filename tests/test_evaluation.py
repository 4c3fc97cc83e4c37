import json

import numpy as np
import pytest
from conftest import run_script

from evaluation.demo_report import mouth_opening, mouth_openings
from experts.offset import ColorExpert, balanced, longest_run
from face_detection.landmarks import partial_correlation


def test_mouth_opening_follows_the_truth_of_synthetic_clips(synthetic_root):
    videos = sorted((synthetic_root / "mvlrs_v1/main").glob("*/00001.mp4"))
    assert len(videos) == 4
    for video in videos:
        truth = json.loads(video.with_suffix(".json").read_text())
        measured = mouth_openings(str(video), truth["boxes"])
        frames = len(measured)
        assert partial_correlation(measured, truth["mouth_opening"], np.zeros(frames)) > 0.8, video


def test_mouth_opening_closed_form():
    frame, box = np.full((130, 150, 3), 120, np.uint8), (40, 20, 140, 120)
    face = frame[20:120, 40:140]
    assert mouth_opening(frame, box) == 0
    share = 200 / (32 * 56)  # 10 x 20 pixels in a region of 32 x 56
    for inside in (0, 255):  # the dark, and teeth
        face[70:80, 40:60] = inside
        assert mouth_opening(frame, box) == pytest.approx(share, rel=1e-3)
    face[70:80, 40:60] = 0
    dim = (frame * 0.5).astype(np.uint8)  # the light does not matter
    assert mouth_opening(dim, box) == pytest.approx(share, rel=1e-3)


def test_balanced_accuracy_closed_form():
    own, others = np.ones(8), np.zeros(20)
    assert balanced(own, others) == 1
    assert balanced(own, np.ones(20)) == 0.5  # says "in sync" to everything
    assert balanced(own, np.array([0, 1, 0, 1])) == 0.75


def test_longest_run():
    assert longest_run(np.array([1, 2, 3, 7, 8, 9, 10, 20])).tolist() == [7, 8, 9, 10]


def test_embeddings_are_those_that_the_expert_is_trained_on(preprocessed_root):
    import torch

    from audio import crop_audio_window, load_wav, pcm16
    from corpus.clips import get_window, read_window
    from datasets import prepare_window
    from models import create_model
    from models.syncnet import stack_window

    folder = str(preprocessed_root / "s0000/00001")
    expert = create_model("SyncNet_color", 0.125).eval()
    judge, crops = ColorExpert(expert, ""), [f"{folder}/{number}.jpg" for number in range(3, 12)]
    lips = judge.embed_lips(read_window(crops))
    sound = judge.embed_sound(pcm16(load_wav(f"{folder}/audio.wav")), 5, 7)
    frames = torch.from_numpy(read_window(get_window(f"{folder}/5.jpg")))[None]
    mel = crop_audio_window(np.load(f"{folder}/mel.npy"), 9)
    with torch.no_grad():
        audio, face = expert(
            torch.from_numpy(mel.T.copy())[None, None], stack_window(prepare_window(frames))
        )
    np.testing.assert_allclose(lips[2], face[0], atol=1e-5)
    np.testing.assert_allclose(sound[2], audio[0], atol=1e-5)


def test_whole_job_end_to_end(synthetic_root, preprocessed_root, tmp_path):
    """The demo's commands with next to no training: every stage's output feeds the next."""
    data = ("--data_root", preprocessed_root, "--filelists", synthetic_root / "filelists",
            "--log_dir", tmp_path / "runs", "--device", "cpu")  # fmt: skip
    tiny = ("--hparams", "width=0.125", "batch_size=2", "syncnet_batch_size=4", "nsteps=2",
            "num_workers=0", "log_interval=1", "eval_windows=2")  # fmt: skip
    expert, generator = tmp_path / "expert", tmp_path / "generator"
    step = "checkpoint_step000000002.pth"
    video = synthetic_root / "mvlrs_v1/main/s0003/00001.mp4"
    for command in (
        ("color_syncnet_train.py", *data, "--checkpoint_dir", expert, *tiny),
        ("wav2lip_train.py", *data, "--checkpoint_dir", generator,
         "--syncnet_checkpoint_path", expert / step, *tiny),
        ("inference.py", "--checkpoint_path", generator / step, "--face", video, "--audio", video,
         "--outfile", tmp_path / "out" / "result_voice.mp4"),
        ("evaluation/demo_report.py", "--data_root", synthetic_root, "--preprocessed_root",
         preprocessed_root, "--expert", expert, "--generator", generator,
         "--log_dir", tmp_path / "runs", "--out", tmp_path / "out"),
    ):  # fmt: skip
        if command[0].startswith("evaluation"):
            command = ("-m", "evaluation.demo_report", *command[1:])
        result = run_script(*command)
        assert result.returncode == 0, (command, result.stderr)
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert 0.3 <= report["expert_accuracy"] <= 1 and -1 <= report["mouth_correlation"] <= 1
    assert report["clips"] == ["s0003/00001", "s0003/00002"]
    for name in ("report.md", "contact_sheet.png", "curves.png", "result_voice.mp4"):
        assert (tmp_path / "out" / name).stat().st_size > 1000 or name == "report.md"
