"""Clips of invented speakers, and corpora of them in LRS2's layout (the command: __main__.py)."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from corpus.listing import write_filelists
from errors import InputError
from media.files import replacing
from models.device import core_count
from synthetic.voice import FPS, SAMPLE_RATE

if TYPE_CHECKING:
    import numpy as np

VIDEO_DIR = Path("mvlrs_v1", "main")
HELD_OUT = 0.15  # share of the speakers in val, and again in test
# First entry of each generator's seed, so that no two of them ever share a stream.
LOOKS, VOICE, SPEECH, PICTURE = 1, 2, 3, 4


def synthesize_clip(
    seed: int, speaker: int, clip: int, seconds: float = 3.0, sizes: tuple[int, ...] | None = None
) -> tuple[list[np.ndarray], np.ndarray, dict]:
    """One clip: (frames, each uint8 BGR (size, size, 3); wave float32 (640 T,) at 16 kHz; truth).

    The clip depends on (seed, speaker, clip, seconds, sizes) alone; `sizes` are the frame sides in
    px to choose from.
    The truth holds, for each of the T frames, the mouth at the time i / 25 s:
    - boxes: x1, y1, x2, y2 of the face in px, forehead to chin, as face detectors put it;
    - mouth_box: the same around the outer lips;
    - mouth_opening: inner-lip height / the speaker's largest, from 0 (shut: exactly 0 on m, b, p
      and in silence) to 1;
    - mouth_width: corner-to-corner distance / the speaker's largest, 0.62 (round) .. 1 (spread);
    and phonemes: [start s, end s, symbol], without gaps, "sil" for silence.
    """
    import numpy as np

    from synthetic.face import SIZES, make_identity
    from synthetic.render import corner_distance, render_frames
    from synthetic.voice import make_speech, make_voice

    identity = make_identity(np.random.default_rng([LOOKS, seed, speaker]), sizes or SIZES)
    voice = make_voice(np.random.default_rng([VOICE, seed, speaker]))
    wave, phonemes, opening, width = make_speech(
        np.random.default_rng([SPEECH, seed, speaker, clip]), seconds, voice
    )
    picture = np.random.default_rng([PICTURE, seed, speaker, clip])
    frames, boxes, mouths = zip(*render_frames(picture, identity, opening, width), strict=True)
    truth = {
        "fps": FPS,
        "seed": seed,
        "speaker": speaker,
        "clip": clip,
        "size": identity.size,
        "seconds": len(frames) / FPS,
        "boxes": np.round(boxes, 2).tolist(),
        "mouth_opening": np.round(opening, 5).tolist(),
        "mouth_width": np.round(corner_distance(width), 5).tolist(),
        "mouth_box": np.round(mouths, 2).tolist(),
        "phonemes": [[round(start, 4), round(end, 4), symbol] for start, end, symbol in phonemes],
    }
    return list(frames), wave, truth


def split_speakers(speakers: int) -> dict[str, range]:
    """Speaker numbers of train, val and test: about 70 / 15 / 15 %, at least one each."""
    held_out = max(1, round(HELD_OUT * speakers))
    train = speakers - 2 * held_out
    return {
        "train": range(train),
        "val": range(train, train + held_out),
        "test": range(train + held_out, speakers),
    }


def clip_name(speaker: int, clip: int) -> str:
    """Its line in the filelists: `dir/video`. Clips count from 1, as LRS2's do."""
    return f"s{speaker:04d}/{clip:05d}"


def write_clip(
    root: str, seed: int, speaker: int, clip: int, seconds: float, sizes: tuple[int, ...] | None
) -> bool:
    """Write one clip and its truth below `root`; False where it was there already."""
    from media.write import VideoWriter

    video = (Path(root) / VIDEO_DIR / clip_name(speaker, clip)).with_suffix(".mp4")
    path = video.with_suffix(".json")  # the truth is written last
    try:
        truth = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        truth = {}
    made = truth.get("seed") == seed and truth.get("seconds") == round(seconds * FPS) / FPS
    if video.exists() and made and (sizes is None or truth.get("size") in sizes):
        return False
    path.unlink(missing_ok=True)  # an old truth must not outlive its video
    frames, wave, truth = synthesize_clip(seed, speaker, clip, seconds, sizes)
    video.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(str(video), FPS, wave, SAMPLE_RATE, repeatable=True) as writer:
        for frame in frames:
            writer.write(frame)
    with replacing(path) as file:
        json.dump(truth, file, separators=(",", ":"))
    return True


def write_corpus(
    root: str | os.PathLike, speakers: int = 12, clips_per_speaker: int = 4, seconds: float = 3.0,
    size: int | tuple[int, ...] | None = None, seed: int = 0, workers: int | None = None,
) -> tuple[int, int]:  # fmt: skip
    """Write the corpus below `root`; returns (clips written, clips that were there already).

    size: frame side in px, or several to choose from per speaker; None takes 160 to 256. workers:
    processes; None takes one per CPU; the files do not depend on it. A rerun makes only what is
    missing.
    """
    import cv2
    from tqdm import tqdm

    sizes = (size,) if isinstance(size, int) else size
    fit = sizes is None or all(64 <= side <= 1024 and side % 2 == 0 for side in sizes)
    for fine, wish, got in (
        (speakers >= 3, "--speakers must be at least 3 (train, val and test)", speakers),
        (clips_per_speaker >= 1, "--clips must be at least 1", clips_per_speaker),
        (1 <= seconds <= 600, "--seconds must lie between 1 and 600", seconds),
        (seed >= 0, "--seed must not be negative", seed),
        (fit, "size must be even and between 64 and 1024", sizes),
        (workers is None or workers >= 1, "--workers must be at least 1", workers),
    ):
        if not fine:
            raise InputError(f"{wish}, got {got}")
    root = Path(root)
    try:
        (root / "filelists").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out cannot be made: {root} ({error.strerror})") from error
    numbers = range(1, clips_per_speaker + 1)
    jobs = [
        (str(root), seed, speaker, clip, seconds, sizes)
        for speaker in range(speakers)
        for clip in numbers
    ]
    workers, spread = min(workers or core_count(), len(jobs)), map
    with contextlib.ExitStack() as stack:
        if workers > 1:
            # a fork of a process in which OpenCV or torch already runs threads can hang
            spawn = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(workers, spawn, cv2.setNumThreads, (1,))
            stack.callback(pool.shutdown, cancel_futures=True)
            spread = pool.map
        done = spread(write_clip, *zip(*jobs, strict=True))
        written = sum(tqdm(done, "clips", len(jobs), unit="clip", disable=None))
    splits = split_speakers(speakers).items()
    lists = {name: [clip_name(s, clip) for s in who for clip in numbers] for name, who in splits}
    write_filelists(lists, str(root / "filelists"))
    return written, len(jobs) - written
