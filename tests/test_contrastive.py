"""The expert's contrastive training: its samples and its loss."""

import numpy as np
import pytest
import torch
from test_datasets import frame_numbers, make_clip, make_root, same
from torch.nn import functional as F

from datasets import SyncNetContrastiveDataset, assemble
from hparams import HParams
from models import create_model
from models.syncnet import contrastive_loss, cosine_loss


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path)


def test_contrastive_samples_are_windows_of_one_clip_with_their_own_sound(root):
    hp = HParams(num_workers=0, contrastive_windows=3)
    data = SyncNetContrastiveDataset(str(root / "data"), "train", hp, str(root))
    seen = set()
    for epoch in range(8):
        sample = data[epoch, 1]
        described = {name: (value.dtype, *value.shape) for name, value in sample.items()}
        assert described == {
            "window": (torch.uint8, 3, 5, 48, 96, 3), "mel": (torch.float32, 3, 1, 80, 16),
            "start": (torch.int64, 3), "clip": (torch.int64,),
        }  # fmt: skip
        starts = sample["start"].tolist()
        assert len(set(starts)) == 3
        for start, window, mel in zip(starts, sample["window"], sample["mel"], strict=True):
            assert frame_numbers(window) == list(range(start, start + 5))
            assert mel[0, 0, 0] == int(80 * start / 25)
        seen.add(tuple(starts))
    assert len(seen) == 8
    again = SyncNetContrastiveDataset(str(root / "data"), "train", hp, str(root))
    assert same(data[3, 0], again[3, 0])


def test_assembled_contrastive_batch(root):
    hp = HParams(num_workers=0, contrastive_windows=3)
    data = SyncNetContrastiveDataset(str(root / "data"), "train", hp, str(root))
    loaded = torch.utils.data.default_collate([data[0, 2], data[0, 0]])
    batch = assemble(loaded)
    assert batch["x"].shape == (6, 15, 48, 96) and batch["mel"].shape == (6, 1, 80, 16)
    assert batch["group"].tolist() == [2, 2, 2, 0, 0, 0] and batch["clip"].tolist() == [2, 0]
    assert torch.equal(batch["start"], loaded["start"].flatten())
    for number in range(6):
        clip, place = divmod(number, 3)
        assert torch.equal(batch["mel"][number], loaded["mel"][clip, place])
        one = assemble({"window": loaded["window"][clip, place][None]})["x"][0]
        assert torch.equal(batch["x"][number], one)


def test_clips_with_too_few_windows_are_left_out_of_the_contrastive_set(root):
    make_clip(root / "data/b/00002", 20, 40)  # rows for windows at 0..7
    (root / "train.txt").write_text("a/00001\nb/00002\n")
    for windows, clips in ((8, 2), (9, 1)):
        hp = HParams(num_workers=0, contrastive_windows=windows)
        data = SyncNetContrastiveDataset(str(root / "data"), "train", hp, str(root))
        assert len(data) == clips
    assert data.unusable == {"fewer than contrastive_windows = 9 windows": 1}


def test_near_windows_are_drawn_where_they_are_asked_for(root):
    def starts(windows, near):
        hp = HParams(num_workers=0, contrastive_windows=windows, contrastive_near=near)
        data = SyncNetContrastiveDataset(str(root / "data"), "train", hp, str(root))
        return [data[epoch, 0]["start"].tolist() for epoch in range(30)]

    for windows, near in ((6, 3), (4, 1), (3, 9), (26, 25)):  # 26: all that the clip has
        gaps = set()
        for drawn in starts(windows, near):
            assert len(set(drawn)) == windows
            for place in range(max(1, windows - near), windows):
                gap = min(abs(drawn[place] - other) for other in drawn[:place])
                gaps.add(gap)
        assert windows == 26 or gaps == {1, 2, 3}
    plain = starts(4, 0)
    rng = np.random.default_rng((HParams().seed, 7, 0, 0))
    assert plain[7] == rng.choice(np.arange(26), 4, replace=False).tolist()  # as ever


