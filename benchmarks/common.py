"""What the benchmarks share: arguments, one clock, one report, a process apart, a talking face."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import math
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from errors import InputError, require_file
from lipsync.options import positive, seconds
from models.device import core_count

PACKAGES = ("torch", "openvino", "onnxruntime", "opencv-python", "av")
TALK_SIZE = (1280, 720)  # width, height
CYCLE = 8  # seconds of synthetic talk; longer videos repeat them
# fmt: off
SHARED = {  # flags of several benchmarks: their help, and what else argparse is told
    "face": ("video or picture; default: a synthetic speaker, 1280x720", {}),
    "audio": ("speech; belongs to --face", {}),
    "checkpoint_path": ("generator; default: full size, random weights", {"metavar": "FILE"}),
    "data_root": ("preprocessed clips; default: synthetic ones, made for the occasion", {}),
    "filelists": ("folder of their lists, train.txt ...; needed with --data_root", {}),
    "workers": ("of the loader; default %(default)s", {"type": positive, "default": 1}),
    "clips": ("synthetic clips of 8 s; default %(default)s", {"type": positive, "default": 8}),
    "device": ("auto, cpu, cuda, cuda:1 ...", {"default": "auto"}),
    "repeats": ("the best one counts; default %(default)s", {"type": positive, "default": 3}),
    "json": ("write the figures there too", {"metavar": "FILE"}),
}
# fmt: on
TOGETHER = ("face", "audio"), ("data_root", "filelists")


class OutOfMemory(InputError):
    """What was to be measured does not fit."""


def add_shared(parser: argparse.ArgumentParser, *flags: str, span: float, of: str) -> None:
    """Some of the SHARED flags; and --seconds, with its default and what they are of."""
    for flag in flags:
        text, more = SHARED[flag]
        parser.add_argument(f"--{flag}", help=text, **more)
    of += "; default %(default)g"
    parser.add_argument("--seconds", type=seconds, default=span, help=of)


def check_shared(args: argparse.Namespace) -> None:
    """Before minutes of measuring: InputError where what the SHARED flags name cannot be used."""
    given = vars(args)
    for one, other in TOGETHER:
        if bool(given.get(one)) != bool(given.get(other)):
            raise InputError(f"--{one} and --{other} belong together")
    if given.get("face") and (given.get("memory_minutes") or given.get("batches")):
        raise InputError("--face does not go with --memory_minutes or --batches")
    path = given.get("json")
    if path and (os.path.isdir(path) or not os.path.isdir(os.path.dirname(path) or ".")):
        raise InputError(f"--json {path} cannot be written: it is a folder, or in none")
    for what in ("face", "audio", "checkpoint_path"):
        if given.get(what):
            require_file(given[what], what.removesuffix("_path"))


def circumstances() -> dict:
    """Machine, date, threads, how busy the machine was, and versions: for the report."""
    import psutil
    import torch

    name = platform.processor() or "unknown processor"
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo") as file:
        name = next(line.split(":", 1)[1].strip() for line in file if line[:10] == "model name")
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "machine": f"{name}, {core_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "load_at_start": round(psutil.getloadavg()[0], 1),  # runnable threads, others' included
        "versions": versions,
    }


def report(
    args: argparse.Namespace, title: str, facts: dict, tables: list[tuple[list[dict], dict]],
    *notes: str, **content: object,
) -> None:  # fmt: skip
    """Print where, when and with what, each of `tables` (see print_table) and the notes; where
    --json asks for it, write the `circumstances` and the content.
    """
    from media.files import write_json

    where = facts["machine"] + (f", {facts['gpu']}" if facts["gpu"] else "")
    print(f"{title}: {where}, {facts['threads']} threads, {facts['date']}, "
          f"load {facts['load_at_start']:g} at the start")  # fmt: skip
    print(", ".join(f"{name} {version}" for name, version in facts["versions"].items()))
    for number, (rows, columns) in enumerate(tables):
        print("\n" * (number > 0), end="")
        print_table(rows, columns)
    print(*notes, sep="\n")
    if args.json is not None:
        write_json(args.json, facts | content, indent=2)


def print_table(rows: list[dict], columns: dict[str, str]) -> None:
    """A Markdown table, its first column left and the others right. columns: title -> the key in
    each of `rows`, or a format of several.
    """
    cells = [
        [_cell(row[key]) if key in row else key.format(**row) for key in columns.values()]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for first, *others in (list(columns), rule, *cells):
        line = [first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]
        print("| " + " | ".join(line) + " |", flush=True)


def _cell(value: object) -> str:
    """Three digits that count of a number."""
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def call_seconds(step: Callable[[], object], span: float = 0.0) -> float:
    """Mean seconds of a call of `step`, of one or of as many as fill `span` seconds."""
    start, calls, took = time.perf_counter(), 0, -1.0
    while took < span:
        step()
        calls, took = calls + 1, time.perf_counter() - start
    return took / calls


def best_times(
    steps: dict[Hashable, Callable[[], object]], repeats: int, what: str, span: float = 0.0
) -> dict[Hashable, float]:
    """call_seconds of each step, the best of `repeats` rounds; each round takes every step, so that
    what else the machine does meets them alike.
    """
    from tqdm import tqdm

    best = dict.fromkeys(steps, math.inf)
    rounds = [(key, step) for _ in range(repeats) for key, step in steps.items()]
    for key, step in tqdm(rounds, what, disable=None):
        best[key] = min(best[key], call_seconds(step, span))
    return best


def apart(work: Callable, *args: object):
    """work(*args) in a fresh process, whose peak of memory is its own. OutOfMemory where it is
    killed.
    """
    spawn = multiprocessing.get_context("spawn")  # a forked child begins with its parent's pages
    try:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            return pool.submit(work, *args).result()
    except BrokenProcessPool as error:
        raise OutOfMemory("the measured process was killed: is there enough memory?") from error


def random_checkpoint(path: str, name: str, width: float = 1.0, img_size: int = 96) -> str:
    """A model's file with weights as they are drawn: time does not depend on them."""
    import torch

    from models import create_model
    from models.checkpoint import describe_model, save_checkpoint

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(name, width, img_size)
    save_checkpoint(path, {"state_dict": model.state_dict(), "model": describe_model(model)})
    return path


