"""Kills at random moments of every long job: nothing is lost, nothing half made passes for
finished, no process stays behind. One kill of each; a hundred in all, in half an hour:

    KILLS=100 python -m pytest tests/test_kills.py
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch
from conftest import GOLDEN, INPUT_ROWS, REPOSITORY, TINY
from warm_python import start_python

from media.read import iter_audio, iter_frames, probe

PROGRAMS = ("preprocess", "expert", "wav2lip", "hq_wav2lip", "manifest", "report")
KILLS = int(os.environ.get("KILLS", len(PROGRAMS)))
SEED = 16
PATIENCE = 30  # seconds that processes have to see that their parent is gone
LEFTOVERS = (".part", ".tmp", ".lock")


@dataclass
class Program:
    """A command, of which each `{}` stands for the folder of its results, and what it has finished
    in such a folder, by name: after a kill a part of what there is at the end, then all.
    """

    argv: list
    finished: Callable[[Path], dict]
    manifest: str = ""  # lies in the folder as jobs.csv

    def start(self, out: Path) -> multiprocessing.process.BaseProcess:
        argv = [str(part).replace("{}", str(out)) for part in self.argv]
        said = out.parent / "said.txt"
        return start_python(argv, REPOSITORY, said, said, own_session=True)


def files(folder):
    """Those that are finished, by their names below the folder."""
    # os.walk: folders come and go meanwhile, at which rglob raises
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    found = {str(path.relative_to(folder)): path for path in paths}
    parts = {name: Path(name).parts for name in found}
    return {
        name: path for name, path in sorted(found.items())
        if not any(part.endswith(LEFTOVERS) for part in parts[name])
    }  # fmt: skip


def digest(*chunks):
    found = hashlib.sha256()
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()


def clips(out):
    return {name: digest(path.read_bytes()) for name, path in files(out).items()}


def plain(value):
    """Of a checkpoint: tensors as digests."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return digest(value.numpy().tobytes()) if isinstance(value, torch.Tensor) else value


def training(out):
    """The state of each step that was saved, its main file last, and each step's numbers."""
    found = {}
    kept = ("state_dict", "ema", "optimizer", "global_step", "global_epoch", "sampler", "best",
            "gate_step", "syncnet_wt")  # fmt: skip
    for path in out.glob("ckpt/checkpoint_step*.pth"):
        for part in (path, path.with_name(f"disc_{path.name}")):
            if part == path or part.exists():
                state = torch.load(part, weights_only=True)
                found[part.name] = plain({key: state.get(key) for key in kept})
    log = out / "runs/ckpt/metrics.jsonl"
    for line in log.read_text().splitlines() if log.exists() else ():
        entry = json.loads(line)
        del entry["time"]
        entry.pop("wait", None)  # seconds
        found[entry["split"], entry["step"]] = entry
    return found


def videos(out):
    """Pictures and sound of each, and what the log says is done."""
    found = {}
    for path in out.glob("*.mkv"):
        pictures = (frame for _, frame in iter_frames(path))
        content = (part.tobytes() for part in (*pictures, *iter_audio(path, 16000)))
        found[path.name] = digest(*content)
    log = out / "jobs.csv.status.jsonl"
    for line in log.read_text().splitlines() if log.exists() else ():
        entry = json.loads(line)
        assert (out / entry["outfile"]).exists()
        found[entry["outfile"], "log"] = entry["status"]
    return found


def without_numbers(value):
    """x264 does not repeat itself bit by bit, and seconds never do."""
    if isinstance(value, dict):
        return {key: without_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_numbers(inner) for inner in value]
    return math.isfinite(value) if isinstance(value, float) else value


def report(out):
    found = {}
    for name, path in files(out).items():
        if path.suffix in (".mp4", ".mkv"):
            found[name] = probe(path), sum(1 for _ in iter_frames(path))
        elif path.suffix == ".json":
            found[name] = without_numbers(json.loads(path.read_text()))
    return found


