"""Each stage of inference alone, on the same frames."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.base import Backend
from benchmarks.common import best_times
from errors import InputError
from lipsync.options import Options

RELEASED_BATCH = 128
HELD = 24  # full frames that the stages are measured on
KINDS = ("video", "still")


@dataclass
class Job:
    """What is measured: a face and its speech, `frames` of output."""

    face: str
    audio: str
    frames: int
    fps: float
    kinds: tuple[str, ...]  # of KINDS; a picture is always still


def windows(audio: str, fps: float) -> list[np.ndarray]:
    """The mel windows of a speech file."""
    from audio import speech_chunks
    from media.read import load_audio

    return speech_chunks(load_audio(audio), fps, faithful=False)


def measure_stages(
    job: Job, lipsyncs: dict, engines: dict[str, Backend], folder: str, repeats: int
) -> list[dict]:
    """Milliseconds a frame of output for each stage alone, on the same frames: rows of stage, way
    and face.
    """
    steps = {
        (stage, way, kind): step
        for kind in job.kinds
        for (stage, way), step in stage_steps(job, kind, lipsyncs, engines, folder).items()
    }
    for (stage, *_), (step, _) in steps.items():
        if stage == "generate":  # the back ends convert the network when first used
            step()
    took = best_times({key: step for key, (step, _) in steps.items()}, repeats, "stages")
    return [
        {"stage": key[0], "way": key[1], "face": key[2], "ms_per_frame": 1000 * took[key] / frames}
        for key, (_, frames) in steps.items()
    ]


def stage_steps(
    job: Job, kind: str, lipsyncs: dict, engines: dict[str, Backend], folder: str
) -> dict[tuple[str, str], tuple[Callable[[], object], int]]:
    """(stage, way) -> the step, and how many frames of output it serves."""
    from face_detection.choice import detect_faces
    from face_detection.track import crop_face
    from lipsync.paste import paste_face
    from media.read import load_audio
    from media.write import VideoWriter

    opts = Options(static=kind == "still")  # the first frame alone
    source = next(iter(lipsyncs.values())).find(job.face, opts, job.frames)
    size = next(iter(engines.values())).img_size
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

    def decode() -> None:
        for _ in source.frames(job.frames):
            pass

    def detect(finder) -> None:
        frames = pictures[:1] if kind == "still" else pictures
        detect_faces(frames, finder, opts.det_every, opts.face_det_batch_size, kind == "video")

    def generate(engine: Backend) -> None:
        if kind == "still":
            engine.generate_still(engine.prepare(faces[0]), mels)
        else:
            engine.generate(faces, mels)

    def paste() -> None:
        for (frame, box), face in zip(held, itertools.cycle(crops), strict=False):
            paste_face(frame, face, box, opts.paste, opts.mask)

    def encode() -> None:
        with VideoWriter(os.path.join(folder, "stage.mp4"), job.fps, wav, 16000) as writer:
            for frame in pictures:
                writer.write(frame)

    steps = {
        ("speech", ""): (lambda: windows(job.audio, job.fps), job.frames),
        ("decode", ""): (decode, job.frames),
        ("paste", ""): (paste, len(held)),
        ("encode", ""): (encode, len(held)),
    }
    for name, lipsync in lipsyncs.items():
        looked_at = job.frames if kind == "still" else len(held)
        steps["detect", name] = functools.partial(detect, lipsync.detector), looked_at
    for name, engine in engines.items():
        steps["generate", name] = functools.partial(generate, engine), len(faces)
    order = ("speech", "decode", "detect", "generate", "paste", "encode")
    return {key: steps[key] for key in sorted(steps, key=lambda key: order.index(key[0]))}


def stage_table(stages: list[dict]) -> tuple[list[dict], dict[str, str]]:
    """For print_table: a row a stage, a column a kind of face."""
    found: dict[str, dict] = {}
    for row in stages:
        name = f"{row['stage']} {row['way']}".strip()
        found.setdefault(name, {"stage": name})[row["face"]] = row["ms_per_frame"]
    kinds = dict.fromkeys(row["face"] for row in stages)
    columns = {"stage alone": "stage", **{f"{kind}, ms a frame": kind for kind in kinds}}
    return list(found.values()), columns
