"""A lip-sync expert: what it makes of lips and of sound, and by how many frames the two are apart.

The expert is a SyncNet_color (self-trained or released) or SyncNet v2, the judge of the paper's LSE
metrics. For every shift of the sound against the picture the distances between the embeddings of
faces and of sound are averaged over the clip: the shift with the smallest mean gives the offset,
and how far that lies below the median is the confidence (Chung and Zisserman, "Out of time", 2016).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audio import MEL_RATE, MEL_STEPS, TRAINING_FPS, crop_audio_window, melspectrogram, pcm16
from errors import InputError
from hparams import HParams
from media.files import file_label

if TYPE_CHECKING:
    import torch
    from torch import nn

    from corpus.clips import Clip

MAX_SHIFT = 15  # frames; SyncNet's own search range
# Face windows in a row that an estimate needs. On held-out synthetic speakers, whole clips of 71
# are right to the frame; of 20, 99% are right within a frame; of 10, 91% (searching +-5).
MIN_WINDOWS = 10
FRAME_SAMPLES = 640  # of 16 kHz sound at 25 fps
WINDOW = 5  # frames that either expert sees at a time
BATCH = 32  # windows that are embedded at a time


@dataclass(frozen=True)
class Offset:
    """What an expert found.

    offset: frames by which the sound is early (negative: late), SyncNet's sign.
    confidence: median minus minimum of the curve; distance: the minimum.
    curve: (2v+1,) mean distances at the shifts s = -v..v: frame f against the sound of frame f + s.
    """

    offset: int
    confidence: float
    distance: float
    curve: np.ndarray

    @property
    def searched(self) -> int:
        """The largest shift that was looked at, either way."""
        return len(self.curve) // 2


class Expert:
    """A network that embeds windows of five frames, and the 0.2 s of sound heard with each.

    kind: the network's name. size: px, the side of the faces it is shown. published: whether its
    scores are the paper's LSE. label: its file's name and the beginning of the SHA-256 of its
    content, to tell in a record which expert it was.
    """

    kind: str
    size: int
    published = False

    def __init__(self, model: nn.Module, label: str) -> None:
        self.model, self.label = model, label
        self.device = next(model.parameters()).device

    def embed_lips(self, frames: Iterable[np.ndarray], batch_size: int = BATCH) -> np.ndarray:
        """The embeddings (T-4, D) of T frames uint8 BGR (size, size, 3); see FaceWindows."""
        windows = FaceWindows(self, batch_size)
        for frame in frames:
            windows.feed(frame)
        return windows.flush()

    def embed_sound(self, sound: np.ndarray, n: int, first: int = 0) -> np.ndarray:
        """The embeddings (n, D) of what is heard with the windows that begin with the frames
        `first`, first + 1 ...; sound int16 (samples,) at 16 kHz, sample 0 heard with frame 0.
        """
        raise NotImplementedError

    def hears(self, samples: int) -> int:
        """How many windows, from frame 0 on, have their sound in so many samples."""
        raise NotImplementedError

    def offset(
        self,
        lips: np.ndarray,
        sound: np.ndarray,
        max_shift: int = MAX_SHIFT,
        first: int = 0,
        whole: bool = False,
    ) -> Offset:
        """By how much sound and lips are apart; InputError where there is too little of them.

        lips: (W, D) of the windows that begin with the frames `first`, first + 1 ...; sound: as for
        embed_sound. The search goes as far as half of those windows still meet sound, at most
        max_shift either way; whole: as far as max_shift or not at all.
        """
        begin, end = self._span(first, len(lips), self.hears(len(sound)), max_shift)
        windows = max(0, min(len(lips), end - begin)) if self.published else len(lips)
        place = np.arange(windows) + first - begin  # of their own sound among what is heard
        met = [
            min(int(np.sum((place + s >= 0) & (place + s < end - begin))) for s in (shift, -shift))
            for shift in range(max_shift + 1)
        ]
        reach = sum(2 * count >= windows for count in met) - 1
        if whole and self.published:  # its sums are defined however short the clip is
            needed, least, limit = 1, 0, max_shift
        else:
            needed, least = MIN_WINDOWS, max_shift if whole else min(max_shift, MIN_WINDOWS // 2)
            limit = reach
        if windows < needed or reach < least:
            seconds = len(sound) / (FRAME_SAMPLES * TRAINING_FPS)
            raise InputError(
                f"too short for an offset: {len(lips)} windows of {WINDOW} frames with a face, "
                f"{seconds:.2f} s of sound"
            )
        heard = self.embed_sound(sound, end - begin, begin)
        return offset_of(slide(lips[:windows], heard, first - begin, limit, self.published))

    def _span(self, first: int, windows: int, hears: int, max_shift: int) -> tuple[int, int]:
        """The windows of sound that are slid along these windows of lips: begin, end."""
        return max(0, first - max_shift), min(first + windows + max_shift, hears)


class ColorExpert(Expert):
    """A SyncNet_color: unit vectors of the lower halves of faces and of mel windows."""

    kind = "SyncNet_color"

    def __init__(self, model: nn.Module, label: str) -> None:
        super().__init__(model, label)
        self.size = model.img_size

    def embed_frames(self, frames: np.ndarray) -> torch.Tensor:
        import torch

        lower = torch.from_numpy(frames[:, self.size // 2 :]).permute(0, 3, 1, 2).to(self.device)
        windows = lower.unfold(0, WINDOW, 1).movedim(-1, 1).flatten(1, 2)  # (N-4, 15, H/2, W)
        return self.model.embed_face(windows.float() / 255)

    def hears(self, samples: int) -> int:
        rows = samples // HParams.hop_size + 1
        return max(0, int(np.ceil((rows - MEL_STEPS + 1) * TRAINING_FPS / MEL_RATE)))

    def embed_sound(self, sound: np.ndarray, n: int, first: int = 0) -> np.ndarray:
        import torch

        mel = melspectrogram(sound.astype(np.float32) / 32768).T  # (T, 80)
        found = []
        for start in range(first, first + n, BATCH):
            frames = range(start, min(start + BATCH, first + n))
            x = np.stack([crop_audio_window(mel, frame).T for frame in frames])[:, None]
            with torch.inference_mode():
                found.append(self.model.embed_audio(torch.from_numpy(x).to(self.device)).cpu())
        return torch.cat(found).numpy()


class SyncNetV2(Expert):
    """SyncNet v2 as the published LSE scripts use it: they take one window fewer than there are,
    and beyond the ends of these the sound is zero vectors.
    """

    kind = "SyncNet_v2"
    size = 224
    published = True

    def embed_frames(self, frames: np.ndarray) -> torch.Tensor:
        import torch

        x = torch.from_numpy(frames).to(self.device)
        return self.model.forward_lip(x.permute(3, 0, 1, 2)[None].float())

    def hears(self, samples: int) -> int:
        return max(0, samples // FRAME_SAMPLES - WINDOW)

    def _span(self, first: int, windows: int, hears: int, max_shift: int) -> tuple[int, int]:
        return first, min(first + windows - 1, hears)

    def embed_sound(self, sound: np.ndarray, n: int, first: int = 0) -> np.ndarray:
        import torch

        from models.syncnet_v2 import MFCC_STEP, mfcc, mfcc_windows

        sound, found = sound[first * FRAME_SAMPLES :], []
        for start in range(0, n, BATCH):
            last, lead = min(start + BATCH, n), min(start, 1)
            # a part at a time, as MFCC take 1 MB a second; pre-emphasis reaches back by one sample
            part = sound[(start - lead) * FRAME_SAMPLES : (last + WINDOW) * FRAME_SAMPLES]
            x = mfcc_windows(mfcc(part)[:, MFCC_STEP * lead :], last - start)  # (B, 1, 13, 20)
            with torch.inference_mode():
                found.append(self.model.forward_aud(torch.from_numpy(x).to(self.device)).cpu())
        return torch.cat(found).numpy()


def load_expert(path: str | os.PathLike, device: str | torch.device = "auto") -> Expert:
    """The expert in a checkpoint, told apart by its parameters; InputError for other models."""
    from models.checkpoint import load_model, read_checkpoint
    from models.device import select_device

    selected = select_device(device)
    parameters = read_checkpoint(path)["state_dict"]
    expert = SyncNetV2 if "netcnnlip.0.weight" in parameters else ColorExpert
    try:
        model = load_model(path, expert.kind).to(selected)
    except InputError as error:
        raise InputError(f"an expert is a SyncNet_color or a SyncNet v2: {error}") from error
    return expert(model, file_label(path))


class FaceWindows:
    """An expert's embeddings of every window of five consecutive frames, as the frames come: uint8
    BGR (size, size, 3). At most batch_size + 4 frames are held.
    """

    def __init__(self, expert: Expert, batch_size: int = BATCH) -> None:
        self._embed: Callable[[np.ndarray], torch.Tensor] = expert.embed_frames
        self._hold = batch_size + WINDOW - 1
        self._frames: list[np.ndarray] = []
        self._embeddings: list[np.ndarray] = []
        self.frames = 0  # that have come so far

    def feed(self, frame: np.ndarray) -> None:
        self.frames += 1
        self._frames.append(frame)
        if len(self._frames) == self._hold:
            self._embed_held()

    def flush(self) -> np.ndarray:
        """The embeddings (frames - 4, D) of all windows; (0, 0) where there are fewer frames."""
        if len(self._frames) >= WINDOW:
            self._embed_held()
        return np.concatenate(self._embeddings) if self._embeddings else np.zeros((0, 0))

    def _embed_held(self) -> None:
        import torch

        with torch.inference_mode():
            self._embeddings.append(self._embed(np.stack(self._frames)).cpu().numpy())
        del self._frames[: 1 - WINDOW]


def slide(
    lips: np.ndarray, heard: np.ndarray, lead: int, limit: int, published: bool
) -> np.ndarray:
    """(2 limit + 1,) mean distances of lips (W, D) to the sound (H, D) at each shift. lead: the row
    of the first window's own sound.

    Over the pairs that exist; published: with zero vectors where there is no sound, and torch's
    1e-6 in each difference, as the released LSE has them.
    """
    curve = []
    for shift in range(-limit, limit + 1):
        rows = np.arange(len(lips)) + lead + shift
        there = (rows >= 0) & (rows < len(heard))
        beside = np.zeros_like(lips)
        beside[there] = heard[rows[there]]
        distances = np.linalg.norm(lips - beside + np.float32(1e-6 * published), axis=1)
        curve.append((distances if published else distances[there]).mean(dtype=np.float64))
    return np.array(curve)


def offset_of(curve: np.ndarray) -> Offset:
    """What a curve of mean distances (2v+1,) at the shifts -v..v says."""
    if not np.isfinite(curve).all():
        raise InputError("the expert's embeddings are not numbers; its checkpoint is damaged")
    best = int(curve.argmin())
    low = float(curve[best])
    return Offset(len(curve) // 2 - best, float(np.median(curve)) - low, low, curve)


def clip_offset(
    expert: Expert, folder: str | os.PathLike, hp: HParams, max_shift: int = MAX_SHIFT
) -> Offset:
    """The offset of the preprocessed clip in `folder`, from its crops and its audio.wav; a shift in
    a filelist changes neither. InputError where the clip is too short for the search,
    ValueError where a crop cannot be read.
    """
    clip, sound = open_clip(expert, folder, hp)
    lips, first = embed_run(expert, clip, clip.starts)
    try:
        return expert.offset(lips, sound, max_shift, first)
    except InputError as error:
        raise InputError(f"{clip.folder}: {error}") from error


def open_clip(expert: Expert, folder: str | os.PathLike, hp: HParams) -> tuple[Clip, np.ndarray]:
    """A preprocessed clip as the expert sees it, and its sound, int16 (n,)."""
    from audio import load_wav
    from corpus.clips import Clip, index_clip

    folder = os.fspath(folder)
    hp = dataclasses.replace(hp, img_size=expert.size)
    clip = index_clip(folder, hp, individual_mels=False)
    if not isinstance(clip, Clip):
        raise InputError(f"{folder}: {clip}")
    return clip, pcm16(load_wav(os.path.join(folder, "audio.wav")))


def embed_run(expert: Expert, clip: Clip, starts: np.ndarray) -> tuple[np.ndarray, int]:
    """The lips of the longest run of consecutive windows among `starts`: (W, D), first frame."""
    run = longest_run(starts)
    first = int(run[0])
    return expert.embed_lips(clip.read(first, len(run) + WINDOW - 1)), first


def longest_run(frames: np.ndarray) -> np.ndarray:
    """The longest stretch of consecutive numbers in an increasing array."""
    runs = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1)
    return max(runs, key=len)