def write_talk(folder: str, length: float) -> tuple[str, str]:
    """A synthetic speaker in a video of at least `length` seconds, and as much speech: two
    paths. CYCLE seconds are drawn and encoded, and repeated.
    """
    import cv2
    import numpy as np

    from audio import save_wav
    from media.write import VideoWriter
    from synthetic.corpus import FPS, SAMPLE_RATE, synthesize_clip

    frames, wave, _ = synthesize_clip(0, 0, 1, min(length, CYCLE), (256,))
    cycle, video, speech = (
        os.path.join(folder, name) for name in ("cycle.mp4", "face.mp4", "speech.wav")
    )
    width, height = TALK_SIZE
    left = (width - height) // 2
    with VideoWriter(cycle, FPS) as writer:
        for frame in frames:
            canvas = np.full((height, width, 3), 110, np.uint8)
            canvas[:, left : left + height] = cv2.resize(frame, (height, height))
            writer.write(canvas)
    save_wav(np.resize(wave, round(length * SAMPLE_RATE)), speech)
    repeat_video(cycle, video, math.ceil(length * FPS / len(frames)))
    return video, speech


def repeat_video(source: str, path: str, times: int) -> None:
    """The pictures of `source` so many times, without encoding them again."""
    import av

    with av.open(source) as first, av.open(path, "w") as out:
        stream = first.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for index in range(times):
            first.seek(0)
            for packet in first.demux(stream):
                if packet.dts is None:  # the end
                    continue
                packet.pts += index * stream.duration
                packet.dts += index * stream.duration
                packet.stream = copy
                out.mux(packet)
