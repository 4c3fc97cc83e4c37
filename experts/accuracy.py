"""How often a lip-sync expert tells in-sync windows from shifted ones, on whole preprocessed
clips.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from experts.offset import MAX_SHIFT, Expert, embed_clip
from hparams import HParams

CLEAR_SHIFT = 3  # frames; from here on a viewer notices, below the windows overlap almost wholly
REPORTED_SHIFTS = (1, 2, 3, 5, 10)  # frames; each has an accuracy of its own


def window_similarities(expert: Expert, folder: str | os.PathLike, hp: HParams) -> np.ndarray:
    """Cosine of every face window with every window of sound of one clip: (W, W), row = face
    window; a SyncNet_color's, whose embeddings have length 1.

    Only windows that start at consecutive frames are comparable by index; clips with gaps are cut
    to their longest run. InputError where the clip holds no window.
    """
    lips, sound, first = embed_clip(expert, folder, hp)
    lips = lips[: expert.hears(len(sound)) - first]
    return lips @ expert.embed_sound(sound, len(lips), first).T


def balanced_accuracy(
    similarities: Sequence[np.ndarray], shifts: Sequence[int], threshold: float = 0.5
) -> float:
    """Mean of the share of in-sync pairs above the threshold and of shifted pairs below it.

    shifts: how many frames apart (either way) the pairs count as shifted.
    """
    in_sync, shifted = [], []
    for matrix in similarities:
        distance = np.abs(np.subtract.outer(np.arange(len(matrix)), np.arange(len(matrix))))
        in_sync.append(np.diag(matrix))
        shifted.append(matrix[np.isin(distance, list(shifts))])
    return balanced(np.concatenate(in_sync), np.concatenate(shifted), threshold)


def balanced(in_sync: np.ndarray, shifted: np.ndarray, threshold: float = 0.5) -> float:
    """Mean of the share of cosines in sync (N,) above the threshold and of shifted ones (M,) not
    above it.
    """
    return float(((in_sync > threshold).mean() + (shifted <= threshold).mean()) / 2)


def accuracy_report(similarities: Sequence[np.ndarray]) -> dict[str, float]:
    """balanced_accuracy for shifts CLEAR_SHIFT..MAX_SHIFT together, and for some alone."""
    clear = range(CLEAR_SHIFT, MAX_SHIFT + 1)
    report = {"accuracy": balanced_accuracy(similarities, clear)}
    for shift in REPORTED_SHIFTS:
        report[f"accuracy_shift_{shift}"] = balanced_accuracy(similarities, [shift])
    return report
