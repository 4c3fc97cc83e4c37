"""Peak memory of inference, each run in a process of its own."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from benchmarks.common import (
    circumstances,
    headline,
    number,
    print_table,
    write_report,
    write_talk,
)
from errors import InputError
from face_detection.arguments import detector_options


def memory_benchmark(checkpoint: str, folder: str, args: argparse.Namespace) -> None:
    """Print the peak for each of --memory_minutes, by back end, with the first detector."""
    from tqdm import tqdm

    from audio import save_wav
    from media.read import load_audio

    facts, detector = circumstances(), args.detectors[0]
    lengths = sorted(set(args.memory_minutes))
    video, speech = write_talk(folder, 60 * lengths[-1])
    wav, rows = load_audio(speech), []
    jobs = [(backend, length) for backend in args.backends or ["auto"] for length in lengths]
    for backend, length in tqdm(jobs, "lengths", disable=not sys.stderr.isatty()):
        cut = os.path.join(folder, "cut.wav")
        save_wav(wav[: round(60 * length * 16000)], cut)
        found = peak_memory(
            {
                "backend": backend,
                "detector": detector,
                "checkpoint": checkpoint,
                "device": args.device,
                "detector_options": detector_options(args, detector),
                "face": video,
                "audio": cut,
                "static": False,
            }
        )
        shortest = next((row for row in rows if row["backend"] == backend), found)
        ratio = found["peak_mb"] / shortest["peak_mb"]
        rows.append({"backend": backend, "detector": detector, "minutes": length, "ratio": ratio})
        rows[-1] |= found
    print(headline("peak memory of inference, 1280x720", facts))
    names = ("minutes", "frames", "peak_mb", "growth_mb", "ratio", "run_seconds")
    header = ("back end", "minutes", "frames", "peak MB", "growth MB", "ratio", "seconds")
    print_table(
        header, [(f"{row['backend']}, {detector}", *(cell(row, n) for n in names)) for row in rows]
    )
    print("ratio: of the peak to that of the shortest; growth: after the packages were loaded.")
    write_report(args.json, facts, {"memory": rows})


def cell(row: dict, name: str) -> str:
    return str(row[name]) if name == "frames" else number(row[name])


def peak_memory(job: dict) -> dict:
    """Runs LipSync.run in a fresh process: {"peak_mb", "growth_mb", "frames", "run_seconds"}.

    job: checkpoint, device, backend (or "eager"), detector, detector_options, face, audio, static.
    MB are 2**20 bytes. InputError where the process is killed, as it is where memory ends.
    """
    spawn = multiprocessing.get_context("spawn")  # a forked child begins with its parent's pages
    try:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            return pool.submit(run_job, job).result()
    except BrokenProcessPool as error:
        raise InputError("the measured process was killed: is there enough memory?") from error


def run_job(job: dict) -> dict:
    """`peak_memory`'s work, in its process."""
    import av  # noqa: F401  (imported here so that growth is without the packages)
    import cv2  # noqa: F401
    import torch  # noqa: F401

    from benchmarks.engines import EAGER, EagerBackend
    from lipsync.engine import LipSync
    from models.checkpoint import load_generator

    before, start = status_mb("VmRSS"), time.perf_counter()
    eager = job["backend"] == EAGER
    lipsync = LipSync(
        job["checkpoint"],
        job["device"],
        job["detector"],
        job["detector_options"],
        "torch" if eager else job["backend"],
    )
    if eager:
        lipsync.backend = EagerBackend(load_generator(job["checkpoint"]), lipsync.device)
    out = os.path.join(os.path.dirname(job["audio"]), "memory.mp4")
    made = lipsync.run(job["face"], job["audio"], out, static=job["static"])
    peak = status_mb("VmHWM")
    took = time.perf_counter() - start  # loading and converting included
    return {
        "peak_mb": peak,
        "growth_mb": peak - before,
        "frames": made.frames,
        "run_seconds": took,
    }


def status_mb(name: str) -> float:
    """A size of this process. Not getrusage: its ru_maxrss also counts the parent's pages, which a
    child has until its own program is loaded.
    """
    with open("/proc/self/status", encoding="utf-8") as file:
        sizes = dict(line.split(":", 1) for line in file)
    return int(sizes[name].split()[0]) / 1024