def unit(*rows):
    return F.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def test_contrastive_loss_closed_form():
    """Two clips of two windows; the second clip's windows are taken for each other."""
    audio = unit([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1])
    face = unit([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1])
    group = torch.tensor([5, 5, 8, 8])
    found = contrastive_loss(audio, face, group, temperature=0.5, bce_weight=2.0)
    e2 = np.exp(2)
    nce = (2 * np.log((e2 + 3) / e2) + 2 * np.log((2 * e2 + 2) / e2)) / 4
    assert found["nce"].item() == pytest.approx(nce, rel=1e-6)
    # four own pairs are right; of the four wrong pairs within clips two are right, and a cosine of
    # 1 that should be 0 costs 100, torch's limit
    assert found["bce"].item() == pytest.approx(0.5 * (2 * 100 / 4), rel=1e-6)
    assert found["loss"].item() == pytest.approx(nce + 2 * 25, rel=1e-6)
    assert found["accuracy"].item() == pytest.approx(0.75)


def test_its_released_part_is_the_released_loss():
    """Own pairs against the wrong pairs within clips, half and half."""
    torch.manual_seed(0)
    audio, face = (F.normalize(torch.rand(6, 8), dim=1) for _ in range(2))
    group = torch.tensor([0, 0, 0, 1, 1, 1])
    found = contrastive_loss(audio, face, group)
    same_clip = [(i, j) for i in range(6) for j in range(6) if i != j and i // 3 == j // 3]
    i, j = torch.tensor(same_clip).T
    ones, zeros = torch.ones(6, 1), torch.zeros(len(same_clip), 1)
    expected = (cosine_loss(audio, face, ones) + cosine_loss(audio[j], face[i], zeros)) / 2
    assert found["bce"].item() == pytest.approx(expected.item(), rel=1e-5)
    logits = face @ audio.T / 0.07
    rows, columns = logits.log_softmax(1).diag(), logits.log_softmax(0).diag()
    assert found["nce"].item() == pytest.approx(-(rows + columns).mean().item() / 2, rel=1e-5)


def test_one_window_twice_is_no_wrong_pair():
    """A small corpus has a clip twice in a batch, and now and then the same window of it."""
    audio = unit([1, 0], [0, 1], [1, 0])
    group, start = torch.tensor([3, 3, 3]), torch.tensor([7, 20, 7])
    found = contrastive_loss(audio, audio, group, 0.01, 1.0, start)
    assert found["loss"].item() == pytest.approx(0, abs=1e-6) and found["accuracy"] == 1
    assert contrastive_loss(audio, audio, group, 0.01)["loss"] > 1


def test_a_batch_of_different_clips_has_no_wrong_pairs_for_the_released_part():
    audio, face = unit([1, 0], [0, 1]), unit([1, 1], [1, 1])
    found = contrastive_loss(audio, face, torch.tensor([0, 1]))
    assert found["bce"].item() == pytest.approx(-np.log(np.sqrt(0.5)) / 2, rel=1e-5)


def test_losses_are_float32_under_autocast_and_not_a_number_shows():
    torch.manual_seed(0)
    audio, face = (F.normalize(torch.rand(4, 8), dim=1) for _ in range(2))
    group = torch.tensor([0, 0, 1, 1])
    expected = contrastive_loss(audio, face, group)
    with torch.autocast("cpu", torch.bfloat16):
        found = contrastive_loss(audio, face, group)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], value), name
    audio[2, 3] = torch.nan
    assert not contrastive_loss(audio, face, group)["loss"].isfinite()


def test_contrastive_training_learns_a_batch_by_heart(root):
    """Gradients reach both encoders."""
    data = SyncNetContrastiveDataset(str(root / "data"), "train", HParams(), str(root))
    batch = assemble(torch.utils.data.default_collate([data[0, 0], data[0, 1]]))
    torch.manual_seed(0)
    model = create_model("SyncNet_color", width=0.125)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        scalars = contrastive_loss(
            *model(batch["mel"], batch["x"]), batch["group"], start=batch["start"]
        )
        optimizer.zero_grad()
        scalars["loss"].backward()
        optimizer.step()
        losses.append(scalars["loss"].item())
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    assert losses[0] > 1.5 and losses[-1] < 0.5
