import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, assert_refused, run_script

import benchmark
from benchmarks import generator as benchmark_generator
from benchmarks import inference as benchmark_inference
from benchmarks.common import best_times, random_checkpoint, repeat_video
from benchmarks.generator import EagerBackend
from media.read import iter_frames
from media.write import VideoWriter
from models import create_model
from models.checkpoint import load_model
from models.cost import frame_flop

FACTS = {"machine", "gpu", "date", "threads", "load_at_start", "versions"}


def run(*argv):
    """In this process, which has loaded torch already."""
    benchmark.main(benchmark.get_args_parser().parse_args([str(word) for word in argv]))


def test_speed_of_every_stage_and_of_the_whole(
    weights, synthetic_root, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(benchmark_inference, "apart", lambda work, *args: work(*args))
    video, report = next(synthetic_root.glob("mvlrs_v1/main/*/*.mp4")), tmp_path / "report.json"
    run("inference", "--face", video, "--audio", video, "--checkpoint_path", weights,
        "--seconds", 0.4, "--backends", "torch", "--repeats", 1, "--device", "cpu",
        "--json", report)  # fmt: skip
    found, out = json.loads(report.read_text()), capsys.readouterr().out
    assert set(found) == FACTS | {"settings", "engines", "stages", "runs"}
    assert found["settings"]["frames"] == 10 and found["settings"]["fps"] == 25
    stages = {
        (row["stage"], row["way"], row["face"]): row["ms_per_frame"] for row in found["stages"]
    }
    ways = [("speech", ""), ("decode", ""), ("detect", "centerface"), ("generate", "eager"),
            ("generate", "torch"), ("paste", ""), ("encode", "")]  # fmt: skip
    assert set(stages) == {(*way, kind) for way in ways for kind in ("video", "still")}
    assert min(stages.values()) > 0
    assert len(found["runs"]) == 4
    for row in found["runs"]:
        assert row["frames_per_second"] == pytest.approx(10 / row["seconds"])
        assert row["times_real_time"] == pytest.approx(0.4 / row["seconds"])
        assert row["peak_mb"] >= row["growth_mb"] >= 0 and row["frames"] == 10
        assert row["speedup"] == 1 or row["backend"] == "torch"
    assert "| generate eager " in out and "| torch, centerface, still " in out


def test_memory_in_a_process_of_its_own(weights, tmp_path, capsys):
    report = tmp_path / "report.json"
    run("inference", "--memory_minutes", 0.01, "--checkpoint_path", weights, "--backends", "torch",
        "--device", "cpu", "--json", report)  # fmt: skip
    (row,) = json.loads(report.read_text())["memory"]
    assert row["ratio"] == 1 and row["frames"] == 15
    assert row["peak_mb"] > row["growth_mb"] > 0
    assert "| torch, centerface |" in capsys.readouterr().out


def test_generator_alone(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_generator, "SPAN", 0.01)
    report = tmp_path / "report.json"
    run("inference", "--batches", 3, 1, "--checkpoint_path", weights, "--repeats", 1,
        "--device", "cpu", "--backends", "torch", "openvino", "--json", report)  # fmt: skip
    found = json.loads(report.read_text())
    assert [(row["way"], row["batch"]) for row in found["generator"]] == [
        (way, batch) for batch in (1, 3) for way in ("eager", "torch", "openvino")]  # fmt: skip
    for row in found["generator"]:
        assert row["tflops"] * 1000 == pytest.approx(
            row["frames_per_second"] * found["gflop_per_frame"]
        )
        share = row["tflops"] / found["matmul_tflops"]["float32"]
        assert row["share_of_matmul"] == pytest.approx(share)


def test_operations_of_the_released_generator():
    assert frame_flop(create_model("Wav2Lip")) == pytest.approx(7.93e9, rel=1e-3)


def test_the_released_way_makes_the_same_frames(filled_generator):
    from backends.api import create_backend

    random = np.random.default_rng(0)
    faces = random.integers(0, 256, (2, 96, 96, 3), np.uint8)
    mels = random.uniform(-4, 4, (2, 80, 16)).astype(np.float32)
    eager = EagerBackend(load_model(filled_generator, "Wav2Lip"), torch.device("cpu"))
    ours = create_backend(load_model(filled_generator, "Wav2Lip"), "cpu", "torch")
    difference = eager.generate(faces, mels).astype(int) - ours.generate(faces, mels)
    assert np.abs(difference).max() <= 1


def test_random_checkpoints_are_full_size_and_the_same(tmp_path):
    first, second = (random_checkpoint(tmp_path / name, "Wav2Lip") for name in ("a", "b"))
    model, again = load_model(first, "Wav2Lip"), load_model(second, "Wav2Lip")
    assert sum(p.numel() for p in model.parameters()) == 36298035
    assert all(map(torch.equal, model.parameters(), again.parameters()))


def test_a_repeated_video_has_all_frames_in_order(tmp_path):
    levels = range(40, 200, 20)
    with VideoWriter(tmp_path / "one.mp4", 25) as writer:
        for level in levels:
            writer.write(np.full((64, 64, 3), level, np.uint8))
    repeat_video(str(tmp_path / "one.mp4"), str(tmp_path / "three.mp4"), 3)
    times, frames = zip(*iter_frames(tmp_path / "three.mp4"), strict=True)
    assert [round(frame.mean() / 20) * 20 for frame in frames] == list(levels) * 3
    assert np.diff(times) == pytest.approx(0.04)


def test_every_round_takes_each_step_once():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert set(best_times(steps, 3, "")) == {"a", "b"}
    assert calls == ["a", "b"] * 3


@pytest.mark.parametrize(
    ("argv", "word"),
    [(["--face", "x.mp4"], "--audio"), (["--face", "/no.mp4", "--audio", "/no.wav"], "/no.mp4"),
     (["--checkpoint_path", "/no.pth"], "/no.pth"), (["--json", "/no/where.json"], "/no/where"),
     (["--face", "x", "--audio", "x", "--batches", 1], "--batches")],
)  # fmt: skip
def test_bad_settings(argv, word):
    assert_refused(run_script("benchmark.py", "inference", *argv), word)


@pytest.mark.parametrize(
    "argv", [["inference", "--seconds", "0"], ["inference", "--batches", "0"],
             ["inference", "--backends", "x"], ["inference", "--memory_minutes", "-1"],
             ["inference", "--batches", "1", "--memory_minutes", "1"],
             ["data", "--seconds", "0"], ["data", "--workers", "0"], ["data", "--clips", "0"]],
)  # fmt: skip
def test_bad_arguments(argv, capsys):
    with pytest.raises(SystemExit) as end:
        benchmark.get_args_parser().parse_args(argv)
    assert end.value.code == 2 and "error:" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["data"], ["inference"]])
def test_help_loads_nothing_heavy(command):
    code = (
        "import sys, benchmark\n"
        f"try: benchmark.get_args_parser().parse_args({command!r} + ['-h'])\n"
        "except SystemExit: print('HEAVY', {'torch', 'cv2', 'av', 'scipy'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            cwd=REPOSITORY)  # fmt: skip
    assert "usage:" in result.stdout and "HEAVY set()" in result.stdout, result.stderr
