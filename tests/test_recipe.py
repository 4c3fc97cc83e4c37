"""What training does against lips that follow the video: references and jitter (datasets.py)."""

import numpy as np
import pytest
import torch
from test_datasets import frame_numbers, make_root

from datasets import Jitter, SyncNetContrastiveDataset, SyncNetDataset, Wav2LipDataset
from hparams import HParams


@pytest.fixture
def root(tmp_path):
    made = make_root(tmp_path)
    (tmp_path / "val.txt").write_text((tmp_path / "train.txt").read_text())
    return made


def dataset(root, kind=Wav2LipDataset, split="train", **values):
    return kind(str(root / "data"), split, HParams(num_workers=0, **values), str(root))


def test_dropped_references_show_no_lower_half_and_change_nothing_else(root):
    plain, dropped = dataset(root), dataset(root, reference_dropout=0.6)
    blank = 0
    for epoch in range(100):
        one, two = plain[epoch, 0], dropped[epoch, 0]
        assert torch.equal(one["target"], two["target"]) and torch.equal(one["mel"], two["mel"])
        assert torch.equal(one["reference"][:, :48], two["reference"][:, :48])
        lower = two["reference"][:, 48:]
        blank += int(not lower.any())
        assert not lower.any() or torch.equal(one["reference"][:, 48:], lower)
    assert 45 <= blank <= 75


def test_validation_is_never_varied(root):
    plain = dataset(root, split="val")
    varied = dataset(root, split="val", reference_dropout=0.9, augment=True)
    for epoch in range(5):
        one, two = plain[epoch, 1], varied[epoch, 1]
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_references_keep_their_distance_where_the_clip_is_long_enough(root):
    near, far = dataset(root), dataset(root, reference_gap=12)
    gaps = {"near": [], "far": []}
    for epoch in range(60):
        for name, data in (("near", near), ("far", far)):
            sample = data[epoch, 0]
            starts = [frame_numbers(sample[part])[0] for part in ("target", "reference")]
            gaps[name].append(abs(starts[0] - starts[1]))
    assert min(gaps["near"]) < 5
    assert min(gaps["far"]) >= 12
    too_far = dataset(root, reference_gap=1000)  # as far as can be, not an error
    assert frame_numbers(too_far[0, 0]["reference"])[0] in (0, 25)


def test_jitter_is_the_same_in_all_frames_of_a_window():
    frame = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    frames = np.stack([frame] * 5)
    for seed in range(20):
        varied = Jitter(np.random.default_rng(seed)).pictures(frames)
        assert varied.shape == frames.shape and varied.dtype == np.uint8
        assert (varied == varied[0]).all() and not np.array_equal(varied[0], frame)


def test_jitter_mirrors_about_the_middle():
    jitter = Jitter(np.random.default_rng(0))
    jitter.flip, jitter.angle, jitter.zoom, jitter.shift = True, 0.0, 1.0, np.zeros(2)
    jitter.grey, jitter.curves = False, np.repeat(np.arange(256, dtype=np.uint8), 3)
    jitter.curves = jitter.curves.reshape(256, 1, 3)
    frames = np.random.default_rng(1).integers(0, 256, (2, 32, 48, 3), np.uint8)
    assert np.array_equal(jitter.pictures(frames), frames[:, :, ::-1])


def test_jitter_moves_bands_loudness_and_tone_but_not_silence():
    mel = np.full((1, 80, 16), -4.0, np.float32)
    mel[:, 30] = 1.0
    seen = set()
    for seed in range(40):
        jitter = Jitter(np.random.default_rng(seed))
        varied = jitter.mels(mel)
        (band,) = np.flatnonzero(varied[0, :, 0] > -4)
        assert band == 30 + jitter.bands
        assert varied[0, band, 0] == pytest.approx(1 + jitter.loudness + jitter.tone[band])
        seen.add(jitter.bands)
    assert seen == {-2, -1, 0, 1, 2}


@pytest.mark.parametrize("kind", [Wav2LipDataset, SyncNetDataset, SyncNetContrastiveDataset])
def test_varied_samples_have_the_plain_ones_shapes_and_repeat(root, kind):
    plain, varied = dataset(root, kind), dataset(root, kind, augment=True)
    for name, value in plain[0, 0].items():
        assert varied[0, 0][name].shape == value.shape and varied[0, 0][name].dtype == value.dtype
        assert torch.equal(varied[0, 0][name], varied[0, 0][name])
