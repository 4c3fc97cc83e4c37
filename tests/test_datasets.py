import json
import shutil
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from conftest import GOLDEN

from audio import ShortWindow, crop_audio_window
from corpus.clips import (
    UnreadableFrame,
    choose_reduction,
    get_frame_id,
    get_window,
    index_clip,
    open_mel,
    read_window,
)
from datasets import (
    SyncNetContrastiveDataset,
    SyncNetDataset,
    Wav2LipDataset,
    assemble,
    get_segmented_mels,
    prepare_window,
)
from errors import InputError
from hparams import HParams
from training.setup import train_batches

HP = HParams(num_workers=0)


def make_clip(folder, frames=30, rows=200, missing=(), size=(110, 90)):
    """Crops whose brightness is their frame number (with some noise in the lower right corner) and
    a mel whose values are their row number.
    """
    folder.mkdir(parents=True)
    for frame in set(range(frames)) - set(missing):
        picture = np.full((*size, 3), frame * 4, np.uint8)
        corner = picture[-40:, -40:]
        corner[:] = np.random.default_rng(frame).integers(0, 256, corner.shape)
        cv2.imwrite(str(folder / f"{frame}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 95])
    np.save(folder / "mel.npy", np.repeat(np.arange(rows, dtype=np.float32)[:, None], 80, axis=1))
    return folder


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path)


def make_root(tmp_path):
    """Three clips in data/ and a filelist of them."""
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
    assert window.shape == (5, 96, 96, 3) and window.dtype == np.uint8
    prepared = prepare_window(torch.from_numpy(window))
    assert prepared.shape == (3, 5, 96, 96) and prepared.dtype == torch.float32
    np.testing.assert_allclose(prepared[:, :, 40, 40] * 255, [[4, 8, 12, 16, 20]] * 3, atol=2)
    expected = (window.astype(np.float32) / 255).transpose(3, 0, 1, 2)
    assert np.array_equal(prepared, expected)  # to the last bit
    with pytest.raises(UnreadableFrame, match=r"6\.jpg"):
        read_window(get_window(str(folder / "2.jpg")))


@pytest.mark.parametrize(
    ("size", "img_size", "factor"),
    [((383, 500), 96, 1), ((384, 400), 96, 2), ((1000, 768), 96, 4), ((1536, 1600), 96, 8),
     ((384, 384), 97, 1), ((128, 128), 32, 2)],
)  # fmt: skip
def test_crops_are_shrunk_in_decoding_where_twice_the_size_remains(
    tmp_path, size, img_size, factor
):
    path = str(tmp_path / "0.jpg")
    cv2.imwrite(path, np.zeros((*size, 3), np.uint8))
    assert choose_reduction(path, img_size) == factor
    assert choose_reduction(str(tmp_path / "1.jpg"), img_size) == 1


def test_large_crops(tmp_path):
    """A reduced decode averages, as an area resize does, and one factor serves a clip whose crops
    are not all large.
    """
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.integers(0, 256, (480, 420, 3), np.uint8), (0, 0), 6) * 3
    sizes = [(420, 480)] * 8 + [(300, 343)] * 12
    (tmp_path / "c").mkdir()
    for frame, size in enumerate(sizes):
        cv2.imwrite(str(tmp_path / f"c/{frame}.jpg"), cv2.resize(scene, size), [1, 95])
    np.save(tmp_path / "c/mel.npy", np.zeros((200, 80), np.float32))
    clip = index_clip(str(tmp_path / "c"), HP, True)
    assert clip.reduction == 2
    window = clip.read(5, 5)
    assert window.shape == (5, 96, 96, 3)
    for frame, made in zip(range(5, 10), window, strict=True):
        full = cv2.imread(str(tmp_path / f"c/{frame}.jpg"))
        close = cv2.resize(full, (96, 96), interpolation=cv2.INTER_AREA)
        assert np.abs(made.astype(int) - close).mean() < 2
        plain = cv2.resize(full, (96, 96))
        assert np.array_equal(made, plain) == (frame >= 8)  # small ones are decoded in full
    assert np.array_equal(clip.read(5, 5, top=48), window[:, 48:])


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
    with pytest.raises(InputError, match="none of the 3 clips.*2 with folder missing, first .*/"):
        Wav2LipDataset(str(root / "data"), "train", HP, str(root))