@pytest.fixture
def program(request, tmp_path, weights, preprocessed_root, synthetic_root, trained_expert):
    """The Program of a name, on the synthetic corpus."""
    name, clips_root = request.param, synthetic_root / "mvlrs_v1" / "main"
    if name == "preprocess":
        argv = ["preprocess.py", "--data_root", clips_root, "--preprocessed_root", "{}", "--ngpu",
                0, "--detector", "boxes", "--workers", 2, "--split", "on", "--max_seconds", 1,
                "--make_filelists", "train=0.5,val=0.5"]  # fmt: skip
        return Program(argv, clips)
    if name == "manifest":
        for source in ("face25.mkv", "speech.wav"):
            shutil.copy(GOLDEN / "inference" / source, tmp_path)
        rows = (f"../face25.mkv,../speech.wav,{n}.mkv,30 170 40 150\n" for n in range(6))
        argv = ["inference.py", "--checkpoint_path", weights, "--device", "cpu", "--backend",
                "torch", "--workers", 2, "--manifest", "{}/jobs.csv"]  # fmt: skip
        return Program(argv, videos, "face,audio,outfile,box\n" + "".join(rows))
    if name == "report":
        (tmp_path / "list.txt").write_text("s0001/00001 s0000/00001\ns0000/00002 s0001/00002\n")
        argv = ["-m", "evaluation.report", "--checkpoint", weights, "--filelist",
                tmp_path / "list.txt", "--data_root", clips_root, "--detector", "centerface",
                "--expert", trained_expert, "--device", "cpu", "--out", "{}"]  # fmt: skip
        return Program(argv, report)
    script = "color_syncnet_train.py" if name == "expert" else f"{name}_train.py"
    argv = [script, "--data_root", preprocessed_root, "--filelists", synthetic_root / "filelists",
            "--checkpoint_dir", "{}/ckpt", "--log_dir", "{}/runs", "--device", "cpu"]  # fmt: skip
    # two networks, two optimizers, an average, a ramp behind the gate
    settings = ["syncnet_checkpoint_interval=1", "syncnet_eval_interval=2"]
    if name != "expert":
        argv += ["--syncnet_checkpoint_path", trained_expert]
        settings = ["checkpoint_interval=1", "eval_interval=2", "ema=0.9", "sync_gate=1000",
                    "syncnet_wt_ramp=3", "batch_size=1"]  # fmt: skip
    argv += ["--hparams", *TINY, "nsteps=4", "num_workers=1", *settings]
    return Program(argv, training)


def alive(session):
    """What still runs of all that a process with this number has started."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


def cpu_seconds(process):
    """Of it and all that it has started: moments by which do not depend on what else runs here."""
    total = 0.0
    for pid in alive(process.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(psutil.Process(pid).cpu_times()[:4])  # those of its ended children, too
    return total


def kill(process):
    """It alone: the number of the others, who must see to it themselves that they end."""
    others = [pid for pid in alive(process.pid) if pid != process.pid]
    process.kill()
    process.join()
    assert_gone(process)
    return len(others)


def assert_gone(process):
    until = time.monotonic() + PATIENCE
    while (left := alive(process.pid)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left, [psutil.Process(pid).cmdline() for pid in left]


def ends(program, out):
    """Run it in peace: the CPU seconds until it had written its first file, and to its end."""
    before = len(files(out))
    begun, spent, process = None, 0.0, program.start(out)
    while process.exitcode is None:
        spent = cpu_seconds(process) or spent
        if begun is None and len(files(out)) > before:
            begun = spent
        process.join(0.05)
    assert process.exitcode == 0, (out.parent / "said.txt").read_text()
    assert_gone(process)
    return begun or 0.0, spent


@pytest.mark.parametrize(("program", "name"), [(p, p) for p in PROGRAMS], indirect=["program"])
def test_killed_at_random_moments_it_ends_as_if_undisturbed(program, name, tmp_path):
    rng, wanted = random.Random(f"{SEED} {name}"), math.ceil(KILLS / len(PROGRAMS))
    kills = others = runs = 0

    def fresh():
        out = tmp_path / f"run {runs}"
        out.mkdir()
        if program.manifest:
            (out / "jobs.csv").write_text(program.manifest)
        return out

    out = fresh()
    begun, ended = ends(program, out)
    whole, names = program.finished(out), set(files(out))
    assert len(whole) >= 6
    while kills < wanted:
        runs += 1
        assert runs <= 5 * wanted  # else all runs end before they are killed
        out, process = fresh(), None
        while kills < wanted:
            process = program.start(out)
            moment = rng.uniform(begun, ended)
            while process.exitcode is None and cpu_seconds(process) < moment:
                process.join(0.05)
            if process.exitcode is not None:
                assert process.exitcode == 0, (tmp_path / "said.txt").read_text()
                break
            others, kills = others + kill(process), kills + 1
            print(f"{name}: kill {kills} in run {runs}", flush=True)
            for key, content in program.finished(out).items():
                assert content == whole[key], key
        else:
            ends(program, out)
        assert program.finished(out) == whole
        if program.finished is not training:  # TensorBoard's names hold the time
            found = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
            assert found == names
        shutil.rmtree(out)
    outcome = f"{kills} kills ({others} processes more) in {runs} runs: nothing lost, none left"
    INPUT_ROWS.append(("killed", name, outcome))
