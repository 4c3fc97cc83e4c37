import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from conftest import GOLDEN

from datasets import (
    MAX_BAD_SAMPLES,
    ShortWindow,
    SyncNetDataset,
    UnreadableFrame,
    Wav2LipDataset,
    crop_audio_window,
    get_frame_id,
    get_segmented_mels,
    get_window,
    index_clip,
    prepare_window,
    read_window,
)
from errors import InputError
from hparams import HParams

HP = HParams(num_workers=0)


def make_clip(folder, frames=30, rows=200, missing=()):
    """Crops whose brightness is their frame number and a mel whose values are their row number."""
    folder.mkdir(parents=True)
    for frame in set(range(frames)) - set(missing):
        picture = np.full((110, 90, 3), frame * 4, np.uint8)
        cv2.imwrite(str(folder / f"{frame}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    np.save(folder / "mel.npy", np.repeat(np.arange(rows, dtype=np.float32)[:, None], 80, axis=1))
    return folder


@pytest.fixture
def root(tmp_path):
    for name in ("a/00001", "a/00002", "b/00001"):
        make_clip(tmp_path / "data" / name)
    (tmp_path / "train.txt").write_text("a/00001\na/00002 5\nb/00001\n")
    return tmp_path


def test_windows_meet_the_golden_values():
    golden = json.loads((GOLDEN / "dataset_windows.json").read_text())
    mel = np.repeat(np.arange(golden["mel_rows_available"])[:, None], 80, axis=1)
    for row in golden["rows"]:
        if row["mel_rows"] == 16:
            window = crop_audio_window(mel, row["frame"])
            assert (window[0, 0], len(window)) == (row["mel_start"], 16)
        else:  # the released loader draws another window there
            with pytest.raises(ShortWindow):
                crop_audio_window(mel, row["frame"])
        if row["indiv_starts"] is None:
            with pytest.raises(ShortWindow):
                get_segmented_mels(mel, row["frame"])
        else:
            assert get_segmented_mels(mel, row["frame"])[:, 0, 0].tolist() == row["indiv_starts"]


def test_mel_that_ends_too_early():
    mel = np.zeros((40, 80))
    assert crop_audio_window(mel, 7).shape == (16, 80)  # rows 22..38
    with pytest.raises(ShortWindow, match="frame 8"):
        crop_audio_window(mel, 8)


def test_names_and_paths():
    assert get_frame_id("x/y.z/12.jpg") == 12
    assert get_window("d/7.jpg") == [f"d/{i}.jpg" for i in (7, 8, 9, 10, 11)]


def test_window_is_read_resized_and_scaled(tmp_path):
    folder = make_clip(tmp_path / "c", frames=6)
    window = read_window(get_window(str(folder / "1.jpg")))
    prepared = prepare_window(window)
    assert prepared.shape == (3, 5, 96, 96) and prepared.dtype == np.float32
    np.testing.assert_allclose(prepared[:, :, 40, 40] * 255, [[4, 8, 12, 16, 20]] * 3, atol=2)
    with pytest.raises(UnreadableFrame, match=r"6\.jpg"):
        read_window(get_window(str(folder / "2.jpg")))


def test_index_knows_gaps_and_short_audio(tmp_path):
    clip = index_clip(str(make_clip(tmp_path / "c", 30, 200, missing=[12])), HP, False)
    assert clip.starts.tolist() == [*range(8), *range(13, 26)]
    assert clip.usable.tolist() == clip.starts.tolist()
    strict = index_clip(str(tmp_path / "c"), HP, True)
    assert strict.usable.tolist() == [*range(1, 8), *range(13, 26)]  # frame 0 cannot start
    # 70 rows: the sync window needs int(3.2 f) + 16, the last frame's own int(3.2 (f + 3)) + 16
    short = index_clip(str(make_clip(tmp_path / "d", 30, 70)), HP, False)
    assert short.usable.max() == max(f for f in range(26) if int(80 * f / 25) + 16 <= 70)
    short = index_clip(str(tmp_path / "d"), HP, True)
    assert short.usable.max() == max(f for f in range(26) if int(80 * (f + 3) / 25) + 16 <= 70)


@pytest.mark.parametrize(
    ("frames", "rows", "reason"),
    [(15, 200, "15 face crops or fewer"), (30, 10, "no five consecutive")],
)
def test_unusable_clips_have_a_reason(tmp_path, frames, rows, reason):
    assert reason in index_clip(str(make_clip(tmp_path / "c", frames, rows)), HP, True)


def test_unusable_clips_are_counted_and_none_left_is_an_error(root):
    shutil.rmtree(root / "data/a/00001")
    (root / "data/b/00001/mel.npy").write_bytes(b"not an array")
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    assert len(data) == 1
    assert data.unusable == {"folder missing": 1, "mel.npy missing or damaged": 1}
    shutil.rmtree(root / "data/a/00002")
    with pytest.raises(InputError, match="none of the 3 clips.*2 with folder missing"):
        Wav2LipDataset(str(root / "data"), "train", HP, str(root))


def frame_numbers(x):
    """(T,) frame numbers told from the upper-left pixels of (3, T, H, W)."""
    return torch.round(x[0, :, 5, 5] * 255 / 4).int().tolist()


def test_generator_samples(root):
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    for epoch in range(8):
        sample = data[epoch, 1]
        shapes = {name: tuple(value.shape) for name, value in sample.items()}
        assert shapes == {
            "x": (6, 5, 96, 96), "indiv_mels": (5, 1, 80, 16), "mel": (1, 80, 16),
            "y": (3, 5, 96, 96),
        }  # fmt: skip
        truth, target, reference = (
            frame_numbers(part) for part in (sample["y"], sample["x"][:3], sample["x"][3:])
        )
        start = truth[0]
        assert truth == target == list(range(start, start + 5))
        assert reference == list(range(reference[0], reference[0] + 5)) != truth
        assert (sample["x"][:3, :, 48:] == 0).all()
        assert torch.equal(sample["x"][:3, :, :48], sample["y"][:, :, :48])
        assert sample["mel"][0, 0, 0] == int(80 * start / 25)
        own = [int(80 * (i - 1) / 25) for i in range(start, start + 5)]
        assert sample["indiv_mels"][:, 0, 0, 0].tolist() == own
        assert (sample["indiv_mels"][0, 0, :, 3] == own[0] + 3).all()  # (80 bands, 16 rows)


def test_expert_samples_are_half_in_sync(root):
    data = SyncNetDataset(str(root / "data"), "train", HP, str(root))
    labels = []
    for epoch in range(60):
        sample = data[epoch, 0]
        assert sample["x"].shape == (15, 48, 96) and sample["mel"].shape == (1, 80, 16)
        start = round(float(sample["x"][0, 5, 5]) * 255 / 4)
        in_sync = sample["mel"][0, 0, 0] == int(80 * start / 25)
        assert bool(in_sync) == bool(sample["y"])
        seen = [round(float(sample["x"][3 * i, 5, 5]) * 255 / 4) for i in range(5)]
        assert seen == list(range(start, start + 5))  # stacked frame by frame
        labels.append(float(sample["y"]))
    assert 0.3 < np.mean(labels) < 0.7


def test_samples_depend_on_seed_epoch_and_clip_alone(root):
    one = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    two = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    [one[9, 0] for _ in range(3)]
    assert torch.equal(one[3, 2]["x"], two[3, 2]["x"])
    assert any(not torch.equal(one[3, 2]["mel"], one[epoch, 2]["mel"]) for epoch in range(4, 8))
    other = Wav2LipDataset(str(root / "data"), "train", HParams(seed=1), str(root))
    assert any(not torch.equal(one[epoch, 2]["mel"], other[epoch, 2]["mel"]) for epoch in range(4))


def test_an_unreadable_sample_is_replaced_and_counted(root):
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    for picture in (root / "data/a/00001").glob("*.jpg"):
        picture.write_bytes(b"")
    assert data[0, 0]["x"].shape == (6, 5, 96, 96)
    assert data.bad_samples == 1


def test_nothing_but_unreadable_samples_is_an_error(root):
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    for picture in (root / "data").rglob("*.jpg"):
        picture.write_bytes(b"")
    with pytest.raises(InputError, match=f"{MAX_BAD_SAMPLES} samples.*cannot read"):
        data[0, 0]
