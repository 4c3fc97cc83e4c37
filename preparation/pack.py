"""Packed clips: one file of small uint8 frames instead of a JPEG a frame, to train faster.

`<clip>/frames_<img_size>.npy` holds the very pixels that training makes of the clip's JPEGs, with
their frame numbers (clips.pack_dtype): 28 kB a frame at 96 x 96, about 4 times the JPEG. The data
sets use it by themselves where it is there; the JPEGs may then be deleted, and deleting the file
undoes it.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

import numpy as np

from errors import InputError
from media.files import replacing


@dataclass
class PackReport:
    """What pack_root did: clips packed now, clips that were packed before, name -> reason."""

    packed: int = 0
    present: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def pack_clip(folder: str | os.PathLike, img_size: int = 96) -> bool:
    """Write the pack of the clip in `folder`; False where a sound one was there already.

    It appears only when complete. InputError where the clip has no crops, ValueError (of which
    clips.UnreadableFrame is one) where a crop cannot be read, OSError where the disk is full.
    """
    from corpus.clips import (
        choose_reduction,
        list_crops,
        pack_dtype,
        pack_path,
        packed_frames,
        read_window,
    )

    folder = os.fspath(folder)
    path = pack_path(folder, img_size)
    frames = list_crops(os.listdir(folder))
    try:
        packed_frames(folder, img_size, frames)
        return False
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # damaged, or the crops are others now: made anew
        if not len(frames):
            raise InputError(f"{error}, and {folder} has no JPEGs to make it anew") from error
    if not len(frames):
        raise InputError(f"{folder} has no face crops")
    paths = [os.path.join(folder, f"{frame}.jpg") for frame in frames]
    reduction = choose_reduction(paths[0], img_size)
    pack = np.empty(len(frames), pack_dtype(img_size))
    pack["frame"] = frames
    for crop, image in zip(paths, pack["image"], strict=True):
        image[:] = read_window([crop], img_size, reduction)[0]
    with replacing(path, "wb") as file:
        np.save(file, pack)
    return True


def pack_root(
    preprocessed_root: str | os.PathLike, img_size: int = 96, workers: int | None = None
) -> PackReport:
    """pack_clip on every finished clip below the root; prints and returns the counts.

    workers: threads; None takes one per CPU. What is packed already is left alone, so a rerun goes
    on after an interruption. InputError where there is no clip, or the sizes make no sense.
    """
    from tqdm import tqdm

    from corpus.listing import find_clips

    if img_size < 16 or (workers is not None and workers < 1):
        raise InputError(f"cannot pack at img_size {img_size} with {workers} workers")
    root, report = os.fspath(preprocessed_root), PackReport()
    names = find_clips(root)
    pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)))  # OpenCV lets go of the GIL
    try:
        jobs = {pool.submit(pack_clip, os.path.join(root, name), img_size): name for name in names}
        bar = tqdm(
            as_completed(jobs), total=len(jobs), unit="clip", disable=not sys.stderr.isatty()
        )
        for job in bar:
            try:
                new = job.result()
            except (InputError, OSError, ValueError, MemoryError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                report.failed[jobs[job]] = reason
            else:
                report.packed += new
                report.present += not new
    finally:
        pool.shutdown(cancel_futures=True)
    print(
        f"{report.packed} clips packed at {img_size} x {img_size}, "
        f"{report.present} were packed before, {len(report.failed)} failed"
    )
    report.failed = dict(sorted(report.failed.items()))
    for name, reason in list(report.failed.items())[:10]:
        print(f"failed: {name}: {reason}")
    if len(report.failed) > 10:
        print(f"... and {len(report.failed) - 10} more")
    return report