def frame_numbers(frames):
    """(T,) frame numbers told from the upper-left pixels of (T, H, W, 3)."""
    return torch.round(frames[:, 5, 5, 0] / 4).int().tolist()


def test_generator_samples(root):
    data = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    for epoch in range(8):
        sample = data[epoch, 1]
        described = {name: (value.dtype, *value.shape) for name, value in sample.items()}
        assert described == {
            "target": (torch.uint8, 5, 96, 96, 3), "reference": (torch.uint8, 5, 96, 96, 3),
            "indiv_mels": (torch.float32, 5, 1, 80, 16), "mel": (torch.float32, 1, 80, 16),
            "clip": (torch.int64,),
        }  # fmt: skip
        assert sample["clip"] == 1
        target, reference = frame_numbers(sample["target"]), frame_numbers(sample["reference"])
        start = target[0]
        assert target == list(range(start, start + 5))
        assert reference == list(range(reference[0], reference[0] + 5)) != target
        assert sample["mel"][0, 0, 0] == int(80 * start / 25)
        own = [int(80 * (i - 1) / 25) for i in range(start, start + 5)]
        assert sample["indiv_mels"][:, 0, 0, 0].tolist() == own
        assert (sample["indiv_mels"][0, 0, :, 3] == own[0] + 3).all()  # (80 bands, 16 rows)


def test_assembled_generator_batch(root):
    hp = HParams(num_workers=0, img_size=33)  # odd: the lower half is the larger
    data = Wav2LipDataset(str(root / "data"), "train", hp, str(root))
    loaded = torch.utils.data.default_collate([data[0, 0], data[0, 1]])
    batch = assemble(loaded)
    shapes = {name: tuple(value.shape) for name, value in batch.items()}
    assert shapes == {
        "x": (2, 6, 5, 33, 33), "y": (2, 3, 5, 33, 33), "indiv_mels": (2, 5, 1, 80, 16),
        "mel": (2, 1, 80, 16), "clip": (2,),
    }  # fmt: skip
    assert batch["clip"].tolist() == [0, 1]
    assert batch["x"].dtype == batch["y"].dtype == torch.float32 and batch["x"].is_contiguous()
    assert (batch["x"][:, :3, :, 16:] == 0).all()
    assert torch.equal(batch["x"][:, :3, :, :16], batch["y"][:, :, :, :16])
    for name, made in (("target", batch["y"]), ("reference", batch["x"][:, 3:])):
        assert torch.equal((made * 255).round(), loaded[name].permute(0, 4, 1, 2, 3).float())
    assert torch.equal(batch["mel"], loaded["mel"])


def test_expert_samples_are_half_in_sync(root):
    data = SyncNetDataset(str(root / "data"), "train", HP, str(root))
    labels = []
    for epoch in range(60):
        sample = data[epoch, 0]
        assert sample["window"].shape == (5, 48, 96, 3) and sample["window"].dtype == torch.uint8
        assert sample["mel"].shape == (1, 80, 16) and sample["y"].shape == (1,)
        seen = frame_numbers(sample["window"])
        in_sync = sample["mel"][0, 0, 0] == int(80 * seen[0] / 25)
        assert bool(in_sync) == bool(sample["y"])
        assert seen == list(range(seen[0], seen[0] + 5))
        labels.append(float(sample["y"]))
    assert 0.3 < np.mean(labels) < 0.7


