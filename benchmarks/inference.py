"""How fast inference is: each stage alone, the whole, and its memory, by back end and detector."""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import tempfile

from backends.base import Backend
from benchmarks.common import (
    best_times,
    circumstances,
    positive_float,
    print_report,
    print_table,
    random_checkpoint,
    require_writable,
    write_report,
    write_talk,
)
from benchmarks.engines import BACKENDS, EAGER, make_engines
from benchmarks.stages import KINDS, Job, measure_stages, stage_table, windows
from errors import InputError, require_file
from face_detection import NETWORKS
from face_detection.arguments import add_weights_arguments, detector_options, weights_files
from lipsync.options import Options, positive

RUN_COLUMNS = {
    "file to file": "{backend}, {detector}, {face}", "frames/s": "frames_per_second",
    "x real time": "times_real_time", "x eager": "speedup", "peak MB": "peak_mb",
    "growth MB": "growth_mb",
}  # fmt: skip
# torch, OpenCV and the detectors are imported inside the functions, so that --help answers at once


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    add = parser.add_argument
    add("--face", help="video or picture; default: a synthetic speaker, 1280x720")
    add("--audio", help="speech; belongs to --face")
    add("--checkpoint_path", metavar="FILE", help="generator; default: full size, random weights")
    add("--backends", nargs="+", choices=BACKENDS, help="default: all that are installed")
    add("--detectors", nargs="+", choices=NETWORKS, default=["centerface"])
    add_weights_arguments(parser)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    add("--seconds", type=positive_float, default=10.0,
        help="of speech, at most; default %(default)g")
    add("--repeats", type=positive, default=3, help="the best one counts; default %(default)s")
    add("--json", metavar="FILE", help="write the figures there too")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--memory_minutes", nargs="+", type=positive_float, metavar="MINUTES",
        help="instead: peak memory for 1280x720 videos that last so long")
    other.add_argument("--batches", nargs="+", type=positive, metavar="FRAMES",
        help="instead: the network alone, with so many frames at a time")
    # fmt: on


def inference_benchmark(args: argparse.Namespace) -> None:
    """Print the tables that the arguments ask for."""
    if bool(args.face) != bool(args.audio):
        raise InputError("--face and --audio belong together")
    if args.face and (args.memory_minutes or args.batches):
        raise InputError("--face does not go with --memory_minutes or --batches")
    require_writable(args.json)
    for path, what in (
        (args.face, "face"),
        (args.audio, "audio"),
        (args.checkpoint_path, "checkpoint"),
        *((path, f"--{flag}") for flag, path in weights_files(args).items()),
    ):
        if path:
            require_file(path, what)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint_path or random_checkpoint(
            os.path.join(folder, "wav2lip.pth"), "Wav2Lip"
        )
        if args.batches:
            from benchmarks.generator import generator_benchmark

            generator_benchmark(checkpoint, args)
        elif args.memory_minutes:
            from benchmarks.memory import memory_benchmark

            memory_benchmark(checkpoint, folder, args)
        else:
            speed_benchmark(checkpoint, folder, args)


def make_job(args: argparse.Namespace, folder: str) -> Job:
    """The user's face and speech, or a synthetic speaker; speech cut to --seconds."""
    from audio import save_wav
    from lipsync.source import source_fps
    from media.picture import is_image
    from media.read import load_audio

    face, audio = (args.face, args.audio) if args.face else write_talk(folder, args.seconds)
    wav = load_audio(audio)[: round(args.seconds * 16000)]
    speech = os.path.join(folder, "cut.wav")
    save_wav(wav, speech)
    fps = source_fps(face, Options())
    kinds = ("still",) if is_image(face) else KINDS
    return Job(face, speech, len(windows(speech, fps)), fps, kinds)


def speed_benchmark(checkpoint: str, folder: str, args: argparse.Namespace) -> None:
    """Each stage alone, then the whole; the memory of each whole in a process of its own."""
    from benchmarks.memory import peak_memory
    from lipsync.engine import LipSync

    job, facts = make_job(args, folder), circumstances()
    lipsyncs = {
        name: LipSync(checkpoint, args.device, name, detector_options(args, name), "torch")
        for name in args.detectors
    }
    device = next(iter(lipsyncs.values())).device
    engines = make_engines(checkpoint, device, args.backends)
    stages = measure_stages(job, lipsyncs, engines, folder, args.repeats)
    runs = measure_runs(job, lipsyncs, engines, folder, args.repeats)
    for run in runs:
        what = (run["backend"], run["detector"], job.face, job.audio, run["face"] == "still")
        run |= peak_memory(checkpoint, args, *what)
    described = {name: engine.describe() for name, engine in engines.items()}
    weights = args.checkpoint_path or "random weights"
    title = f"inference, {job.frames} frames of {os.path.basename(job.face)}, {weights}"
    print_report(title, facts, *stage_table(stages))
    print()
    print_table(runs, RUN_COLUMNS)
    print(
        "x real time: seconds of video made in a second. Peak: a process that does this run and no "
        "other; growth: of it what came after the packages were loaded. eager: the network called "
        "as the released program does, in the same pipeline."
    )
    for name, text in described.items():
        print(f"{name}: {text}")
    settings = {"frames": job.frames, "fps": job.fps, "repeats": args.repeats, "weights": weights}
    content = {"settings": settings, "engines": described, "stages": stages, "runs": runs}
    write_report(args.json, facts, content)


def measure_runs(
    job: Job, lipsyncs: dict, engines: dict[str, Backend], folder: str, repeats: int
) -> list[dict]:
    """LipSync.run from file to file, with each detector, back end and kind of face."""
    out = os.path.join(folder, "out.mp4")

    def run(lipsync, engine: Backend, kind: str) -> None:
        lipsync.backend = engine  # one detector and one network each serve all the runs
        lipsync.run(job.face, job.audio, out, static=kind == "still")

    steps = {
        key: functools.partial(run, lipsyncs[key[0]], engines[key[1]], key[2])
        for key in itertools.product(lipsyncs, engines, job.kinds)
    }
    took = best_times(steps, repeats, "runs")
    rows = []
    for (detector, backend, kind), seconds in took.items():
        row = {"backend": backend, "detector": detector, "face": kind, "seconds": seconds}
        row["frames_per_second"] = job.frames / seconds
        row["times_real_time"] = job.frames / job.fps / seconds
        row["speedup"] = took[detector, EAGER, kind] / seconds
        rows.append(row)
    return rows
