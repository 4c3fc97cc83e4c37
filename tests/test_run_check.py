import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TINY, assert_refused, train
from test_datasets import make_clip, make_root

import color_syncnet_train
import hq_wav2lip_train
import wav2lip_train
from datasets import SyncNetDataset, Wav2LipDataset
from errors import InputError
from hparams import HParams, load_training_hparams
from training.check import (
    WARM_UP,
    check_accuracy,
    check_expert,
    check_generator,
    overfit,
    small_batch,
    time_steps,
)
from training.expert_validation import SHIFTS, PairCosines
from training.precision import NonFiniteLoss

CPU = torch.device("cpu")


def arguments(script, data, corpus, tmp_path, *argv, **hparams):
    overrides = [f"{name}={value}" for name, value in hparams.items()]
    args = script.get_args_parser().parse_args([
        "--data_root", str(data), "--filelists", str(corpus / "filelists"),
        "--checkpoint_dir", str(tmp_path / "ckpt"), "--log_dir", str(tmp_path / "runs"),
        "--device", "cpu", "--check", *map(str, argv), "--hparams", *TINY, *overrides,
    ])  # fmt: skip
    return args, load_training_hparams(args)


def test_overfit_counts_the_steps_to_the_bound():
    losses = iter([2.0, 1.0, 0.5, 0.25])
    batch = {"mel": torch.zeros(3)}
    step = lambda batch: {"loss": torch.tensor(next(losses), requires_grad=True)}  # noqa: E731
    assert overfit(step, batch, "loss", 0.5, 10) == 3


def test_a_batch_that_is_not_learned_is_an_error():
    batch = {"mel": torch.zeros(3)}
    with pytest.raises(
        InputError, match=r"3 windows cannot be learned.* 2\.000 to 1\.000 in 2 steps"
    ):
        losses = iter([2.0, 1.0, 0.0])
        overfit(lambda batch: {"l1": torch.tensor(next(losses))}, batch, "l1", 0.5, 2)

    def diverge(batch):
        raise NonFiniteLoss("the loss is nan")

    with pytest.raises(InputError, match="the loss is nan: lower the learning rate"):
        overfit(diverge, batch, "loss", 0.5, 2)
    with pytest.raises(InputError, match="to nan in 2 steps"):
        overfit(lambda batch: {"loss": torch.tensor(np.nan)}, batch, "loss", 0.5, 2)


def test_small_batch_has_both_labels(tmp_path):
    root = make_root(tmp_path)
    (root / "train.txt").write_text("a/00001\n")  # all of them windows of one clip
    data = SyncNetDataset(str(root / "data"), "train", HParams(), str(root))
    batch = small_batch(data, 8, CPU)
    assert batch["x"].shape == (8, 15, 48, 96) and batch["y"].sum() == 4
    assert torch.equal(batch["x"], small_batch(data, 8, CPU)["x"])
    data = Wav2LipDataset(str(root / "data"), "train", HParams(), str(root))
    assert small_batch(data, 2, CPU)["x"].shape == (2, 6, 5, 96, 96)


def test_step_time_and_the_wait_for_data(monkeypatch):
    """In simulated seconds."""
    now, stepped = [0.0], []
    monkeypatch.setattr("training.check.time", SimpleNamespace(perf_counter=lambda: now[0]))

    def batches():
        for number in itertools.count():
            now[0] += 1.5 if number >= WARM_UP else 100  # as workers that have to start
            yield {"y": torch.zeros(1), "target": torch.zeros(1, 1, 2, 2, 3, dtype=torch.uint8),
                   "reference": torch.zeros(1, 1, 2, 2, 3, dtype=torch.uint8)}  # fmt: skip

    def step(batch):
        now[0] += 0.5
        stepped.append(batch["x"].shape)

    found = time_steps(step, batches(), CPU, 10, 60)
    assert stepped == [(1, 6, 1, 2, 2)] * (WARM_UP + 10)
    assert found == (2, 0.75)
    stepped.clear()
    time_steps(step, batches(), CPU, 1000, 5)
    assert len(stepped) == WARM_UP + 3


@pytest.mark.parametrize("loss", ["bce", "contrastive"])
def test_check_of_an_expert(preprocessed_root, synthetic_root, tmp_path, monkeypatch, capsys, loss):
    monkeypatch.setattr("training.check.TIMED_SECONDS", 0.5)
    where = (color_syncnet_train, preprocessed_root, synthetic_root, tmp_path)
    found = check_expert(*arguments(*where, syncnet_loss=loss, accumulation=3))
    assert found["overfit_steps"] < 100 and 0 <= found["wait"] <= 1
    assert 0.1 < found["memory_gib"] < 10
    said = capsys.readouterr().out
    assert "8 windows to loss" in said and "batch 64; here 4" in said
    assert f"{700_000 * found['step_seconds'] / 3600:.1f} h" in said
    assert not any(tmp_path.iterdir())  # nothing is written


