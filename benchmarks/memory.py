"""Peak memory of inference, each run in a process of its own."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time

from benchmarks.common import apart, circumstances, print_report, write_report, write_talk
from face_detection.arguments import detector_options
from models.device import memory_bytes


def memory_benchmark(checkpoint: str, folder: str, args: argparse.Namespace) -> None:
    """Print the peak for each of --memory_minutes, by back end, with the first detector."""
    from tqdm import tqdm

    from audio import save_wav
    from media.read import load_audio

    facts, lengths = circumstances(), sorted(set(args.memory_minutes))
    video, speech = write_talk(folder, 60 * lengths[-1])
    wav, cut, rows = load_audio(speech), os.path.join(folder, "cut.wav"), []
    jobs = [(backend, length) for backend in args.backends or ["auto"] for length in lengths]
    for backend, length in tqdm(jobs, "lengths", disable=not sys.stderr.isatty()):
        save_wav(wav[: round(60 * length * 16000)], cut)
        row = {"backend": backend, "detector": args.detectors[0], "minutes": length}
        row |= peak_memory(checkpoint, args, backend, args.detectors[0], video, cut, False)
        shortest = next((other for other in rows if other["backend"] == backend), row)
        rows.append(row | {"ratio": row["peak_mb"] / shortest["peak_mb"]})
    columns = {
        "back end": "{backend}, {detector}", "minutes": "minutes", "frames": "frames",
        "peak MB": "peak_mb", "growth MB": "growth_mb", "ratio": "ratio", "seconds": "run_seconds",
    }  # fmt: skip
    print_report("peak memory of inference, 1280x720", facts, rows, columns)
    print("ratio: of the peak to that of the shortest; growth: after the packages were loaded.")
    write_report(args.json, facts, {"memory": rows})


def peak_memory(
    checkpoint: str, args: argparse.Namespace, backend: str, detector: str, face: str, audio: str,
    static: bool,
) -> dict:  # fmt: skip
    """Runs LipSync.run in a fresh process: {"peak_mb", "growth_mb", "frames", "run_seconds"}, MB of
    2**20 bytes. backend: or "eager". OutOfMemory as `apart`.
    """
    made = (checkpoint, args.device, detector, detector_options(args, detector))
    return apart(run_job, made, backend, face, audio, static)


def run_job(made: tuple, backend: str, face: str, audio: str, static: bool) -> dict:
    """`peak_memory`'s work, in its process. made: arguments of LipSync, but its back end."""
    import av  # noqa: F401  (imported here so that growth is without the packages)
    import cv2  # noqa: F401
    import torch  # noqa: F401

    from benchmarks.engines import EAGER, EagerBackend
    from lipsync.engine import LipSync
    from models.checkpoint import load_generator

    (before, _), start = memory_bytes(), time.perf_counter()
    lipsync = LipSync(*made, "torch" if backend == EAGER else backend)
    if backend == EAGER:
        lipsync.backend = EagerBackend(load_generator(made[0]), lipsync.device)
    out = os.path.join(os.path.dirname(audio), "memory.mp4")
    frames = lipsync.run(face, audio, out, static=static).frames
    _, peak = memory_bytes()
    took = time.perf_counter() - start  # loading and converting included
    sizes = {"peak_mb": peak / 2**20, "growth_mb": (peak - before) / 2**20}
    return sizes | {"frames": frames, "run_seconds": took}


def command_peak(command: list[str], folder: str) -> tuple[float, int, str]:
    """A program run in `folder`: the MB (2**20 bytes) it held at most, as seen every 20 ms, without
    its children; its exit code; the last line that it wrote.
    """
    import psutil

    with tempfile.TemporaryFile("w+", errors="replace") as log:
        with subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
            held, peak = psutil.Process(process.pid), 0
            while process.poll() is None:
                with contextlib.suppress(psutil.Error):  # it ends meanwhile
                    peak = max(peak, held.memory_info().rss)
                time.sleep(0.02)
        log.seek(0)
        lines = log.read().strip().splitlines()
    return peak / 2**20, process.returncode, lines[-1] if lines else "nothing was said"
