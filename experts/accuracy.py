"""How often a lip-sync expert tells in-sync windows from shifted ones, on whole preprocessed
clips.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hparams import HParams

if TYPE_CHECKING:
    from corpus.clips import Clip

MAX_SHIFT = 15  # frames; the search range of SyncNet's offset too
CLEAR_SHIFT = 3  # frames; from here on a viewer notices, below the windows overlap almost wholly
REPORTED_SHIFTS = (1, 2, 3, 5, 10)  # frames; each has an accuracy of its own


def window_similarities(expert, folder: str, hp: HParams, batch_size: int = 64) -> np.ndarray:
    """Cosine of every face window with every mel window of one clip: (W, W), row = face window.

    Only windows that start at consecutive frames are comparable by index; clips with gaps are cut
    to their longest run. InputError where the clip holds no window.
    """
    from corpus.clips import Clip, index_clip, open_mel
    from errors import InputError

    hp = dataclasses.replace(hp, img_size=expert.img_size)
    clip = index_clip(folder, hp, individual_mels=False)
    if not isinstance(clip, Clip):
        raise InputError(f"{folder}: {clip}")
    starts = longest_run(clip.usable)
    face = embed_faces(expert, clip, starts, hp, batch_size)
    audio = embed_mels(expert, open_mel(folder, hp.num_mels), starts, hp, batch_size)
    return face @ audio.T


def embed_faces(
    expert, clip: Clip, starts: np.ndarray, hp: HParams, batch_size: int = 64
) -> np.ndarray:
    """A SyncNet_color's embeddings (W, D) of a clip's face windows, float32 of length 1.

    starts: (W,) consecutive frames, each with a complete window of crops.
    """
    import torch

    device = next(expert.parameters()).device
    lower = clip.read(int(starts[0]), len(starts) + hp.syncnet_T - 1, top=hp.img_size // 2)
    frames = torch.from_numpy(lower).permute(0, 3, 1, 2)  # (F, 3, 48, 96) uint8
    embeddings = []
    with torch.inference_mode():
        for first in range(0, len(starts), batch_size):
            last = min(first + batch_size, len(starts))
            # (B, 15, 48, 96): five frames stacked frame by frame
            x = [frames[i : i + hp.syncnet_T].flatten(0, 1) for i in range(first, last)]
            x = torch.stack(x).to(device).float() / 255
            embeddings.append(expert.embed_face(x).cpu().numpy())
    return np.concatenate(embeddings)


def embed_mels(
    expert, mel: np.ndarray, starts: np.ndarray, hp: HParams, batch_size: int = 64
) -> np.ndarray:
    """A SyncNet_color's embeddings (W, D) of the mel windows that begin with the frames `starts`
    (W,), float32 of length 1. mel (T, 80).
    """
    import torch

    from audio import crop_audio_window

    device = next(expert.parameters()).device
    steps = hp.syncnet_mel_step_size
    windows = np.stack([crop_audio_window(mel, start, hp.fps, steps).T for start in starts])
    embeddings = []
    with torch.inference_mode():
        for first in range(0, len(starts), batch_size):
            x = torch.from_numpy(windows[first : first + batch_size])[:, None]  # (B, 1, 80, 16)
            embeddings.append(expert.embed_audio(x.to(device)).cpu().numpy())
    return np.concatenate(embeddings)


def longest_run(frames: np.ndarray) -> np.ndarray:
    """The longest stretch of consecutive numbers in an increasing array."""
    runs = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1)
    return max(runs, key=len)


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
