"""models/shipped.py and training/export.py: weights that a repository can carry, and their use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from conftest import GOLDEN, REPOSITORY, assert_refused, run_script

from models import create_model, shipped
from models.checkpoint import describe_model, load_generator, save_checkpoint
from training.export import exported, halved

FACE = str(GOLDEN / "inference" / "face.png")
SPEECH = str(GOLDEN / "inference" / "speech.wav")
SCRIPTS = {
    "inference": ("--face", FACE, "--audio", SPEECH),
    "realtime": ("--face", FACE, "--audio", SPEECH, "--outfile", "live.mp4"),
    "app": (),
    "evaluation.report": ("--filelist", "l", "--data_root", "d"),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_weights_that_are_absent_are_one_line(script, tmp_path):
    """In the scripts that take them where --checkpoint_path is not given."""
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from pathlib import Path\nfrom models import shipped\n"
        "shipped.GENERATOR = Path('checkpoints/open.pth').resolve()\n"
        f"from {script} import get_args_parser, main\nfrom errors import run_cli\n"
        f"run_cli(main, get_args_parser(), {list(SCRIPTS[script])!r})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert_refused(result, "no generator: checkpoints/open.pth is not there", "give --checkpoint")
    assert os.listdir(tmp_path) == []


def test_a_line_says_which_are_used(weights, monkeypatch, capsys):
    assert shipped.generator_path(weights) == str(weights)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(shipped, "GENERATOR", weights)
    assert shipped.generator_path(None) == str(weights)
    (line,) = capsys.readouterr().err.splitlines()
    assert "--checkpoint_path" in line and line.count(weights.name) == 1
    monkeypatch.setattr(shipped, "EXPERT", weights)
    assert shipped.expert_path(None) == str(weights) and "--expert" in capsys.readouterr().err
    monkeypatch.setattr(shipped, "EXPERT", weights / "none")
    assert shipped.expert_path(None) is None and capsys.readouterr().err == ""


def test_inference_without_a_checkpoint(weights, monkeypatch, capsys, tmp_path):
    from inference import get_args_parser, main

    monkeypatch.setattr(shipped, "GENERATOR", weights)
    out = str(tmp_path / "o.mp4")
    argv = ["--face", FACE, "--audio", SPEECH, "--box", "40", "200", "60", "190", "--device", "cpu"]
    main(get_args_parser().parse_args([*argv, "--backend", "torch", "--outfile", out]))
    told = capsys.readouterr()
    assert os.path.exists(out) and weights.name in told.err and "frames at 25 fps" in told.out


def test_git_keeps_them():
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a clone")
    names = [f"checkpoints/{p.name}" for p in (shipped.GENERATOR, shipped.EXPERT, shipped.SPEAKER)]
    command = ["git", "check-ignore", "--no-index", *names, "checkpoints/wav2lip.pth"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.stdout.split() == ["checkpoints/wav2lip.pth"]


@pytest.fixture
def trained(tmp_path):
    """A checkpoint of a run, with a moving average and an optimizer."""
    torch.manual_seed(0)
    model, averaged = create_model("Wav2Lip", 0.125), create_model("Wav2Lip", 0.125)
    optimizer = torch.optim.Adam(model.parameters())
    content = {
        "state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "global_step": 7,
        "global_epoch": 1, "ema": averaged.state_dict(), "hparams": {"width": 0.125},
        "model": describe_model(model), "scaler": None,
    }  # fmt: skip
    save_checkpoint(tmp_path / "run.pth", content)
    return tmp_path / "run.pth", averaged


def test_export_keeps_the_averaged_weights_in_half(trained, tmp_path):
    path, averaged = trained
    out = tmp_path / "new" / "open.pth"
    argv = ("-m", "training.export", "--checkpoint_path", path, "--out", out)
    result = run_script(*argv)
    assert result.returncode == 0 and "step 7" in result.stdout, result.stderr
    assert os.listdir(out.parent) == ["open.pth"]
    content = torch.load(out, weights_only=True)
    assert content.keys() == {"state_dict", "global_step", "hparams", "model"}
    kinds = {name.rpartition(".")[2]: x.dtype for name, x in content["state_dict"].items()}
    assert kinds.pop("num_batches_tracked") == torch.int64
    assert set(kinds.values()) == {torch.float16}
    loaded, expected = load_generator(out).state_dict(), averaged.state_dict()
    for name, value in loaded.items():
        assert value.dtype == expected[name].dtype
        assert torch.allclose(value, expected[name], rtol=1e-3, atol=1e-7)
    assert os.path.getsize(out) < 0.3 * os.path.getsize(path)
    wrong = ("-m", "training.export", "--checkpoint_path", path, "--out", tmp_path / "open.onnx")
    assert_refused(run_script(*wrong), "does not end in .pth")


def test_what_half_precision_cannot_hold_stays():
    assert halved(torch.tensor([1.0, 7e4])).dtype == torch.float32
    assert halved(torch.tensor([1.0, 6e4])).dtype == torch.float16
    state = {"w": torch.ones(1)}
    assert exported({"state_dict": state, "optimizer": None}).keys() == {"state_dict"}
