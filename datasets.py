"""The windows that the expert and the generators learn from (paper sections 3.1-3.3; FACTS of the
released loader).

A sample is chosen by (seed, epoch, clip) alone, so it is the same whatever the number of workers,
after a resume and in every validation.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from audio import MEL_RATE
from errors import InputError
from hparams import HParams, get_image_list

MIN_CROPS = 3  # a clip needs more than this many times syncnet_T crops
MAX_BAD_SAMPLES = (
    50  # unreadable samples tolerated by one process before the data are called broken
)

logger = logging.getLogger(__name__)


class ShortWindow(ValueError):
    """The mel spectrogram ends before the window does."""


class UnreadableFrame(ValueError):
    """A face crop is missing or is no picture."""


def get_frame_id(path: str) -> int:
    """Frame number of a crop: 12 for `.../12.jpg`."""
    return int(os.path.splitext(os.path.basename(path))[0])


def get_window(start_path: str, length: int = 5) -> list[str]:
    """Paths of the `length` crops that begin with `start_path`, existing or not."""
    folder, first = os.path.dirname(start_path), get_frame_id(start_path)
    return [os.path.join(folder, f"{frame}.jpg") for frame in range(first, first + length)]


def read_window(paths: Sequence[str], img_size: int = 96) -> list[np.ndarray]:
    """The crops as uint8 BGR (img_size, img_size, 3); UnreadableFrame names a bad one."""
    window = []
    for path in paths:
        image = cv2.imread(path, cv2.IMREAD_COLOR)
        if image is None:
            raise UnreadableFrame(f"cannot read {path}")
        window.append(cv2.resize(image, (img_size, img_size)))
    return window


def prepare_window(window: Sequence[np.ndarray]) -> np.ndarray:
    """T frames uint8 (H, W, 3) -> float32 (3, T, H, W) in 0..1."""
    return np.asarray(window, np.float32).transpose(3, 0, 1, 2) / 255.0


def crop_audio_window(
    mel: np.ndarray, start_frame: int, fps: float = 25.0, steps: int = 16
) -> np.ndarray:
    """The `steps` mel rows that begin with video frame `start_frame`. mel (T, 80) -> (steps, 80).

    The first row is truncated, not rounded, as in the released code: rounding would shift every
    third window by a row.
    """
    first = int(MEL_RATE * start_frame / fps)
    window = mel[first : first + steps] if start_frame >= 0 else mel[:0]
    if len(window) < steps:
        raise ShortWindow(
            f"frame {start_frame}: mel has {len(mel)} rows, needs {first}..{first + steps}"
        )
    return window


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


@dataclass(frozen=True)
class Clip:
    """A preprocessed clip: its folder, the frames at which a complete window of crops begins, and
    which of those may serve as the sample's own window because their audio is complete too.
    """

    folder: str
    starts: np.ndarray  # (S,) frame numbers
    usable: np.ndarray  # (U,) frame numbers, a subset

    def frame_path(self, frame: int) -> str:
        return os.path.join(self.folder, f"{frame}.jpg")


def index_clip(folder: str, hp: HParams, individual_mels: bool) -> Clip | str:
    """The clip in `folder`, or the reason why it holds no window. `individual_mels`: the
    generator's stricter rule.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return "folder missing"
    frames = np.array(
        sorted(int(name[:-4]) for name in names if name.endswith(".jpg") and name[:-4].isdigit()),
        int,
    )
    if len(frames) <= MIN_CROPS * hp.syncnet_T:
        return f"{MIN_CROPS * hp.syncnet_T} face crops or fewer"
    try:
        rows = len(np.load(os.path.join(folder, "mel.npy"), mmap_mode="r"))
    except (OSError, ValueError, EOFError, TypeError):
        return "mel.npy missing or damaged"
    last = np.arange(len(frames)) + hp.syncnet_T - 1
    complete = (last < len(frames)) & (
        frames[np.minimum(last, len(frames) - 1)] - frames == hp.syncnet_T - 1
    )
    starts = frames[complete]
    needed = np.floor(MEL_RATE * starts / hp.fps) + hp.syncnet_mel_step_size
    if individual_mels:
        needed = (
            np.floor(MEL_RATE * (starts + hp.syncnet_T - 2) / hp.fps) + hp.syncnet_mel_step_size
        )
        needed = np.where(starts == 0, np.inf, np.maximum(needed, _sync_rows(starts, hp)))
    usable = starts[needed <= rows]
    if len(starts) < 2 or not len(usable):
        return "no five consecutive crops with complete audio"
    return Clip(folder, starts, usable)


def _sync_rows(starts: np.ndarray, hp: HParams) -> np.ndarray:
    return np.floor(MEL_RATE * starts / hp.fps) + hp.syncnet_mel_step_size


