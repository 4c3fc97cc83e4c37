"""How fast inference is: each stage alone, the whole from file to file by back end and detector,
and the memory of each whole in a process of its own.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from backends.base import Backend
from benchmarks.common import (
    add_shared,
    apart,
    best_times,
    circumstances,
    random_checkpoint,
    report,
    write_talk,
)
from benchmarks.generator import BACKENDS, EAGER, EagerBackend, make_engines, measure_generator
from errors import InputError, require_file
from face_detection import NETWORKS
from face_detection.arguments import add_weights_arguments, detector_options, weights_files
from lipsync.options import Options, positive, seconds

RELEASED_BATCH = 128
HELD = 24  # full frames that the stages are measured on
KINDS = ("video", "still")
RUN_COLUMNS = {
    "file to file": "{backend}, {detector}, {face}", "frames/s": "frames_per_second",
    "x real time": "times_real_time", "x eager": "speedup", "peak MB": "peak_mb",
    "growth MB": "growth_mb",
}  # fmt: skip
MEMORY_COLUMNS = {
    "back end": "{backend}, {detector}", "minutes": "minutes", "frames": "frames",
    "peak MB": "peak_mb", "growth MB": "growth_mb", "ratio": "ratio", "seconds": "run_seconds",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    add_shared(parser, "face", "audio", "checkpoint_path", "device", "repeats", "json",
        span=10.0, of="of speech, at most")
    add = parser.add_argument
    add("--backends", nargs="+", choices=BACKENDS, help="default: all that are installed")
    add("--detectors", nargs="+", choices=NETWORKS, default=["centerface"])
    add_weights_arguments(parser)
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--memory_minutes", nargs="+", type=seconds, metavar="MINUTES",
        help="instead: peak memory for 1280x720 videos that last so long")
    other.add_argument("--batches", nargs="+", type=positive, metavar="FRAMES",
        help="instead: the network alone, with so many frames at a time")
    # fmt: on


def measure(args: argparse.Namespace) -> None:
    """Print the tables that the arguments ask for."""
    for flag, path in weights_files(args).items():
        if path:
            require_file(path, f"--{flag}")
    with tempfile.TemporaryDirectory() as folder:
        drawn = os.path.join(folder, "wav2lip.pth")
        checkpoint = args.checkpoint_path or random_checkpoint(drawn, "Wav2Lip")
        if args.batches:
            return measure_generator(checkpoint, args)
        return (measure_memory if args.memory_minutes else measure_speed)(checkpoint, folder, args)


@dataclass
class Job:
    """What is measured: a face and its speech, `frames` of output; and with what."""

    folder: str
    face: str
    audio: str
    frames: int
    fps: float
    kinds: tuple[str, ...]  # of KINDS; a picture is always still
    lipsyncs: dict = field(default_factory=dict)  # by detector
    engines: dict[str, Backend] = field(default_factory=dict)


def make_job(args: argparse.Namespace, folder: str) -> Job:
    """The user's face and speech, or a synthetic speaker; speech cut to --seconds."""
    from audio import save_wav
    from lipsync.source import source_fps
    from media.picture import is_image
    from media.read import load_audio

    face, audio = (args.face, args.audio) if args.face else write_talk(folder, args.seconds)
    speech = os.path.join(folder, "cut.wav")
    save_wav(load_audio(audio)[: round(args.seconds * 16000)], speech)
    fps = source_fps(face, Options())
    kinds = ("still",) if is_image(face) else KINDS
    return Job(folder, face, speech, len(windows(speech, fps)), fps, kinds)


def windows(audio: str, fps: float) -> list[np.ndarray]:
    """The mel windows of a speech file."""
    from audio import speech_chunks
    from media.read import load_audio

    return speech_chunks(load_audio(audio), fps, faithful=False)


