"""How far out of sync the clips are by an expert's word: its own now, or what clip.json has."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from errors import InputError

if TYPE_CHECKING:
    from experts.offset import Expert
    from hparams import HParams
    from preparation.doctor_measure import Measures

BEST, USABLE = 1, 3  # frames; offsets that training takes well, and that it still takes


def ask_expert(root: str, clips: Sequence[Measures], expert: Expert, hp: HParams) -> dict[str, int]:
    """Ask an expert for the offsets of the usable clips it has not judged before; each clip's
    `sync` then says what this one knows. Returns reason -> clips that could not be judged.
    """
    from tqdm import tqdm

    from preparation.sync import MIN_CONFIDENCE

    kind = next(expert.model.parameters()).device.type
    least, todo = MIN_CONFIDENCE[expert.kind], []
    for clip in clips:
        if clip.sync and clip.sync["expert"] == expert.label:
            clip.sync["sure"] = clip.sync["confidence"] >= least
        elif clip.unusable is None:
            todo.append(clip)
    failed: Counter = Counter()
    # on a GPU, threads decode while it computes
    pool = ThreadPoolExecutor(1 if kind == "cpu" else min(8, os.cpu_count() or 1))
    try:
        jobs = [pool.submit(_ask, expert, root, clip, hp, least) for clip in todo]
        bar = tqdm(jobs, desc="expert", unit="clip", disable=not sys.stderr.isatty())
        for clip, job in zip(todo, bar, strict=True):
            try:
                clip.sync = job.result()
            except (InputError, OSError, ValueError) as error:
                failed[" ".join(str(error).split()).removeprefix(f"{root}/{clip.name}: ")] += 1
    finally:
        pool.shutdown(cancel_futures=True)
    for clip in clips:
        if clip.sync and clip.sync["expert"] != expert.label:
            clip.sync = None  # another expert's word is not mixed with this one's
    return dict(failed.most_common())


def _ask(expert: Expert, root: str, clip: Measures, hp: HParams, least: float) -> dict:
    from experts.offset import clip_offset

    found = clip_offset(expert, os.path.join(root, clip.name), hp)
    before = clip.sync or {"shift": 0, "kept": True}
    return {
        "offset": found.offset,
        "confidence": round(found.confidence, 4),
        "shift": before["shift"],
        "kept": before["kept"],
        "expert": expert.label,
        "sure": found.confidence >= least,
    }


def sync_summary(clips: Sequence[Measures], failed: dict[str, int]) -> dict | None:
    """Offsets that remain after what --correct_sync shifted, over the clips that it did not drop.
    None where nothing is known of any clip. failed: ask_expert's.

    within_1, within_3 and the common offset are of the clips of which the expert is sure.
    """
    known = [clip for clip in clips if clip.sync]
    if not known and not failed:
        return None
    kept = [clip for clip in known if clip.sync["kept"]]
    sure = [clip for clip in kept if clip.sync.get("sure", True)]
    offsets = np.array([remaining(clip) for clip in sure], int)
    common = Counter(offsets.tolist()).most_common(1)[0][0] if len(offsets) else None
    return {
        "experts": sorted({clip.sync["expert"] for clip in known}),
        "judged": len(known),
        "failed": failed,
        "dropped": len(known) - len(kept),
        "shifted": sum(clip.sync["shift"] != 0 for clip in kept),
        "sure": len(sure),
        "sure_share": len(sure) / len(kept) if kept else 0.0,
        "confidence": float(np.median([clip.sync["confidence"] for clip in known] or [0])),
        "within_1": float((np.abs(offsets) <= BEST).mean()) if len(offsets) else None,
        "within_3": float((np.abs(offsets) <= USABLE).mean()) if len(offsets) else None,
        "common": common,
        "common_share": float((np.abs(offsets - common) <= BEST).mean()) if len(offsets) else None,
    }


def remaining(clip: Measures) -> int:
    """Frames by which the sound that training hears is early."""
    return clip.sync["offset"] - clip.sync["shift"]