class WindowDataset(torch.utils.data.Dataset):
    """What both data sets share: the index of clips, seeded choice of windows, bounded tolerance
    for bad files.

    Items are addressed by (epoch, clip index); a plain index means epoch 0. Raises InputError where
    the split has no usable clip, with the counts of reasons.
    """

    individual_mels = False

    def __init__(
        self, data_root: str, split: str, hp: HParams, filelists: str = "filelists"
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self.hp, self.split, self.bad_samples = hp, split, 0
        folders = get_image_list(data_root, split, filelists)
        with ThreadPoolExecutor(
            16
        ) as pool:  # the index waits for the file system, not for the processor
            found = list(
                pool.map(lambda folder: index_clip(folder, hp, self.individual_mels), folders)
            )
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

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        for attempt in range(MAX_BAD_SAMPLES):
            # an unreadable sample is replaced by the next clip's, in a way that a rerun repeats
            clip = self.clips[(index + attempt) % len(self.clips)]
            rng = np.random.default_rng((self.hp.seed, epoch, index, attempt))
            try:
                return self.sample(clip, rng)
            except (OSError, ValueError, EOFError) as error:
                self.bad_samples += 1
                logger.warning("%s: unreadable sample %d: %s", self.split, self.bad_samples, error)
                reason = f"{clip.folder}: {error}"
                if self.bad_samples >= MAX_BAD_SAMPLES:
                    break
        raise InputError(
            f"{self.bad_samples} samples of the split {self.split!r} could not be read, "
            f"the last in {reason}"
        )

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def _mel(self, clip: Clip) -> np.ndarray:
        mel = np.load(os.path.join(clip.folder, "mel.npy"), mmap_mode="r")  # (T, 80)
        if mel.ndim != 2 or mel.shape[1] != self.hp.num_mels:
            raise ValueError(
                f"{clip.folder}/mel.npy has shape {mel.shape}, expected (T, {self.hp.num_mels})"
            )
        return mel

    def _frames(self, clip: Clip, start: int) -> np.ndarray:
        """(3, T, H, W) in 0..1 of the window that begins at frame `start`."""
        return prepare_window(
            read_window(get_window(clip.frame_path(start), self.hp.syncnet_T), self.hp.img_size)
        )

    def _choose(self, clip: Clip, rng: np.random.Generator) -> tuple[int, int]:
        """A usable start frame and another one, for the reference or the wrong window."""
        start = int(rng.choice(clip.usable))
        return start, int(rng.choice(clip.starts[clip.starts != start]))


class SyncNetDataset(WindowDataset):
    """Samples of the expert: x (15, 48, 96) lower face halves, mel (1, 80, 16), y (1,) 1 = in sync,
    0 = not.
    """

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        start, wrong = self._choose(clip, rng)
        in_sync = rng.random() < 0.5
        mel = crop_audio_window(
            self._mel(clip), start, self.hp.fps, self.hp.syncnet_mel_step_size
        )  # (16, 80)
        window = self._frames(clip, start if in_sync else wrong)
        lower = window[:, :, window.shape[2] // 2 :]  # (3, T, H/2, W)
        x = lower.transpose(1, 0, 2, 3).reshape(
            -1, *lower.shape[2:]
        )  # (15, H/2, W): frame by frame
        return {
            "x": torch.from_numpy(x.copy()),
            "mel": torch.from_numpy(mel.T.copy())[None],
            "y": torch.tensor([float(in_sync)]),
        }


class Wav2LipDataset(WindowDataset):
    """Samples of the generators.

    x (6, 5, 96, 96) = [target window with its lower half zeroed | reference window], indiv_mels (5,
    1, 80, 16), mel (1, 80, 16) for the expert, y (3, 5, 96, 96).
    """

    individual_mels = True

    def sample(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        hp = self.hp
        start, wrong = self._choose(clip, rng)
        mel = self._mel(clip)
        indiv_mels = get_segmented_mels(
            mel, start, hp.syncnet_T, hp.fps, hp.syncnet_mel_step_size
        )  # (5, 16, 80)
        sync_mel = crop_audio_window(mel, start, hp.fps, hp.syncnet_mel_step_size)  # (16, 80)
        y = self._frames(clip, start)
        masked = y.copy()
        masked[:, :, y.shape[2] // 2 :] = 0
        x = np.concatenate([masked, self._frames(clip, wrong)])  # (6, T, H, W)
        return {
            "x": torch.from_numpy(x),
            "indiv_mels": torch.from_numpy(indiv_mels.transpose(0, 2, 1).copy())[:, None],
            "mel": torch.from_numpy(sync_mel.T.copy())[None],
            "y": torch.from_numpy(y),
        }
