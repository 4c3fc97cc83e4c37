"""Do the lips of a generator in training follow the sound? Asked at each validation, on a few clips
of the validation split, by landmarks that the training does not optimise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from corpus.clips import Clip, open_mel
from datasets import WindowDataset, assemble, get_segmented_mels, mel_tensor
from experts.offset import longest_run
from face_detection.landmarks import MissingLandmarks, lip_opening, lip_scores, load_landmarks
from training.setup import logger

CLIPS, FRAMES = 6, 60  # looked at: a second or two of each validation
SURE = 0.35  # a sync loss below which a training looks as if it had learnt
LEAST_FOLLOWS = 0.2


class LipCheck:
    """follows, leak and amplitude (face_detection/landmarks.py) of some clips of a split, each
    drawn to the sound of another one, with itself as the reference, as inference does.

    Where no landmark package is installed that is said once, and there are no scores.
    """

    def __init__(self, dataset: WindowDataset, device: torch.device) -> None:
        self.device, self.hp, self._warned = device, dataset.hp, False
        self.landmarks, self.clips = None, []
        try:
            self.landmarks = load_landmarks()
        except MissingLandmarks as error:
            logger.warning("follows and leak are not measured: %s", error)
            return
        # spread over the split, whose neighbours are of one speaker
        step = max(1, len(dataset.clips) // CLIPS)
        for clip in dataset.clips[::step]:
            start = _first_run(clip)
            if start is None or len(self.clips) == CLIPS:
                continue
            try:
                self.clips.append(self._read(clip, start))
            except (OSError, ValueError) as error:  # as the data set: a bad clip ends no run
                logger.warning("follows and leak are measured without %s: %s", clip.folder, error)
        if len(self.clips) < 2:
            logger.warning("follows and leak are not measured: no two clips of %d frames", FRAMES)
            self.landmarks = None

    def _read(self, clip: Clip, start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Crops (N, H, W, 3), their mel windows (N, 1, 80, 16), the opening of their lips (N,)."""
        hp, crops = self.hp, clip.read(start, FRAMES)
        heard = open_mel(clip.folder, hp.num_mels), start - clip.shift
        mels = get_segmented_mels(*heard, FRAMES, hp.fps, hp.syncnet_mel_step_size)
        return crops, mels.transpose(0, 2, 1)[:, None], self._opening(crops)

    def _opening(self, crops: np.ndarray) -> np.ndarray:
        size = crops.shape[1]
        return lip_opening(self.landmarks.find(crops, [(0, 0, size, size)] * len(crops)))

    @torch.no_grad()
    def scores(self, model: nn.Module, sync: float) -> dict[str, float]:
        """The means over the clips; {} where there is nothing to measure with. sync: of this
        validation; the log says in plain words where it is low and the lips do not follow.
        """
        if self.landmarks is None:
            return {}
        model.eval()
        found = []
        others = self.clips[1:] + self.clips[:1]
        for (crops, _, video), (_, mels, sound) in zip(self.clips, others, strict=True):
            batch = {"target": torch.from_numpy(crops)[:, None]}
            batch |= {"reference": batch["target"], "mels": mel_tensor(mels)}
            batch = assemble({name: tensor.to(self.device) for name, tensor in batch.items()})
            made = model(batch["mels"], batch["x"][:, :, 0]).float().clamp(0, 1)  # (N, 3, H, W)
            frames = (made.permute(0, 2, 3, 1) * 255).to(torch.uint8).cpu().numpy()
            found.append(lip_scores(self._opening(np.ascontiguousarray(frames)), sound, video))
        means = {name: float(np.mean([s[name] for s in found])) for name in found[0]}
        if sync < SURE and means["follows"] < LEAST_FOLLOWS and not self._warned:
            self._warned = True
            logger.warning(
                "the sync loss is low (%.2f), but the lips do not follow the sound (follows %.2f, "
                "leak %.2f): train with reference_dropout, see docs/training.md",
                *(sync, means["follows"], means["leak"]),
            )
        return means


def _first_run(clip: Clip) -> int | None:
    """Where FRAMES crops in a row begin, all with sound; None where the clip has no such run."""
    run = longest_run(clip.usable)  # of windows of 5 frames
    return int(run[0]) if len(run) >= FRAMES - 4 else None
