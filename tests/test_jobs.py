"""lipsync/jobs.py: a manifest's jobs here and in workers, their log, and what a kill costs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from conftest import GOLDEN, REPOSITORY, assert_refused, is_deaf_to_interrupts, run_script

from audio import save_wav
from errors import InputError
from inference import get_args_parser
from lipsync.jobs import read_manifest, run_manifest
from lipsync.options import options_from
from media.read import iter_frames, probe

SOURCES = ("face25.mkv", "face.png", "speech.wav")
BOX, PICTURE_BOX = "30 170 40 150", "40 200 60 190"


@pytest.fixture
def folder(tmp_path):
    for name in SOURCES:
        shutil.copy(GOLDEN / "inference" / name, tmp_path)
    return tmp_path


def manifest(folder, *rows, header="face,audio,outfile,box", encoding="utf-8"):
    path = folder / "jobs.csv"
    path.write_text("\n".join((header, *rows)) + "\n", encoding=encoding)
    return path


def arguments(weights, path, *argv) -> argparse.Namespace:
    return get_args_parser().parse_args(
        ["--checkpoint_path", str(weights), "--device", "cpu", "--backend", "torch",
         "--manifest", str(path), *map(str, argv)]
    )  # fmt: skip


def run(weights, path, *argv) -> int:
    args = arguments(weights, path, *argv)
    return run_manifest(args, options_from(args))


def log(path):
    lines = (path.parent / (path.name + ".status.jsonl")).read_text().splitlines()
    return [(entry["outfile"], entry["status"]) for entry in map(json.loads, lines)]


def counts(text):
    lines = [line.split() for line in text.splitlines()]
    return {words[0]: int(words[1]) for words in lines if words[0] in COUNTS}


COUNTS = ("done", "failed", "unchanged")


def three_jobs(folder):
    return manifest(
        folder,
        f"face25.mkv,speech.wav,out/é 1.mkv,{BOX}",
        f"face25.mkv,later.wav,out/2.mkv,{BOX}",
        f"face.png,speech.wav,out/3.mp4,{PICTURE_BOX}",
        encoding="utf-8-sig",
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_fails_does_not_stop_the_others(weights, folder, capsys, workers):
    path = three_jobs(folder)
    assert run(weights, path, "--workers", workers, "--log_dir", folder / "logs") == 1
    lines = (folder / "logs/inference/processing.log").read_text().splitlines()
    assert sum(' status="done" frames=' in line for line in lines) == 2 and len(lines) == 3
    said = capsys.readouterr()
    assert counts(said.out) == {"done": 2, "failed": 1, "unchanged": 0}
    assert "line 3: out/2.mkv: audio not found" in said.err
    assert sorted(os.listdir(folder / "out")) == ["3.mp4", "é 1.mkv"]
    ended = {"out/é 1.mkv": "done", "out/2.mkv": "failed", "out/3.mp4": "done"}
    assert dict(log(path)) == ended


def test_jobs_are_done_once_and_failed_ones_again(weights, folder, capsys):
    path = three_jobs(folder)
    assert run(weights, path) == 1
    made = (folder / "out" / "3.mp4").stat().st_mtime_ns
    save_wav(np.zeros(4800, np.float32), folder / "later.wav")
    capsys.readouterr()
    assert run(weights, path) == 0
    assert counts(capsys.readouterr().out) == {"done": 1, "failed": 0, "unchanged": 2}
    assert (folder / "out" / "3.mp4").stat().st_mtime_ns == made
    os.remove(folder / "out" / "2.mkv")  # an output that is gone is made again
    os.utime(folder / "face.png", ns=(1, 1))  # and one whose face has changed
    with open(f"{path}.status.jsonl", "a", encoding="utf-8") as file:
        file.write('{"outfile": "out/é 1.mkv", "stat')  # a line that a kill cut short
    assert run(weights, path) == 0
    assert counts(capsys.readouterr().out) == {"done": 2, "failed": 0, "unchanged": 1}
    assert run(weights, path, "--workers", 2) == 0
    assert counts(capsys.readouterr().out) == {"done": 0, "failed": 0, "unchanged": 3}


def test_a_row_s_flags_come_before_those_of_the_command_line(weights, folder):
    path = manifest(
        folder,
        f'face25.mkv,speech.wav,1.mkv,"{BOX}",0 20 0 0,true,-45,2.5,3 4,',
        "face25.mkv,speech.wav,2.mkv,,,,,,,",
        header="face,audio,outfile,box,pads,rotate,silence_gate,fps,target,pad",
    )
    args = arguments(weights, path, "--pads", 1, 2, 3, 4, "--pad", "hold")
    with pytest.raises(InputError, match="line 2, column 'target': '3 4': .*not a point"):
        read_manifest(args, options_from(args))
    path.write_text(path.read_text().replace("3 4", '"3,4"'))
    first, second = (job.options for job in read_manifest(args, options_from(args)))
    assert (first["box"], first["pads"]) == ((30, 170, 40, 150), [0, 20, 0, 0])
    assert (first["rotate"], first["silence_gate"], first["fps"]) == (True, -45, 2.5)
    assert (first["target"], first["pad"]) == ((3, 4), "hold")
    assert second == options_from(args)


def test_what_the_frames_depend_on_is_in_a_job_s_key(weights, folder):
    path = manifest(folder, "face25.mkv,speech.wav,1.mkv,")

    def key(*argv):
        args = arguments(weights, path, *argv)
        return read_manifest(args, options_from(args))[0].key

    assert key() == key("--workers", 2)
    for argv in (("--int8",), ("--det_size", 320), ("--detector", "sfd"), ("--paste", "hard"),
                 ("--s3fd_weights", weights)):  # fmt: skip
        assert key() != key(*argv), argv


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        ("face,audio,outfile,pds", ["a,b,c,"], "line 1: unknown column 'pds'.*pads"),
        ("face,audio", ["a,b"], "line 1: no column 'outfile'"),
        ("face,audio,outfile,face", ["a,b,c,d"], "column 'face' is there twice"),
        ("face,audio,outfile", [], "has no job"),
        ("face,audio,outfile", ["a,b,c", "", "a,,d"], "line 4: column 'audio' is empty"),
        ("face,audio,outfile", ["a,b,c,d"], "line 2: more cells"),
        ("face,audio,outfile,pads", ["a,b,c,0 1 2"], "line 2, column 'pads': '0 1 2'.*expected 4"),
        ("face,audio,outfile,paste", ["a,b,c,glue"], "line 2, column 'paste'.*invalid choice"),
        ("face,audio,outfile,rotate", ["a,b,c,maybe"], "column 'rotate'.*neither true nor false"),
        ("face,audio,outfile,det_every", ["a,b,c,0"], "column 'det_every'.*at least 1"),
        ("face,audio,outfile", ["a,b,c.mp4", "d,e,./c.mp4"], "lines 2 and 3 both make"),
        ("face,audio,outfile", ["a,b,c.mp4", "c.mp4,e,f.mp4"], "line 2 would replace c.mp4"),
        ("face,audio,outfile", ['a,"b,c'], "no CSV"),
    ],
)
def test_a_manifest_that_cannot_be_used(weights, folder, header, rows, words):
    path = manifest(folder, *rows, header=header)
    before = set(os.listdir(folder))
    with pytest.raises(InputError, match=words):
        run(weights, path)
    assert set(os.listdir(folder)) == before


def test_the_command_ends_with_2_where_all_would_fail(folder):
    path = manifest(folder, f"face.png,speech.wav,o.mp4,{PICTURE_BOX}")
    (folder / "page.pth").write_bytes(b"<!DOCTYPE html><html></html>")
    for workers in (1, 2):
        argv = ("--checkpoint_path", folder / "page.pth", "--manifest", path, "--device", "cpu")
        result = run_script("inference.py", *argv, "--workers", workers)
        assert_refused(result, "web page")
        assert not (folder / "o.mp4").exists()


def long_jobs(folder, count=4):
    """Jobs of a minute or more each on a large frame."""
    picture = cv2.resize(cv2.imread(str(folder / "face.png")), (1920, 1920))
    cv2.imwrite(str(folder / "large.png"), picture)
    save_wav(np.zeros(16000 * 300, np.float32), folder / "long.wav")
    rows = [f"large.png,long.wav,out/{number}.mkv,300 1500 450 1400" for number in range(count)]
    return rows


@pytest.fixture
def started(weights):
    """started(manifest) -> the process of its two workers' parent; none outlives a failing test."""
    processes = []

    def start(path):
        argv = [sys.executable, str(REPOSITORY / "inference.py"), "--checkpoint_path", str(weights),
                "--manifest", str(path), "--workers", "2", "--device", "cpu",
                "--backend", "torch"]  # fmt: skip
        processes.append(subprocess.Popen(
            argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ))  # fmt: skip
        return processes[-1]

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def partial(folder, process, count=1):
    """The numbers of the workers that are writing a video, once there are `count`."""
    while process.poll() is None:
        found = [int(path.name.split(".")[-2]) for path in folder.glob("out/.*.part")]
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(process.communicate())


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_the_workers_and_leaves_nothing(started, folder, number, code):
    process = started(manifest(folder, *long_jobs(folder)))
    workers = partial(folder, process, 2)
    assert all(is_deaf_to_interrupts(pid) for pid in workers)
    if number == signal.SIGINT:  # as a terminal does, to all
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code and "Traceback" not in said, said
    assert os.listdir(folder / "out") == []
    assert not any(is_running(pid) for pid in workers)


def test_a_worker_that_is_killed_costs_its_job(started, folder):
    rows = [long_jobs(folder)[0]]
    rows += [f"face.png,speech.wav,out/{n}.mkv,{PICTURE_BOX}" for n in ("a", "b", "c")]
    path = manifest(folder, *rows)
    process = started(path)
    while not (folder / "out" / "c.mkv").exists():  # the other worker does the rest meanwhile
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (worker,) = partial(folder, process)
    os.kill(worker, signal.SIGKILL)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert counts(out) == {"done": 3, "failed": 1, "unchanged": 0}
    assert "line 2: out/0.mkv: its worker was killed (signal 9)" in said
    assert sorted(os.listdir(folder / "out")) == ["a.mkv", "b.mkv", "c.mkv"]
    assert dict(log(path))["out/0.mkv"] == "failed"
    assert probe(folder / "out" / "a.mkv").has_audio and len(list(iter_frames(
        folder / "out" / "a.mkv"))) > 10  # fmt: skip
