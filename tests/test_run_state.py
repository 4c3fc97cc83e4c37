"""Runs that are stopped, damaged or poisoned."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TINY, train

from hparams import HParams, load_hparams
from models import create_model
from training.precision import Ema, NonFiniteLoss, Precision
from training.state import Checkpoints
from wav2lip_train import sync_weight

EXPERT = "color_syncnet_train.py"


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def start(script, data, corpus, folder, *extra, **hparams):
    argv = [script, "--data_root", data, "--filelists", corpus / "filelists", "--checkpoint_dir",
            folder / "ckpt", "--log_dir", folder / "runs", "--device", "cpu", *extra, "--hparams",
            *TINY, *(f"{name}={value}" for name, value in hparams.items())]  # fmt: skip
    argv = [sys.executable, *map(str, argv)]
    return subprocess.Popen(
        argv, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_ends_well(preprocessed_root, synthetic_root, tmp_path, number):
    """All processes are told, as a terminal and job schedulers do."""
    run = (EXPERT, preprocessed_root, synthetic_root, tmp_path)
    process = start(*run, nsteps=100000, num_workers=2)
    metrics = tmp_path / "runs/ckpt/metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 2):
        time.sleep(0.05)
        assert process.poll() is None
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "asked to stop" in errors and "Traceback" not in errors
    steps = len(metrics.read_text().splitlines())
    assert (tmp_path / f"ckpt/checkpoint_step{steps:09d}.pth").exists()


def test_damaged_checkpoints_fall_back_or_are_refused(preprocessed_root, synthetic_root, tmp_path):
    def files():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    run = (EXPERT, preprocessed_root, synthetic_root)
    train(*run, tmp_path / "a", nsteps=4, syncnet_checkpoint_interval=1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b/ckpt/checkpoint_step000000004.pth").unlink()
    newest = tmp_path / "b/ckpt/checkpoint_step000000003.pth"
    newest.write_bytes(newest.read_bytes()[:1000])
    result = train(*run, tmp_path / "b", nsteps=4)
    assert "falling back" in result.stderr and "of step 2" in result.stderr
    one, two = (weights(tmp_path / run / "ckpt/checkpoint_step000000004.pth") for run in "ab")
    assert equal(one, two)
    assert "falling back" in (tmp_path / "b/runs/ckpt/train.log").read_text()
    for path in (tmp_path / "b/ckpt").glob("checkpoint_step*.pth"):
        path.write_bytes(b"")
    before = files()
    result = train(*run, tmp_path / "b", nsteps=5, code=2)
    assert "none of the 4 checkpoints" in result.stderr.splitlines()[-1]
    assert files() == before  # what the run wrote before is as it was
    for folder in ("ckpt", "runs/ckpt"):
        assert load_hparams(tmp_path / "b" / folder / "hparams.yaml").nsteps == 4


def test_the_best_and_the_newest_are_kept(preprocessed_root, synthetic_root, tmp_path):
    run = (EXPERT, preprocessed_root, synthetic_root, tmp_path)
    train(*run, nsteps=4, syncnet_eval_interval=1, syncnet_checkpoint_interval=1,
          keep_checkpoints=2)  # fmt: skip
    names = sorted(path.name for path in (tmp_path / "ckpt").glob("*.pth"))
    assert names == ["best.pth", *(f"checkpoint_step00000000{step}.pth" for step in (3, 4))]
    best, newest = (torch.load(tmp_path / "ckpt" / names[i], weights_only=True) for i in (0, 2))
    lines = (tmp_path / "runs/ckpt/metrics.jsonl").read_text().splitlines()
    losses = {v["step"]: v["loss"] for v in map(json.loads, lines) if v["split"] == "val"}
    assert best["best"] == newest["best"] == pytest.approx(min(losses.values()))
    assert best["global_step"] == min(losses, key=losses.get)


def test_finetuning_takes_the_weights_only(
    preprocessed_root, synthetic_root, trained_expert, tmp_path
):
    run = (EXPERT, preprocessed_root, synthetic_root, tmp_path)
    train(*run, "--checkpoint_path", trained_expert, nsteps=1, finetune=True, syncnet_lr=1e-30)
    tuned = torch.load(tmp_path / "ckpt/checkpoint_step000000001.pth", weights_only=True)
    assert tuned["global_step"] == 1 and tuned["sampler"] == {"samples": 4}
    before = weights(trained_expert)
    for key, value in tuned["state_dict"].items():
        if key.endswith(("weight", "bias")):
            assert torch.equal(value, before[key])


def test_a_poisoned_mel_is_left_out_and_named(preprocessed_root, synthetic_root, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(preprocessed_root, data)
    mel = np.load(data / "s0000/00001/mel.npy")
    np.save(data / "s0000/00001/mel.npy", mel * np.nan)
    result = train(EXPERT, data, synthetic_root, tmp_path, nsteps=6)
    assert result.stderr.count("s0000/00001") == 1  # told once, not in every epoch
    state = weights(tmp_path / "ckpt/checkpoint_step000000006.pth")
    assert all(value.isfinite().all() for value in state.values())


def test_a_loss_that_is_not_finite_stops_the_run(preprocessed_root, synthetic_root, tmp_path):
    run = (EXPERT, preprocessed_root, synthetic_root, tmp_path)
    train(*run, nsteps=2)
    result = train(*run, nsteps=9, syncnet_lr=1e30, code=2)  # diverges in the next steps
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: step ") and "gradient is " in line and "s000" in line
    newest = sorted((tmp_path / "ckpt").glob("checkpoint_step*.pth"))[-1]
    assert newest.name == "checkpoint_step000000002.pth"
    assert all(value.isfinite().all() for value in weights(newest).values())


def test_gradients_that_are_not_finite_leave_the_weights_alone():
    model = torch.nn.Linear(2, 1, bias=False)
    before = model.weight.detach().clone()
    optimizer, precision = torch.optim.Adam(model.parameters()), Precision()
    precision.backward(model(torch.tensor([[1.0, float("inf")]])).sum())
    with pytest.raises(NonFiniteLoss, match="gradient is inf"):
        precision.update(optimizer, model)
    assert torch.equal(model.weight, before)


def test_accumulated_batches_make_the_step_of_one_large_batch():
    data, grads = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), []
    for accumulation in (1, 4):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        precision = Precision(HParams(accumulation=accumulation, clip_grad=0.5))
        for number, part in enumerate(data.chunk(accumulation)):
            precision.last = number == accumulation - 1
            precision.backward(model(part).square().mean())
            scalars = precision.update(optimizer, model)
            assert bool(scalars) == precision.last
        grads.append((scalars["grad_norm"], model.weight.detach().clone()))
    torch.testing.assert_close(grads[0], grads[1])
    assert grads[0][0] > 0.5  # clipped: the step is as long as half the rate
    torch.manual_seed(0)
    first = torch.nn.Linear(3, 1)
    moved = torch.cat([(model.weight - first.weight).flatten(), model.bias - first.bias]).norm()
    assert float(moved) == pytest.approx(0.05, rel=1e-3)


def test_two_optimizers_share_the_scale_of_float16(tmp_path):
    """Closed form of the hq training's updates: an infinite gradient skips the step of its own
    optimizer only, and one or two of them halve the scale once.
    """

    def networks():
        made = {prefix: torch.nn.Linear(1, 1, bias=False) for prefix in ("", "disc_")}
        for model in made.values():
            model.width, model.img_size = 1, 96
            torch.nn.init.ones_(model.weight)
        return {k: (m, torch.optim.SGD(m.parameters(), lr=0.25)) for k, m in made.items()}

    def step(*gradients):
        for (model, optimizer), gradient in zip(parts.values(), gradients, strict=True):
            precision.backward(model(torch.tensor([[gradient]])).sum())
            precision.update(optimizer, model)
        precision.end_step()
        return [model.weight.item() for model, _ in parts.values()], precision.scaler.get_scale()

    hp, parts = HParams(amp="float16"), networks()
    precision = Precision(hp)
    assert step(1.0, 1e38) == ([0.75, 1.0], 2**15)
    assert step(1e38, 1.0) == ([0.75, 0.75], 2**14)
    assert step(1e38, 1e38) == ([0.75, 0.75], 2**13)
    assert step(1.0, 2.0) == ([0.5, 0.25], 2**13)
    checkpoints = Checkpoints(str(tmp_path), hp, parts, precision)
    checkpoints.save(checkpoints.resume({}))
    kept, precision, parts = precision.scaler.state_dict(), Precision(hp), networks()
    Checkpoints(str(tmp_path), hp, parts, precision).resume({})
    assert precision.scaler.state_dict() == kept and kept["_growth_tracker"] == 1
    assert step(1e38, 1.0) == ([0.5, 0.0], 2**12)


# float16 with the small network: CPUs convolve it slowly
@pytest.mark.parametrize(
    ("script", "amp", "batch"), [("hq_wav2lip_train.py", "bfloat16", 1), (EXPERT, "float16", 2)]
)
def test_mixed_precision_trains(
    preprocessed_root, synthetic_root, trained_expert, tmp_path, script, amp, batch
):
    extra = () if script == EXPERT else ("--syncnet_checkpoint_path", trained_expert)
    train(script, preprocessed_root, synthetic_root, tmp_path, "--amp", amp, *extra, nsteps=1,
          accumulation=2, channels_last=True, batch_size=batch, syncnet_batch_size=batch,
          eval_windows=1)  # fmt: skip
    saved = torch.load(tmp_path / "ckpt/checkpoint_step000000001.pth", weights_only=True)
    assert all(value.dtype != getattr(torch, amp) for value in saved["state_dict"].values())
    assert all(value.isfinite().all() for value in saved["state_dict"].values())
    assert saved["sampler"] == {"samples": 2 * batch}
    assert (saved["scaler"] is not None) == (amp == "float16")


def test_the_average_follows_the_weights():
    model = torch.nn.BatchNorm1d(1)  # its weight is 1
    ema = Ema(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(12.0)
        ema.update(model, 1)  # young: 1 / 11 of the old
        assert float(ema.model.weight) == pytest.approx(11)
        for step, value in enumerate([2.0] * 200, 1):
            model.weight.fill_(value)
            model.running_mean.fill_(step)
            ema.update(model, step)
    assert float(ema.model.weight.detach()) == pytest.approx(2.0, abs=1e-4)
    assert float(ema.model.running_mean) == 200
    model.weight.detach().fill_(3.0)
    ema.update(model, 201)
    assert float(ema.model.weight.detach()) == pytest.approx(2.1, abs=1e-3)


def test_the_ramp_is_linear_behind_the_gate():
    hp = HParams(syncnet_wt_ramp=10)
    closed = {"global_step": 50, "gate_step": -1, "syncnet_wt": 0.0}
    assert sync_weight(closed, hp) == 0
    opened = [sync_weight({"global_step": step, "gate_step": 100, "syncnet_wt": 0.03}, hp)
              for step in (100, 104, 109, 500)]  # fmt: skip
    assert opened == pytest.approx([0.003, 0.015, 0.03, 0.03])
    assert (
        sync_weight({"global_step": 100, "gate_step": 100, "syncnet_wt": 0.03}, HParams()) == 0.03
    )


def test_random_numbers_go_on_after_a_resume(tmp_path):
    model = create_model("SyncNet_color", 0.125)
    parts = {"": (model, torch.optim.Adam(model.parameters()))}
    checkpoints = Checkpoints(str(tmp_path), HParams(width=0.125), parts, Precision())
    state = checkpoints.resume({"": None})
    checkpoints.save(state | {"global_step": 1, "samples": 7})
    drawn = [random.random(), np.random.rand(), torch.rand(1).item()]
    assert checkpoints.resume({"": None})["samples"] == 7
    assert [random.random(), np.random.rand(), torch.rand(1).item()] == drawn


@pytest.mark.parametrize("keep", [True, False])
def test_the_optimizer_goes_on_where_its_state_is_kept(tmp_path, keep):
    model = create_model("SyncNet_color", 0.125)
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    hp = HParams(width=0.125, save_optimizer_state=keep)
    checkpoints = Checkpoints(str(tmp_path), hp, {"": (model, optimizer)}, Precision())
    checkpoints.save(checkpoints.resume({"": None}) | {"global_step": 1})
    fresh = create_model("SyncNet_color", 0.125)
    other = torch.optim.Adam(fresh.parameters())
    parts = {"": (fresh, other)}
    assert Checkpoints(str(tmp_path), hp, parts, Precision()).resume({"": None})["global_step"] == 1
    assert equal(fresh.state_dict(), model.state_dict())
    assert len(other.state_dict()["state"]) == (len(optimizer.state_dict()["state"]) if keep else 0)
