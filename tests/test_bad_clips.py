"""What a data set does with clips that turn out damaged."""

import numpy as np
import pytest
import torch
from test_datasets import HP, make_clip, make_root, same

from datasets import MAX_BAD_CLIPS, SyncNetContrastiveDataset, SyncNetDataset, Wav2LipDataset
from errors import InputError


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path)


def spoil(path, how):
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[:-1000])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("no array\n" * 1000)
    elif how == "header":
        path.write_bytes(content[:40] + b"((((((" + content[46:])


def test_a_bad_clip_is_replaced_and_counted_once(root, caplog):
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    for picture in (root / "data/a/00001").glob("*.jpg"):
        picture.write_bytes(b"")
    samples = [data[epoch, 0] for epoch in range(2 * MAX_BAD_CLIPS)]  # none of them ends the run
    assert all(sample["clip"] == 1 for sample in samples)
    assert samples[0]["target"].shape == (5, 96, 96, 3)
    assert data.bad_clips == 1
    assert sum("a/00001" in record.message for record in caplog.records) == 1
    again = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    assert same(again[7, 0], samples[7])  # whatever has been met before


def test_workers_count_bad_clips_together(root):
    data = SyncNetDataset(str(root / "data"), "train", HP, str(root))
    for name in ("a/00001", "b/00001"):
        spoil(root / "data" / name / "mel.npy", "cut")
    keys = [(epoch, clip) for epoch in range(3) for clip in (0, 2)]  # a clip for each worker
    batches = list(torch.utils.data.DataLoader(data, 1, num_workers=2, sampler=keys))
    assert [int(batch["clip"]) for batch in batches] == 6 * [1]
    assert data.bad_clips == 2


def test_nothing_but_unreadable_samples_is_an_error(root):
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    for picture in (root / "data").rglob("*.jpg"):
        picture.write_bytes(b"")
    with pytest.raises(InputError, match=r"3 of the 3 clips.*cannot read"):
        data[0, 0]


def test_many_bad_clips_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.MAX_BAD_CLIPS", 4)
    names = [f"a/{number}" for number in range(9)]
    for name in names:
        make_clip(tmp_path / "data" / name)
    (tmp_path / "train.txt").write_text("\n".join(names))
    data = Wav2LipDataset(str(tmp_path / "data"), "train", HP, str(tmp_path))
    bad = (1, 3, 5, 7)
    for number in bad:
        spoil(tmp_path / f"data/a/{number}/mel.npy", "empty")
    for number in bad[:-1]:
        assert data[0, number]["clip"] == number + 1
    with pytest.raises(InputError, match="4 of the 9 clips"):
        data[0, bad[-1]]


@pytest.mark.parametrize("kind", [Wav2LipDataset, SyncNetDataset, SyncNetContrastiveDataset])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
def test_a_mel_that_is_not_finite_is_unreadable(root, caplog, kind, value):
    path = root / "data/a/00001/mel.npy"
    mel = np.load(path).astype(np.float64)
    mel[::16, 3] = value  # in every window
    np.save(path, mel)
    data = kind(str(root / "data"), "train", HP, str(root))
    sample = data[0, 0]
    assert sample["clip"] == 1 and sample["mel"].isfinite().all()
    assert "a/00001: mel.npy holds values that are not finite" in caplog.text


def test_windows_beside_a_value_that_is_not_finite_are_used(root):
    path = root / "data/a/00001/mel.npy"
    mel = np.load(path)
    mel[-10:] = np.nan  # rows 190..199; the last window ends with row 99
    np.save(path, mel)
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    assert all(data[epoch, 0]["clip"] == 0 for epoch in range(5)) and data.bad_clips == 0


@pytest.mark.parametrize("how", ["cut", "empty", "text", "header", "turned", "gone"])
def test_a_mel_damaged_after_indexing_counts_as_unreadable(root, how):
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    path = root / "data/a/00001/mel.npy"
    if how == "turned":
        np.save(path, np.load(path).T.copy())
    elif how == "gone":
        path.unlink()
    else:
        spoil(path, how)
    assert data[0, 0]["mel"].shape == (1, 80, 16)
    assert data.bad_clips == 1
