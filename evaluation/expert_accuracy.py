"""How often a lip-sync expert tells in-sync windows from shifted ones, on whole preprocessed
clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hparams import HParams

MAX_SHIFT = 15  # frames; the search range of SyncNet's offset too
CLEAR_SHIFT = 3  # frames; from here on a viewer notices, below the windows overlap almost wholly


def window_similarities(expert, folder: str, hp: HParams, batch_size: int = 64) -> np.ndarray:
    """Cosine of every face window with every mel window of one clip: (W, W), row = face window.

    Only windows that start at consecutive frames are comparable by index; clips with gaps are cut
    to their longest run. InputError where the clip holds no window.
    """
    import torch

    from datasets import Clip, crop_audio_window, index_clip, read_window
    from errors import InputError

    clip = index_clip(folder, hp, individual_mels=False)
    if not isinstance(clip, Clip):
        raise InputError(f"{folder}: {clip}")
    starts = longest_run(clip.usable)
    device = next(expert.parameters()).device
    mel = np.load(f"{folder}/mel.npy")
    paths = [clip.frame_path(i) for i in range(starts[0], starts[-1] + hp.syncnet_T)]
    frames = np.stack(read_window(paths, hp.img_size))[:, hp.img_size // 2 :]  # (F, 48, 96, 3)
    frames = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (F, 3, 48, 96) uint8
    mels = np.stack([crop_audio_window(mel, s, hp.fps, hp.syncnet_mel_step_size).T for s in starts])
    audio, face = [], []
    with torch.inference_mode():
        for first in range(0, len(starts), batch_size):
            count = min(batch_size, len(starts) - first)
            # (B, 15, 48, 96): five frames stacked frame by frame
            x = torch.stack(
                [frames[i : i + hp.syncnet_T].flatten(0, 1) for i in range(first, first + count)]
            )
            m = torch.from_numpy(mels[first : first + count])[:, None]
            a, f = expert(m.to(device), x.to(device).float() / 255)
            audio.append(a.cpu())
            face.append(f.cpu())
    return (torch.cat(face) @ torch.cat(audio).T).numpy()


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
    return float(
        (
            (np.concatenate(in_sync) > threshold).mean()
            + (np.concatenate(shifted) <= threshold).mean()
        )
        / 2
    )


def accuracy_report(similarities: Sequence[np.ndarray]) -> dict[str, float]:
    """balanced_accuracy for shifts CLEAR_SHIFT..MAX_SHIFT together, and for some alone."""
    clear = range(CLEAR_SHIFT, MAX_SHIFT + 1)
    report = {"accuracy": balanced_accuracy(similarities, clear)}
    for shift in (1, 2, 3, 5, 10):
        report[f"accuracy_shift_{shift}"] = balanced_accuracy(similarities, [shift])
    return report
