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
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import torch

from audio import crop_audio_window
from corpus.clips import Clip, index_clip, open_mel
from errors import InputError
from hparams import HParams, read_split

NEAR = 3  # frames; windows of a clip that are no further apart are hard to tell
MAX_BAD_CLIPS = 50  # clips with something unreadable that a run puts up with

logger = logging.getLogger(__name__)


def get_segmented_mels(
    mel: np.ndarray, start_frame: int, length: int = 5, fps: float = 25.0, steps: int = 16
) -> np.ndarray:
    """One mel window for each of the `length` frames: (length, steps, 80). Frame i's begins one
    frame before it, so that the frame lies inside its window; frame 0 therefore cannot start a
    window (ShortWindow).
    """
    starts = range(start_frame - 1, start_frame - 1 + length)
    return np.stack([crop_audio_window(mel, start, fps, steps) for start in starts])


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


class Jitter:
    """What one sample's pictures and sound are varied by, the same in all its frames: mirror, turn,
    zoom, shift, colour; loudness, pitch and tone. Real corpora have few speakers and fewer rooms,
    and a network knows them by their colours and places sooner than it learns to read lips.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.flip = rng.random() < 0.5
        self.angle, self.zoom = rng.uniform(-8, 8), np.exp(rng.uniform(-0.1, 0.1))
        self.shift = rng.uniform(-0.04, 0.04, 2)  # of the picture's side
        gain = rng.uniform(0.75, 1.25) * rng.uniform(0.9, 1.1, 3)  # of blue, green, red
        levels = np.arange(256) / 255
        curves = gain[:, None] * levels ** np.exp(rng.uniform(-0.3, 0.3))
        curves = (curves - 0.5) * rng.uniform(0.8, 1.2) + 0.5
        self.curves = (255 * curves.clip(0, 1)).astype(np.uint8).T[:, None]  # (256, 1, 3)
        self.grey = rng.random() < 0.15
        self.loudness, self.bands = rng.uniform(-0.6, 0.6), int(rng.integers(-2, 3))
        # as another microphone would hear it: a smooth curve over the bands, a standard deviation
        # of 4 dB (12.5 dB are 1)
        self.tone = np.interp(np.arange(80), np.linspace(0, 79, 6), rng.normal(0, 0.32, 6))

    def pictures(self, frames: np.ndarray) -> np.ndarray:
        """uint8 BGR (T, H, W, 3)."""
        height, width = frames.shape[1:3]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), self.angle, self.zoom)
        matrix[:, 2] += self.shift * (width, height)
        if self.flip:
            matrix = matrix @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], float)
        varied = np.empty_like(frames)
        for frame, place in zip(frames, varied, strict=True):
            frame = cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
            if self.grey:
                frame = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
            cv2.LUT(frame, self.curves, dst=place)
        return varied

    def mels(self, windows: np.ndarray) -> np.ndarray:
        """Mel windows (..., 80, 16): louder or softer, duller or brighter, some bands higher or
        lower.
        """
        moved = np.roll(windows, self.bands, axis=-2)
        if self.bands > 0:
            moved[..., : self.bands, :] = windows[..., :1, :]
        elif self.bands < 0:
            moved[..., self.bands :, :] = windows[..., -1:, :]
        # silence stays at the floor
        return np.where(
            moved > -4, np.clip(moved + self.loudness + self.tone[:, None], -4, 4), moved
        )


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
        self.hp, self.split = hp, split
        folders, shifts = zip(*read_split(data_root, split, filelists), strict=True)
        with ThreadPoolExecutor(16) as pool:  # it waits for the file system
            found = list(pool.map(self.index, folders, shifts))
        self.clips = [clip for clip in found if isinstance(clip, Clip)]
        self.unusable = Counter(reason for reason in found if isinstance(reason, str))
        reasons = ", ".join(
            f"{count} with {reason}, first {folders[found.index(reason)]}"
            for reason, count in self.unusable.most_common()
        )
        if not self.clips:
            raise InputError(
                f"none of the {len(folders)} clips of the split {split!r} under {data_root} "
                f"can be used: {reasons}; run preprocess.py, or check --data_root and the filelist"
            )
        if reasons:
            left_out = len(folders) - len(self.clips)
            logger.warning(
                "%s: %d of %d clips left out: %s", split, left_out, len(folders), reasons
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

    def index(self, folder: str, shift: int = 0) -> Clip | str:
        """The clip in `folder`, or the reason why it is of no use here."""
        return index_clip(folder, self.hp, self.individual_mels, shift)

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def _choose(self, clip: Clip, rng: np.random.Generator, gap: int = 1) -> tuple[int, int]:
        """A usable start frame and another one, for the reference or the wrong window; at least
        `gap` frames away where the clip has such, else as far as can be.
        """
        start = int(rng.choice(clip.usable))
        away = np.abs(clip.starts - start)
        return start, int(rng.choice(clip.starts[away >= min(gap, away.max())]))

    def _jitter(self, rng: np.random.Generator) -> Jitter | None:
        """Of a training sample where hp.augment asks for it; validation sees what there is."""
        return Jitter(rng) if self.hp.augment and self.split == "train" else None


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
        jitter = self._jitter(rng)
        return {
            "window": self.lower_halves(clip, seen, jitter),
            "mel": self._mels(clip, [heard], jitter)[0],
            "y": torch.tensor([float(heard == seen)]),
        }

    def lower_halves(self, clip: Clip, start: int, jitter: Jitter | None = None) -> torch.Tensor:
        """The T crops from frame `start` on, uint8 BGR (T, H/2, W, 3)."""
        half, length = self.hp.img_size // 2, self.hp.syncnet_T
        if jitter is None:
            return torch.from_numpy(clip.read(start, length, top=half))
        return torch.from_numpy(jitter.pictures(clip.read(start, length))[:, half:].copy())

    def _mels(
        self, clip: Clip, starts: Sequence[int], jitter: Jitter | None = None
    ) -> torch.Tensor:
        """Mel windows (N, 1, 80, 16) that begin with the frames `starts`."""
        hp = self.hp
        mel = open_mel(clip.folder, hp.num_mels)
        windows = [
            crop_audio_window(mel, start - clip.shift, hp.fps, hp.syncnet_mel_step_size)
            for start in starts
        ]
        mels = np.stack(windows).transpose(0, 2, 1)
        return mel_tensor(jitter.mels(mels) if jitter else mels)[:, None]


class SyncNetContrastiveDataset(SyncNetDataset):
    """Samples of the contrastive expert: P = hp.contrastive_windows windows of one clip, each with
    its own sound.

    window uint8 BGR (P, T, H/2, W, 3) lower face halves, mel (P, 1, 80, 16), start (P,) the frames
    with which they begin, all different. Clips with fewer usable windows are left out.
    """

    def index(self, folder: str, shift: int = 0) -> Clip | str:
        clip = super().index(folder, shift)
        if isinstance(clip, Clip) and len(clip.usable) < self.hp.contrastive_windows:
            return f"fewer than contrastive_windows = {self.hp.contrastive_windows} windows"
        return clip

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        starts = self._starts(clip, rng)
        jitter = self._jitter(rng)  # one: else it would tell a clip's windows apart
        windows = [self.lower_halves(clip, int(start), jitter) for start in starts]
        return {
            "window": torch.stack(windows),
            "mel": self._mels(clip, starts, jitter),
            "start": torch.from_numpy(starts.astype(np.int64)),
        }

    def _starts(self, clip: Clip, rng: np.random.Generator) -> np.ndarray:
        """Different windows (P,) of a clip, the last hp.contrastive_near of them 1 to 3 frames from
        an earlier one where the clip has such: the wrong sounds that are hardest to tell.
        """
        count, near = self.hp.contrastive_windows, self.hp.contrastive_near
        starts = rng.choice(clip.usable, count, replace=False)
        for place in range(max(1, count - near), count):
            others = np.delete(starts, place)
            gap = np.abs(clip.usable - starts[place - max(1, count - near)])
            free = clip.usable[(gap >= 1) & (gap <= NEAR) & ~np.isin(clip.usable, others)]
            starts[place] = rng.choice(free) if len(free) else starts[place]
        return starts


class Wav2LipDataset(WindowDataset):
    """Samples of the generators: target and reference windows uint8 BGR (T, H, W, 3), indiv_mels
    (T, 1, 80, 16), mel (1, 80, 16) for the expert.

    In training the lower half of hp.reference_dropout of the references is black, as the target's
    always is, and they lie hp.reference_gap frames away: a generator that can copy the mouth of a
    reference near its target never learns to listen (docs/training.md).
    """

    individual_mels = True

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        hp = self.hp
        start, other = self._choose(clip, rng, max(1, hp.reference_gap))
        heard = open_mel(clip.folder, hp.num_mels), start - clip.shift
        mels = get_segmented_mels(*heard, hp.syncnet_T, hp.fps, hp.syncnet_mel_step_size)
        mels = mels.transpose(0, 2, 1)  # (5, 80, 16)
        sync_mel = crop_audio_window(*heard, hp.fps, hp.syncnet_mel_step_size).T  # (80, 16)
        target, reference = clip.read(start, hp.syncnet_T), clip.read(other, hp.syncnet_T)
        jitter = self._jitter(rng)
        if jitter:
            target, reference = jitter.pictures(target), jitter.pictures(reference)
            mels, sync_mel = jitter.mels(mels), jitter.mels(sync_mel)
        # drawn only where it is asked for: else the samples of other runs would change
        dropout = hp.reference_dropout if self.split == "train" else 0.0
        if dropout and rng.random() < dropout:
            reference[:, hp.img_size // 2 :] = 0
        return {
            "target": torch.from_numpy(target),
            "reference": torch.from_numpy(reference),
            "indiv_mels": mel_tensor(mels)[:, None],
            "mel": mel_tensor(sync_mel)[None],
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
