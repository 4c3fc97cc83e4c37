"""What a lip-sync expert knows, measured on the fixed windows of every validation.

A window is a sample of the released validation (SyncNetDataset) and, of its face, the pairs with
its own sound and with the clip's sound some frames off. Every face and every stretch of sound is
embedded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import nn
from torch.nn import functional as F

from audio import ShortWindow, crop_audio_window
from corpus.clips import Clip, open_mel
from datasets import SyncNetDataset, assemble, mel_tensor
from experts.offset import CLEAR_SHIFT, REPORTED_SHIFTS, balanced
from hparams import HParams
from training import distributed
from training.setup import validation_batches

# Frames by which the sound is late; the face's own, 0, comes first
SHIFTS = np.array([0, *(sign * shift for shift in REPORTED_SHIFTS for sign in (-1, 1))])


def validate_expert(
    expert: nn.Module, dataset: ExpertValidationDataset, hp: HParams, batch_size: int,
    device: torch.device,
) -> dict[str, float]:  # fmt: skip
    """A SyncNet_color's scores (`summarise`) on the fixed windows of a split: one of every clip, or
    hp.eval_windows. Every process embeds its share of them and returns the scores of all.
    """
    found = pair_cosines(expert, validation_batches(dataset, batch_size, hp), device)
    parts = [found] * distributed.world_size()
    if len(parts) > 1:
        torch.distributed.all_gather_object(parts, found)
    return summarise(parts)


class ExpertValidationDataset(SyncNetDataset):
    """Samples of a validation: window uint8 BGR (T, H/2, W, 3) and y (1,) as SyncNetDataset has
    them.

    mels (S+1, 1, 80, 16): the sound at the SHIFTS from the face, then that of the released sample.
    Zeros where exists (S+1,) is False: beyond the clip's ends, and for the released sample where it
    is in sync, as it is the first then.
    """

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        hp, (heard, seen) = self.hp, self.draw(clip, rng)
        starts = [*(seen + SHIFTS), *([heard] if heard != seen else [])]
        rows = open_mel(clip.folder, hp.num_mels)
        mels = torch.zeros(len(SHIFTS) + 1, 1, hp.num_mels, hp.syncnet_mel_step_size)
        exists = torch.zeros(len(mels), dtype=torch.bool)
        for place, start in enumerate(starts):
            try:
                first = int(start) - clip.shift
                window = crop_audio_window(rows, first, hp.fps, hp.syncnet_mel_step_size)
            except ShortWindow:
                continue
            mels[place, 0], exists[place] = mel_tensor(window.T), True
        y = torch.tensor([float(heard == seen)])
        return {"window": self.lower_halves(clip, seen), "mels": mels, "exists": exists, "y": y}


class PairCosines(NamedTuple):
    """What an expert said about N windows of ExpertValidationDataset."""

    y: np.ndarray  # (N,) the label of the released sample
    cosines: np.ndarray  # (N, S+1) float32 of the face with each of its sounds
    exists: np.ndarray  # (N, S+1)


def pair_cosines(
    expert: nn.Module, batches: Iterable[dict[str, torch.Tensor]], device: torch.device
) -> PairCosines:
    """What a SyncNet_color in eval mode says about batches of ExpertValidationDataset."""
    none = np.zeros((0, len(SHIFTS) + 1), np.float32)  # a process may have no window
    parts = [PairCosines(none[:, 0], none, none.astype(bool))]
    training = expert.training
    expert.eval()
    with torch.inference_mode():
        for batch in batches:
            batch = assemble({name: value.to(device) for name, value in batch.items()})
            exists = batch["exists"]  # (B, S+1)
            audio, face = expert(batch["mels"][exists], batch["x"])  # (K, D), (B, D)
            face = face.repeat_interleave(exists.sum(1), dim=0)  # (K, D)
            cosines = torch.zeros(exists.shape, device=device)
            cosines[exists] = (audio.float() * face.float()).sum(1)
            arrays = (value.cpu().numpy() for value in (batch["y"][:, 0], cosines, exists))
            parts.append(PairCosines(*arrays))
    expert.train(training)
    return join(parts)


def join(parts: Sequence[PairCosines]) -> PairCosines:
    """The windows of several batches or processes as one."""
    return PairCosines(*map(np.concatenate, zip(*parts, strict=True)))


def summarise(parts: Sequence[PairCosines]) -> dict[str, float]:
    """The numbers of a validation, of the windows of all processes together.

    loss, accuracy: of the released samples, as released. auc: the share of (own pair, wrong pair)
    in which the own one has the larger cosine, 0.5 = knows nothing; wrong pairs are CLEAR_SHIFT
    frames off or more. cos_pos, cos_neg: mean cosines of those own and wrong pairs.
    accuracy_shift_<n>: own pairs against those n frames off either way (`balanced`). A
    number for which no clip is long enough is left out.
    """
    found = join(parts)
    in_sync = found.y > 0.5
    released = np.where(in_sync, found.cosines[:, 0], found.cosines[:, -1])
    probability, y = torch.from_numpy(released).clamp(0, 1), torch.from_numpy(found.y)
    finite = np.isfinite(released).all()  # else binary_cross_entropy raises
    scores = {
        "loss": float(F.binary_cross_entropy(probability, y)) if finite else float("nan"),
        "accuracy": float(((released > 0.5) == in_sync).mean()),
    }
    own, far = found_pairs(found, [0]), found_pairs(found, far_from(0))
    if len(own) and len(far):
        scores["auc"] = roc_auc(own, far)
        scores |= {"cos_pos": float(own.mean()), "cos_neg": float(far.mean())}
    for shift in REPORTED_SHIFTS:
        shifted = found_pairs(found, [-shift, shift])
        if len(own) and len(shifted):
            scores[f"accuracy_shift_{shift}"] = balanced(own, shifted)
    return scores


def found_pairs(found: PairCosines, shifts: Sequence[int]) -> np.ndarray:
    """The cosines of all pairs that are off by one of `shifts` frames."""
    columns = np.flatnonzero(np.isin(SHIFTS, shifts))
    return found.cosines[:, columns][found.exists[:, columns]]


def far_from(shift: int) -> list[int]:
    """The SHIFTS that are CLEAR_SHIFT frames or more away from this one."""
    return [other for other in SHIFTS if abs(other - shift) >= CLEAR_SHIFT]


def best_shift(found: PairCosines) -> tuple[int, float]:
    """The shift whose pairs have the largest mean cosine, and how clearly: the AUC of those pairs
    against those far from it. Not 0 where the clips' sound is early (negative) or late.
    """
    pairs = {shift: found_pairs(found, [shift]) for shift in SHIFTS.tolist()}
    best = max((s for s in pairs if len(pairs[s])), key=lambda s: pairs[s].mean())
    far = found_pairs(found, far_from(best))
    return best, roc_auc(pairs[best], far) if len(far) else 0.5


def roc_auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive is larger than a negative; a tie is half."""
    found = mannwhitneyu(np.float64(positive), np.float64(negative), method="asymptotic")
    return float(found.statistic / (len(positive) * len(negative)))