def measure_speed(checkpoint: str, folder: str, args: argparse.Namespace) -> None:
    """Each stage alone, then the whole; the memory of each whole in a process of its own."""
    from lipsync.engine import LipSync

    job, facts = make_job(args, folder), circumstances()
    for name in args.detectors:
        options = detector_options(args, name)
        job.lipsyncs[name] = lipsync = LipSync(checkpoint, args.device, name, options, "torch")
    job.engines = make_engines(checkpoint, lipsync.device, args.backends)
    stages, runs = measure_stages(job, args.repeats), measure_runs(job, args.repeats)
    for run in runs:
        what = (job.face, job.audio, run["backend"], run["detector"], run["face"] == "still")
        run |= apart(run_job, checkpoint, args, *what)
    described = {name: engine.describe() for name, engine in job.engines.items()}
    weights = args.checkpoint_path or "random weights"
    settings = {"frames": job.frames, "fps": job.fps, "repeats": args.repeats, "weights": weights}
    report(
        args, f"inference, {job.frames} frames of {os.path.basename(job.face)}, {weights}", facts,
        [stage_table(stages), (runs, RUN_COLUMNS)],
        "x real time: seconds of video made in a second. Peak: a process that does this run and no "
        "other; growth: of it what came after the packages were loaded. eager: the network called "
        "as the released program does, in the same pipeline.",
        *(f"{name}: {text}" for name, text in described.items()),
        settings=settings, engines=described, stages=stages, runs=runs,
    )  # fmt: skip


def measure_stages(job: Job, repeats: int) -> list[dict]:
    """Milliseconds a frame of output for each stage alone, on the same frames: rows of stage, way
    and face.
    """
    steps = [(kind, *step) for kind in job.kinds for step in stage_steps(job, kind)]
    for _, stage, _, step, _ in steps:
        if stage == "generate":  # the back ends convert the network when first used
            step()
    took = best_times({n: step for n, (*_, step, _) in enumerate(steps)}, repeats, "stages")
    return [
        {"stage": stage, "way": way, "face": kind, "ms_per_frame": 1000 * took[number] / frames}
        for number, (kind, stage, way, _, frames) in enumerate(steps)
    ]


def stage_steps(job: Job, kind: str) -> list[tuple[str, str, Callable[[], object], int]]:
    """Stage, way, the step, and how many frames of output it serves."""
    from face_detection.choice import detect_faces
    from face_detection.track import crop_face
    from lipsync.paste import paste_face
    from media.read import load_audio
    from media.write import VideoWriter

    still = kind == "still"
    opts = Options(static=still)  # the first frame alone
    source = next(iter(job.lipsyncs.values())).find(job.face, opts, job.frames)
    size = next(iter(job.engines.values())).img_size
    chunks = windows(job.audio, job.fps)[:RELEASED_BATCH]
    held, crops = [], []
    for frame, box in itertools.islice(source.frames(job.frames), len(chunks)):
        if box is not None:
            crops.append(crop_face(frame, box, size))
            held += [(frame, box)] * (len(held) < HELD)
    if not crops:
        raise InputError(f"no face in the first {len(chunks)} frames of {job.face}")
    faces, mels = np.stack(crops), np.stack(chunks[: len(crops)])
    pictures = [frame for frame, _ in held]
    wav = load_audio(job.audio)[: round(len(held) / job.fps * 16000)]

    def detect(finder) -> None:
        frames = pictures[:1] if still else pictures
        detect_faces(frames, finder, opts.det_every, opts.face_det_batch_size, not still)

    def generate(engine: Backend) -> None:
        if still:
            engine.generate_still(engine.prepare(faces[0]), mels)
        else:
            engine.generate(faces, mels)

    def paste() -> None:
        for (frame, box), face in zip(held, itertools.cycle(crops), strict=False):
            paste_face(frame, face, box, opts.paste, opts.mask)

    def encode() -> None:
        with VideoWriter(os.path.join(job.folder, "stage.mp4"), job.fps, wav, 16000) as writer:
            for frame in pictures:
                writer.write(frame)

    partial, looked_at = functools.partial, job.frames if still else len(held)
    return [
        ("speech", "", lambda: windows(job.audio, job.fps), job.frames),
        ("decode", "", lambda: deque(source.frames(job.frames), maxlen=0), job.frames),
        *(("detect", n, partial(detect, x.detector), looked_at) for n, x in job.lipsyncs.items()),
        *(("generate", n, partial(generate, x), len(faces)) for n, x in job.engines.items()),
        ("paste", "", paste, len(held)),
        ("encode", "", encode, len(held)),
    ]


