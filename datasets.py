"""The windows that the expert and the generators learn from (paper sections 3.1-3.3; FACTS of the
released loader).

A sample is chosen by (seed, epoch, clip) alone, so it is the same whatever the number of workers,
after a resume and in every validation. It costs a read of the window's crops and of its mel rows,
nothing else of the clip; pictures stay uint8 until they are on the training device (`assemble`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from audio import crop_audio_window
from corpus.clips import Clip, index_clip, open_mel
from errors import InputError
from hparams import HParams, get_image_list

MAX_BAD_CLIPS = 50  # clips with something unreadable that a run puts up with

logger = logging.getLogger(__name__)


def get_segmented_mels(
    mel: np.ndarray, start_frame: int, length: int = 5, fps: float = 25.0, steps: int = 16
) -> np.ndarray:
    """One mel window for each of the `length` frames: (length, steps, 80). Frame i's begins one
    frame before it, so that the frame lies inside its window; frame 0 therefore cannot start a
    window (ShortWindow).
    """
    return np.stack(
        [
            crop_audio_window(mel, frame - 1, fps, steps)
            for frame in range(start_frame, start_frame + length)
        ]
    )


def prepare_window(frames: torch.Tensor) -> torch.Tensor:
    """Frames uint8 (..., T, H, W, 3) -> float32 (..., 3, T, H, W) in 0..1, on the same device."""
    planes = frames.movedim(-1, -4).contiguous().float()
    # divided by a tensor, as GPUs multiply by a plain number's reciprocal: not the same last bit
    return planes / torch.full((), 255.0, device=frames.device)


def assemble(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the training steps use, made of a batch of samples on the device that it lies on.

    Generator: x (B, 6, T, H, W) = [target window with its lower half zeroed | reference window], y
    (B, 3, T, H, W) the target window, indiv_mels (B, T, 1, 80, 16), mel (B, 1, 80, 16). Expert: x
    (B, 15, H/2, W) the lower halves, frame by frame, mel (B, 1, 80, 16), y (B, 1). Contrastive
    expert, P windows a clip: x and mel with B*P windows, clip by clip, group (B*P,) the clip that
    each is of and start (B*P,) its first frame. Pictures are float32 in 0..1; what else a batch has
    passes as it is. Samples travel as uint8 because that is a quarter of the bytes.
    """
    batch = dict(batch)
    if "start" in batch:  # (B, P): windows by the clip
        group = batch["clip"].repeat_interleave(batch["start"].shape[1])
        batch |= {name: batch[name].flatten(0, 1) for name in ("window", "mel", "start")}
        batch["group"] = group
    if "window" in batch:
        window = prepare_window(batch.pop("window"))  # (B, 3, T, H/2, W)
        return {"x": window.transpose(1, 2).flatten(1, 2), **batch}
    y = prepare_window(batch.pop("target"))
    masked = y.clone()
    masked[..., y.shape[-2] // 2 :, :] = 0
    x = torch.cat([masked, prepare_window(batch.pop("reference"))], dim=1)
    return {"x": x, "y": y, **batch}


class WindowDataset(torch.utils.data.Dataset):
    """What the data sets share: the index of clips, seeded choice of windows, bounded tolerance
    for bad files.

    Items are addressed by (epoch, clip index); a plain index means epoch 0. A sample's "clip" is
    the index of the clip that it is of: another one's where that could not be read. Raises
    InputError where the split has no usable clip, with the counts of reasons.
    """

    individual_mels = False

    def __init__(
        self, data_root: str, split: str, hp: HParams, filelists: str = "filelists"
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.hp, self.split = hp, split
        folders = get_image_list(data_root, split, filelists)
        with ThreadPoolExecutor(
            16
        ) as pool:  # the index waits for the file system, not for the processor
            found = list(pool.map(self.index, folders))
        self.clips = [clip for clip in found if isinstance(clip, Clip)]
        self.unusable = Counter(reason for reason in found if isinstance(reason, str))
        reasons = ", ".join(
            f"{count} with {reason}" for reason, count in self.unusable.most_common()
        )
        if not self.clips:
            raise InputError(
                f"none of the {len(folders)} clips of the split {split!r} under {data_root} "
                f"can be used: {reasons}; run preprocess.py, or check --data_root and the filelist"
            )
        if reasons:
            logger.warning(
                "%s: %d of %d clips left out: %s",
                split,
                len(folders) - len(self.clips),
                len(folders),
                reasons,
            )
        # shared with the loader's workers, so that all of them together report a clip once
        self._bad = torch.zeros(len(self.clips), dtype=torch.bool).share_memory_()

    @property
    def bad_clips(self) -> int:
        """How many clips have turned out unreadable, wholly or in part, in any process that loads
        from this data set.
        """
        return int(self._bad.sum())

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        for attempt in range(MAX_BAD_CLIPS):
            # an unreadable sample is replaced by the next clip's, in a way that a rerun repeats:
            # which clips are known to be bad must not count
            used = (index + attempt) % len(self.clips)
            clip = self.clips[used]
            rng = np.random.default_rng((self.hp.seed, epoch, index, attempt))
            try:
                return {**self.sample(clip, rng), "clip": torch.tensor(used)}
            except (OSError, ValueError, EOFError) as error:
                reason = f"{clip.folder}: {error}"
                self._report(used, reason)
                if self.bad_clips >= MAX_BAD_CLIPS:
                    break
        raise InputError(
            f"{self.bad_clips} of the {len(self.clips)} clips of the split {self.split!r} could "
            f"not be read, the last was {reason}"
        )

    def _report(self, index: int, reason: str) -> None:
        """Log a bad clip when it is first met: a run meets it again in every epoch."""
        if not self._bad[index]:
            self._bad[index] = True
            logger.warning("%s: bad clip %s", self.split, reason)

    def index(self, folder: str) -> Clip | str:
        """The clip in `folder`, or the reason why it is of no use here."""
        return index_clip(folder, self.hp, self.individual_mels)

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def _choose(self, clip: Clip, rng: np.random.Generator) -> tuple[int, int]:
        """A usable start frame and another one, for the reference or the wrong window."""
        start = int(rng.choice(clip.usable))
        return start, int(rng.choice(clip.starts[clip.starts != start]))


class SyncNetDataset(WindowDataset):
    """Samples of the expert: window uint8 BGR (T, H/2, W, 3) lower face halves, mel (1, 80, 16), y
    (1,) 1 = in sync, 0 = not.
    """

    def draw(self, clip: Clip, rng: np.random.Generator) -> tuple[int, int]:
        """Start frames of a sample's sound and of its picture: with even odds the same."""
        start, wrong = self._choose(clip, rng)
        return start, start if rng.random() < 0.5 else wrong

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        heard, seen = self.draw(clip, rng)
        return {
            "window": self.lower_halves(clip, seen),
            "mel": self._mels(clip, [heard])[0],
            "y": torch.tensor([float(heard == seen)]),
        }

    def lower_halves(self, clip: Clip, start: int) -> torch.Tensor:
        """The T crops from frame `start` on, uint8 BGR (T, H/2, W, 3)."""
        return torch.from_numpy(clip.read(start, self.hp.syncnet_T, top=self.hp.img_size // 2))

    def _mels(self, clip: Clip, starts: Sequence[int]) -> torch.Tensor:
        """Mel windows (N, 1, 80, 16) that begin with the frames `starts`."""
        hp = self.hp
        mel = open_mel(clip.folder, hp.num_mels)
        windows = [
            crop_audio_window(mel, start, hp.fps, hp.syncnet_mel_step_size) for start in starts
        ]
        return mel_tensor(np.stack(windows).transpose(0, 2, 1))[:, None]


class SyncNetContrastiveDataset(SyncNetDataset):
    """Samples of the contrastive expert: P = hp.contrastive_windows windows of one clip, each with
    its own sound.

    window uint8 BGR (P, T, H/2, W, 3) lower face halves, mel (P, 1, 80, 16), start (P,) the frames
    with which they begin, all different. Clips with fewer usable windows are left out.
    """

    def index(self, folder: str) -> Clip | str:
        clip = super().index(folder)
        if isinstance(clip, Clip) and len(clip.usable) < self.hp.contrastive_windows:
            return f"fewer than contrastive_windows = {self.hp.contrastive_windows} windows"
        return clip

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        starts = rng.choice(clip.usable, self.hp.contrastive_windows, replace=False)
        return {
            "window": torch.stack([self.lower_halves(clip, int(start)) for start in starts]),
            "mel": self._mels(clip, starts),
            "start": torch.from_numpy(starts.astype(np.int64)),
        }


class Wav2LipDataset(WindowDataset):
    """Samples of the generators: target and reference windows uint8 BGR (T, H, W, 3), indiv_mels
    (T, 1, 80, 16), mel (1, 80, 16) for the expert.
    """

    individual_mels = True

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        hp = self.hp
        start, wrong = self._choose(clip, rng)
        mel = open_mel(clip.folder, hp.num_mels)
        indiv_mels = get_segmented_mels(
            mel, start, hp.syncnet_T, hp.fps, hp.syncnet_mel_step_size
        )  # (5, 16, 80)
        sync_mel = crop_audio_window(mel, start, hp.fps, hp.syncnet_mel_step_size)  # (16, 80)
        return {
            "target": torch.from_numpy(clip.read(start, hp.syncnet_T)),
            "reference": torch.from_numpy(clip.read(wrong, hp.syncnet_T)),
            "indiv_mels": mel_tensor(indiv_mels.transpose(0, 2, 1))[:, None],
            "mel": mel_tensor(sync_mel.T)[None],
        }


def mel_tensor(mel: np.ndarray) -> torch.Tensor:
    """A copy as float32: mel rows are views of a file that is mapped read-only. ValueError where
    they are not all finite: one such sample would end the run.
    """
    with np.errstate(over="ignore"):
        copy = np.array(mel, np.float32, order="C")
    if not np.isfinite(copy).all():
        raise ValueError("mel.npy holds values that are not finite")
    return torch.from_numpy(copy)