@pytest.mark.parametrize("quality", [False, True])
def test_check_of_a_generator(
    preprocessed_root, synthetic_root, tmp_path, trained_expert, monkeypatch, capsys, quality
):
    monkeypatch.setattr("training.check.TIMED_STEPS", 2)
    monkeypatch.setattr("training.check.GENERATOR_BOUND", 0.15)  # seconds instead of a minute
    monkeypatch.setattr("training.check.LEAST_ACCURACY", 0.0)
    monkeypatch.setattr("training.check.EXPERT_WINDOWS", 16)
    script = hq_wav2lip_train if quality else wav2lip_train
    where = (script, preprocessed_root, synthetic_root, tmp_path)
    given = ("--syncnet_checkpoint_path", trained_expert)
    if quality:
        given += ("--checkpoint_path", REPOSITORY / "checkpoints" / "grid_s1.pth")
    found = check_generator(*arguments(*where, *given), quality)
    assert ("sync" in found) == quality
    assert 1 < found["overfit_steps"] < 100 and 0 < found["expert_accuracy"] < 1
    said = capsys.readouterr().out
    assert ("grid_s1.pth: l1 " in said) == quality
    assert "16 validation windows" in said and "2 windows to l1" in said
    assert "every 100,000 steps of batch 2" in said
    assert not any(tmp_path.iterdir())


def test_data_from_which_nothing_can_be_learned(tmp_path, monkeypatch):
    """Still pictures without a sound."""
    monkeypatch.setattr("training.check.OVERFIT_STEPS", 40)  # where it can be learned, 10 do
    for name in ("a/1", "b/1"):
        folder = make_clip(tmp_path / "data" / name)
        for picture in list(folder.glob("*.jpg"))[1:]:
            picture.write_bytes((folder / "0.jpg").read_bytes())
        np.save(folder / "mel.npy", np.zeros((200, 80), np.float32))
    (tmp_path / "filelists").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"filelists/{split}.txt").write_text("a/1\nb/1\n")
    where = (color_syncnet_train, tmp_path / "data", tmp_path, tmp_path)
    with pytest.raises(InputError, match="8 windows cannot be learned by heart.*--doctor"):
        check_expert(*arguments(*where))


def test_an_expert_that_knows_nothing_is_refused(
    preprocessed_root, synthetic_root, trained_expert, tmp_path
):
    result = train(
        "wav2lip_train.py", preprocessed_root, synthetic_root, tmp_path, "--check",
        "--syncnet_checkpoint_path", trained_expert, code=2,
    )  # fmt: skip
    assert_refused(result, "check failed", "below 75%", str(trained_expert))
    assert not any(tmp_path.iterdir())


def made(cosine_of, windows=8):
    """What an expert with the cosine cosine_of(shift) says."""
    cosines = np.tile([cosine_of(shift) for shift in (*SHIFTS, 30)], (windows, 1))
    y = (np.arange(windows) % 2).astype(np.float32)
    exists = np.ones_like(cosines, dtype=bool)
    exists[y == 1, -1] = False
    return PairCosines(y, cosines.astype(np.float32), exists)


@pytest.mark.parametrize(
    ("cosine_of", "words"),
    [
        (
            lambda shift: 0.9 if shift == 5 else 0.1,
            ["5 frames late", "--correct_sync --expert e.pth"],
        ),
        (lambda shift: 0.9 if shift == -2 else 0.1, ["2 frames early", "--correct_sync"]),
        (lambda shift: 0.6, ["50% of 256", "Train it longer", "--checkpoint_path e.pth"]),
        (lambda shift: np.nan, ["Train it longer"]),
    ],
)
def test_what_to_do_about_an_expert(
    preprocessed_root, synthetic_root, tmp_path, monkeypatch, cosine_of, words
):
    monkeypatch.setattr("training.expert_validation.pair_cosines", lambda *_: made(cosine_of))
    args, hp = arguments(
        wav2lip_train, preprocessed_root, synthetic_root, tmp_path,
        "--syncnet_checkpoint_path", "e.pth",
    )  # fmt: skip
    with pytest.raises(InputError) as error:
        check_accuracy(None, args, hp, CPU)
    data = f"{preprocessed_root} --filelists {synthetic_root}/filelists"
    for word in [*words, data]:
        assert word in str(error.value)
    good = made(lambda shift: 0.9 if shift == 0 else 0.1)
    monkeypatch.setattr("training.expert_validation.pair_cosines", lambda *_: good)
    assert check_accuracy(None, args, hp, CPU)["expert_accuracy"] == 1


def test_several_processes_are_refused(preprocessed_root, synthetic_root, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    where = (color_syncnet_train, preprocessed_root, synthetic_root, tmp_path)
    with pytest.raises(InputError, match="without torchrun"):
        check_expert(*arguments(*where))