def stage_table(stages: list[dict]) -> tuple[list[dict], dict[str, str]]:
    """For print_table: a row a stage, a column a kind of face."""
    found: dict[str, dict] = {}
    for row in stages:
        name = f"{row['stage']} {row['way']}".strip()
        found.setdefault(name, {"stage": name})[row["face"]] = row["ms_per_frame"]
    kinds = dict.fromkeys(row["face"] for row in stages)
    columns = {"stage alone": "stage", **{f"{kind}, ms a frame": kind for kind in kinds}}
    return list(found.values()), columns


def measure_runs(job: Job, repeats: int) -> list[dict]:
    """LipSync.run from file to file, with each detector, back end and kind of face."""
    out = os.path.join(job.folder, "out.mp4")

    def run(detector: str, backend: str, kind: str) -> None:
        lipsync = job.lipsyncs[detector]  # one detector and one network each serve all the runs
        lipsync.backend = job.engines[backend]
        lipsync.run(job.face, job.audio, out, static=kind == "still")

    keys = itertools.product(job.lipsyncs, job.engines, job.kinds)
    took = best_times({key: functools.partial(run, *key) for key in keys}, repeats, "runs")
    return [
        {"backend": backend, "detector": detector, "face": kind, "seconds": spent,
         "frames_per_second": job.frames / spent, "times_real_time": job.frames / job.fps / spent,
         "speedup": took[detector, EAGER, kind] / spent}
        for (detector, backend, kind), spent in took.items()
    ]  # fmt: skip


def measure_memory(checkpoint: str, folder: str, args: argparse.Namespace) -> None:
    """Print the peak for each of --memory_minutes, by back end, with the first detector."""
    from tqdm import tqdm

    from audio import save_wav
    from media.read import load_audio

    facts, lengths, detector = circumstances(), sorted(set(args.memory_minutes)), args.detectors[0]
    video, speech = write_talk(folder, 60 * lengths[-1])
    wav, cut, rows = load_audio(speech), os.path.join(folder, "cut.wav"), []
    jobs = [(backend, length) for backend in args.backends or ["auto"] for length in lengths]
    for backend, length in tqdm(jobs, "lengths", disable=None):
        save_wav(wav[: round(60 * length * 16000)], cut)
        row = {"backend": backend, "detector": detector, "minutes": length}
        row |= apart(run_job, checkpoint, args, video, cut, backend, detector)
        shortest = next((other for other in rows if other["backend"] == backend), row)
        rows.append(row | {"ratio": row["peak_mb"] / shortest["peak_mb"]})
    report(
        args, "peak memory of inference, 1280x720", facts, [(rows, MEMORY_COLUMNS)],
        "ratio: of the peak to that of the shortest; growth: after the packages were loaded.",
        memory=rows,
    )  # fmt: skip


def run_job(
    checkpoint: str, args: argparse.Namespace, face: str, audio: str, backend: str, detector: str,
    static: bool = False,
) -> dict:  # fmt: skip
    """LipSync.run with a back end or "eager": {"peak_mb", "growth_mb", "frames", "run_seconds"}, MB
    of 2**20 bytes that this process held.
    """
    import av  # noqa: F401  (imported here so that growth is without the packages)
    import cv2  # noqa: F401
    import torch  # noqa: F401

    from lipsync.engine import LipSync
    from models.checkpoint import load_generator
    from models.device import memory_bytes

    (before, _), start = memory_bytes(), time.perf_counter()
    made = (checkpoint, args.device, detector, detector_options(args, detector))
    lipsync = LipSync(*made, "torch" if backend == EAGER else backend)
    if backend == EAGER:
        lipsync.backend = EagerBackend(load_generator(checkpoint), lipsync.device)
    out = os.path.join(os.path.dirname(audio), "memory.mp4")
    frames = lipsync.run(face, audio, out, static=static).frames
    _, peak = memory_bytes()
    took = time.perf_counter() - start  # loading and converting included
    sizes = {"peak_mb": peak / 2**20, "growth_mb": (peak - before) / 2**20}
    return sizes | {"frames": frames, "run_seconds": took}
