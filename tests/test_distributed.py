"""Several processes (gloo, on the CPU) do what one does."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from conftest import run_script

from training import distributed
from training.setup import EndlessSampler

STEPS = Path(__file__).resolve().parent / "ddp_steps.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def run_steps(out, *launcher):
    subprocess.run([sys.executable, *launcher, str(STEPS), str(out)], check=True, timeout=300)
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    return run_steps(folder / "one.pth"), run_steps(folder / "two.pth", *TORCHRUN)


@pytest.mark.parametrize("name", ["expert", "wav2lip", "hq", "disc"])
def test_two_processes_train_as_one_with_twice_the_batch(states, name):
    one, two = (state[name] for state in states)
    assert one.keys() == two.keys()  # no `module.`: files travel both ways
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=0, atol=1e-5, msg=f"{name} {key}")


def test_the_stream_of_samples_is_shared_out_in_order():
    whole = list(islice(iter(EndlessSampler(7, seed=3, start=5)), 24))
    parts = [
        list(islice(iter(EndlessSampler(7, 3, 5, batch_size=4, rank=rank, processes=2)), 12))
        for rank in (0, 1)
    ]
    rounds = [part[i : i + 4] for i in (0, 4, 8) for part in parts]
    assert sum(rounds, []) == whole


def test_one_process_needs_no_group():
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.mean_of({"a": 2.0}) == {"a": 2.0} and not distributed.any_process(False)


@pytest.mark.parametrize("script", ["color_syncnet_train.py", "hq_wav2lip_train.py"])
def test_torchrun_trains_and_logs_once(
    script, preprocessed_root, synthetic_root, trained_expert, tmp_path
):
    import json

    from conftest import REPOSITORY

    extra = () if script.startswith("color") else ("--syncnet_checkpoint_path", trained_expert)
    result = run_script(
        *TORCHRUN, REPOSITORY / script, "--data_root", preprocessed_root,
        "--filelists", synthetic_root / "filelists", "--checkpoint_dir", tmp_path / "c",
        "--log_dir", tmp_path / "r", "--device", "cpu", *extra, "--hparams", "width=0.125",
        "batch_size=1", "syncnet_batch_size=2", "num_workers=0", "log_interval=1", "nsteps=2",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "r/c/metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["split"]) for line in lines] == [
        (1, "train"), (2, "train"), (2, "val")
    ]  # fmt: skip
    state = torch.load(tmp_path / "c/checkpoint_step000000002.pth", weights_only=True)
    assert state["sampler"]["samples"] == 2 * 2 * (2 if script.startswith("color") else 1)
