"""Clips of invented speakers, and corpora of them in LRS2's layout (the command: __main__.py)."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from errors import InputError
from media.files import replacing
from models.device import core_count

if TYPE_CHECKING:
    import numpy as np

FPS = 25
SAMPLE_RATE = 16000
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


def _is_done(video: Path, seed: int, seconds: float, sizes: tuple[int, ...] | None) -> bool:
    """Whether the clip is there, made with these settings; its truth file is written last."""
    if not video.exists():
        return False
    try:
        truth = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    same_size = sizes is None or truth.get("size") in sizes
    return (
        truth.get("seed") == seed
        and truth.get("seconds") == round(seconds * FPS) / FPS
        and same_size
    )


def write_clip(
    root: str, seed: int, speaker: int, clip: int, seconds: float, sizes: tuple[int, ...] | None
) -> bool:
    """Write one clip and its truth below `root`; False where it was there already."""
    video = (Path(root) / VIDEO_DIR / clip_name(speaker, clip)).with_suffix(".mp4")
    if _is_done(video, seed, seconds, sizes):
        return False
    from media.write import VideoWriter

    video.with_suffix(".json").unlink(missing_ok=True)  # an old truth must not outlive its video
    frames, wave, truth = synthesize_clip(seed, speaker, clip, seconds, sizes)
    video.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(str(video), FPS, wave, SAMPLE_RATE, repeatable=True) as writer:
        for frame in frames:
            writer.write(frame)
    with replacing(video.with_suffix(".json")) as file:
        json.dump(truth, file, separators=(",", ":"))
    return True


def _start_worker() -> None:
    import cv2

    cv2.setNumThreads(1)  # the workers are the parallelism


def write_corpus(
    root: str | os.PathLike,
    speakers: int = 12,
    clips_per_speaker: int = 4,
    seconds: float = 3.0,
    size: int | tuple[int, ...] | None = None,
    seed: int = 0,
    workers: int | None = None,
) -> tuple[int, int]:
    """Write the corpus below `root`; returns (clips written, clips that were there already).

    size: frame side in px, or several to choose from per speaker; None takes 160 to 256. workers:
    processes; None takes one per CPU; the files do not depend on it. A rerun makes only what is
    missing.
    """
    from tqdm import tqdm

    sizes = (size,) if isinstance(size, int) else size
    _check(speakers, clips_per_speaker, seconds, sizes, seed, workers)
    root = Path(root)
    try:
        (root / "filelists").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out cannot be made: {root} ({error.strerror})") from error
    jobs = [
        (str(root), seed, speaker, clip, seconds, sizes)
        for speaker in range(speakers)
        for clip in range(1, clips_per_speaker + 1)
    ]
    workers = min(workers or core_count(), len(jobs))
    bar = tqdm(total=len(jobs), desc="clips", unit="clip", disable=None)
    written = 0
    with bar:
        for made in _run(jobs, workers):
            written += made
            bar.update()
    for name, members in split_speakers(speakers).items():
        lines = [
            clip_name(speaker, clip)
            for speaker in members
            for clip in range(1, clips_per_speaker + 1)
        ]
        with replacing(root / "filelists" / f"{name}.txt") as file:
            file.writelines(f"{line}\n" for line in lines)
    return written, len(jobs) - written


def _run(jobs: list[tuple], workers: int):
    """Yield `write_clip`'s answer for each job, in any order."""
    if workers <= 1:
        yield from (write_clip(*job) for job in jobs)
        return
    # "spawn": a fork of a process in which OpenCV or torch already runs threads can hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker) as pool:
        futures = [pool.submit(write_clip, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _check(
    speakers: int,
    clips: int,
    seconds: float,
    sizes: tuple[int, ...] | None,
    seed: int,
    workers: int | None,
) -> None:
    """InputError unless the numbers make a corpus."""
    if speakers < 3:
        raise InputError(
            f"--speakers must be at least 3 (train, val and test each need one), got {speakers}"
        )
    if clips < 1:
        raise InputError(f"--clips must be at least 1, got {clips}")
    if not math.isfinite(seconds) or not 1 <= seconds <= 600:
        raise InputError(f"--seconds must lie between 1 and 600, got {seconds}")
    if seed < 0:
        raise InputError(f"--seed must not be negative, got {seed}")
    if sizes is not None and not all(64 <= size <= 1024 and size % 2 == 0 for size in sizes):
        raise InputError(f"size must be even and between 64 and 1024, got {sizes}")
    if workers is not None and workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}")
