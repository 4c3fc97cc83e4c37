"""Samples read from packed clips (preparation/pack.py) instead of JPEGs."""

import pytest
from test_bad_clips import spoil
from test_datasets import HP, make_clip, make_root, same

from corpus.clips import index_clip
from datasets import SyncNetContrastiveDataset, SyncNetDataset, Wav2LipDataset
from hparams import HParams
from preparation.pack import pack_clip


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path)


@pytest.mark.parametrize("kind", [Wav2LipDataset, SyncNetDataset, SyncNetContrastiveDataset])
@pytest.mark.parametrize("size", [(110, 90), (420, 400)])
def test_packed_samples_are_the_jpegs_own(tmp_path, kind, size):
    """Also where frames are missing, and once the JPEGs are gone."""
    folder = make_clip(tmp_path / "data/a/00001", 40, 130, missing=[20, 22], size=size)
    (tmp_path / "train.txt").write_text("a/00001\n")

    def samples():
        data = kind(str(tmp_path / "data"), "train", HP, str(tmp_path))
        return data.clips[0].packed, [data[epoch, 0] for epoch in range(20)]

    packed, jpeg = samples()
    assert not packed and pack_clip(folder)
    for _ in range(2):
        packed, made = samples()
        assert packed and all(same(*pair) for pair in zip(jpeg, made, strict=True))
        for picture in folder.glob("*.jpg"):
            picture.unlink()


def test_a_pack_of_another_size_is_left_alone(root):
    pack_clip(root / "data/a/00001", 64)
    assert not index_clip(str(root / "data/a/00001"), HP, True).packed
    assert index_clip(str(root / "data/a/00001"), HParams(img_size=64), True).packed


def test_a_pack_of_other_frames_is_not_used(root):
    folder = root / "data/a/00001"
    pack_clip(folder)
    (folder / "29.jpg").unlink()  # the clip was made again, with one face fewer
    clip = index_clip(str(folder), HP, True)
    assert not clip.packed and clip.frames.tolist() == list(range(29))


@pytest.mark.parametrize("how", ["cut", "empty", "text", "header", "zeroed", "other size"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_damaged_pack_is_reported_once_and_the_jpegs_are_read(root, caplog, how, when):
    folder = root / "data/b/00001"
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    expected = [data[epoch, 2] for epoch in range(5)]
    pack_clip(folder)
    if when == "after":  # the index was made while it was sound
        data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
        assert data.clips[2].packed
    spoil(folder / "frames_96.npy", how)
    if when == "before":
        data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    made = [data[epoch, 2] for epoch in range(5)]
    assert all(same(*pair) for pair in zip(expected, made, strict=True))
    assert not data.bad_clips and not data.clips[2].packed
    assert sum("frames_96.npy" in record.message for record in caplog.records) == 1


def test_a_damaged_pack_without_jpegs_is_an_unreadable_clip(root):
    folder = root / "data/b/00001"
    pack_clip(folder)
    for picture in folder.glob("*.jpg"):
        picture.unlink()
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    spoil(folder / "frames_96.npy", "cut")
    assert data[0, 2]["target"].shape == (5, 96, 96, 3) and data.bad_clips == 1  # another clip's
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    assert data.unusable == {"no face crops but a damaged pack": 1}