def test_assembled_expert_batch_stacks_lower_halves_frame_by_frame(root):
    data = SyncNetDataset(str(root / "data"), "train", HP, str(root))
    loaded = torch.utils.data.default_collate([data[0, 0], data[0, 1]])
    batch = assemble(loaded)
    assert batch.keys() == {"x", "mel", "y", "clip"} and batch["x"].shape == (2, 15, 48, 96)
    for frame in range(5):
        for channel in range(3):
            plane = loaded["window"][:, frame, :, :, channel].float() / 255
            assert torch.equal(batch["x"][:, 3 * frame + channel], plane)


def test_samples_depend_on_seed_epoch_and_clip_alone(root):
    one = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    two = Wav2LipDataset(str(root / "data"), "train", HP, str(root))
    [one[9, 0] for _ in range(3)]
    assert torch.equal(one[3, 2]["target"], two[3, 2]["target"])
    assert any(not torch.equal(one[3, 2]["mel"], one[epoch, 2]["mel"]) for epoch in range(4, 8))
    other = Wav2LipDataset(str(root / "data"), "train", HParams(seed=1), str(root))
    assert any(not torch.equal(one[epoch, 2]["mel"], other[epoch, 2]["mel"]) for epoch in range(4))


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kind", [Wav2LipDataset, SyncNetDataset, SyncNetContrastiveDataset])
def test_samples_do_not_depend_on_the_number_of_workers(root, kind):
    make_clip(root / "data/b/00002", 40, 130, missing=[20, 22])
    (root / "data/b/00001/9.jpg").write_bytes(b"")  # some samples are replaced
    (root / "train.txt").write_text("a/00001\na/00002\nb/00001\nb/00002\n")
    runs = []
    for workers in (0, 1, 2):
        hp = HParams(num_workers=workers)
        data = kind(str(root / "data"), "train", hp, str(root))
        runs.append(list(islice(train_batches(data, 3, hp, 6), 8)))
    for run in runs[1:]:
        assert all(same(one, two) for one, two in zip(runs[0], run, strict=True))


def test_mels_are_mapped_as_numpy_reads_them(tmp_path):
    rng = np.random.default_rng(0)
    for array in (rng.random((7, 80), np.float32), np.asfortranarray(rng.random((7, 80))),
                  np.zeros((0, 80), np.float32)):  # fmt: skip
        np.save(tmp_path / "mel.npy", array)
        mapped = open_mel(str(tmp_path))
        assert mapped.dtype == array.dtype and np.array_equal(mapped, array)
        assert not mapped.flags.writeable


def test_what_is_no_mel_is_refused_by_name(tmp_path):
    path = tmp_path / "mel.npy"
    for array in (np.array([{}], object), np.zeros(80, np.float32), np.zeros((5, 80), int)):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(ValueError, match=r"mel\.npy"):
            open_mel(str(tmp_path))
    np.save(path, np.zeros((80, 80), np.float32))
    sound = path.read_bytes()
    negative = sound.replace(b"(80, 80), }", b"(-8, 80), }")
    for content in (b"", b"\x93NUMPY", b"no array\n" * 99, sound[:-1], sound[:90],
                    sound[:40] + b"((((((" + sound[46:], negative):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"mel\.npy is no array file"):
            open_mel(str(tmp_path))
    with open(path, "wb") as file:
        np.savez(file, mel=np.zeros((80, 80), np.float32))
    with pytest.raises(ValueError, match="no array file"):
        open_mel(str(tmp_path))
    path.unlink()
    with pytest.raises(OSError, match=r"mel\.npy"):
        open_mel(str(tmp_path))


def test_file_names_that_are_no_frame_numbers(tmp_path):
    folder = make_clip(tmp_path / "c")
    for name in ("007.jpg", "x.jpg", "-1.jpg", "99999999999.jpg", "²5.jpg", "31.jpg.part"):
        (folder / name).touch()
    assert index_clip(str(folder), HP, True).frames.tolist() == list(range(30))
