"""A lip-sync expert: what it makes of lips and of sound, and by how many frames the two are apart.

The expert is a SyncNet_color (self-trained or released) or SyncNet v2, the judge of the paper's LSE
metrics. For every shift of the sound against the picture the distances between the embeddings of
faces and of sound are averaged over the clip: the shift with the smallest mean gives the offset,
and how far that lies below the median is the confidence (Chung and Zisserman, "Out of time", 2016).
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audio import (
    MEL_RATE,
    MEL_STEPS,
    TRAINING_FPS,
    crop_audio_window,
    load_wav,
    melspectrogram,
    pcm16,
)
from errors import InputError
from face_detection.track import batched
from hparams import HParams
from media.files import file_label

if TYPE_CHECKING:
    import torch
    from torch import nn

MAX_SHIFT = 15  # frames; SyncNet's own search range
# Face windows in a row that an estimate needs. On held-out synthetic speakers, whole clips of 71
# are right to the frame; of 20, 99% are right within a frame; of 10, 91% (searching +-5).
MIN_WINDOWS = 10
FRAME_SAMPLES = 640  # of 16 kHz sound at 25 fps
WINDOW = 5  # frames that either expert sees at a time
BATCH = 32  # windows that are embedded at a time
CLEAR_SHIFT = 3  # frames; from here on a viewer notices, below the windows overlap almost wholly
REPORTED_SHIFTS = (1, 2, 3, 5, 10)  # frames; each has an accuracy of its own


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
        """The embeddings (T-4, D) of T frames uint8 BGR (size, size, 3), as they come; (0, 0) of
        fewer than five. At most batch_size + 4 frames are held.
        """
        import torch

        frames, found = iter(frames), []
        held = list(itertools.islice(frames, WINDOW - 1))
        for batch in batched(frames, batch_size):
            held += batch
            with torch.inference_mode():
                found.append(self.embed_frames(np.stack(held)).cpu().numpy())
            del held[: 1 - WINDOW]
        return np.concatenate(found) if found else np.zeros((0, 0))

    def embed_sound(self, sound: np.ndarray, n: int, first: int = 0) -> np.ndarray:
        """The embeddings (n, D) of what is heard with the windows that begin with the frames
        `first`, first + 1 ...; sound int16 (samples,) at 16 kHz, sample 0 heard with frame 0.
        """
        import torch

        with torch.inference_mode():
            batches = self._sound_windows(sound, n, first)
            found = [self._audio(torch.from_numpy(x).to(self.device)).cpu() for x in batches]
        return torch.cat(found).numpy()

    # what a subclass knows: the networks, what they are given, how many windows, from frame 0 on,
    # have their sound in so many samples
    _audio: Callable[[torch.Tensor], torch.Tensor]
    embed_frames: Callable[[np.ndarray], torch.Tensor]
    _sound_windows: Callable[[np.ndarray, int, int], Iterator[np.ndarray]]
    hears: Callable[[int], int]

    def offset(
        self, lips: np.ndarray, sound: np.ndarray, max_shift: int = MAX_SHIFT, first: int = 0,
        whole: bool = False,
    ) -> Offset:  # fmt: skip
        """By how much sound and lips are apart; InputError where there is too little of them.

        lips: (W, D) of the windows that begin with the frames `first`, first + 1 ...; sound: as for
        embed_sound. The search goes as far as half of those windows still meet sound, at most
        max_shift either way; whole: as far as max_shift or not at all.
        """
        begin, end = self._span(first, len(lips), self.hears(len(sound)), max_shift)
        count = max(0, end - first if self.published else len(lips))  # of the windows that are used
        shifts = np.arange(max_shift + 1)
        late, early = end - first - shifts, count - np.maximum(0, begin - first + shifts)
        reach = int(np.sum(2 * np.minimum(np.minimum(late, early), count) >= count)) - 1
        needed, least = MIN_WINDOWS, max_shift if whole else min(max_shift, MIN_WINDOWS // 2)
        if whole and self.published:  # its sums are defined however short the clip is
            needed, least, reach = 1, 0, max_shift
        if count < needed or reach < least:
            seconds = len(sound) / (FRAME_SAMPLES * TRAINING_FPS)
            raise InputError(
                f"too short for an offset: {len(lips)} windows of {WINDOW} frames with a face, "
                f"{seconds:.2f} s of sound"
            )
        heard = self.embed_sound(sound, end - begin, begin)
        return offset_of(slide(lips[:count], heard, first - begin, reach, self.published))

    def _span(self, first: int, windows: int, hears: int, max_shift: int) -> tuple[int, int]:
        """The windows of sound that are slid along these windows of lips: begin, end."""
        return max(0, first - max_shift), min(first + windows + max_shift, hears)


class ColorExpert(Expert):
    """A SyncNet_color: unit vectors of the lower halves of faces and of mel windows."""

    kind = "SyncNet_color"
    size = property(lambda self: self.model.img_size)
    _audio = property(lambda self: self.model.embed_audio)

    def embed_frames(self, frames: np.ndarray) -> torch.Tensor:
        import torch

        lower = torch.from_numpy(frames[:, self.size // 2 :]).permute(0, 3, 1, 2).to(self.device)
        windows = lower.unfold(0, WINDOW, 1).movedim(-1, 1).flatten(1, 2)  # (N-4, 15, H/2, W)
        return self.model.embed_face(windows.float() / 255)

    def hears(self, samples: int) -> int:
        rows = samples // HParams.hop_size + 1
        return max(0, int(np.ceil((rows - MEL_STEPS + 1) * TRAINING_FPS / MEL_RATE)))

    def _sound_windows(self, sound: np.ndarray, n: int, first: int) -> Iterator[np.ndarray]:
        mel = melspectrogram(sound.astype(np.float32) / 32768).T  # (T, 80)
        for start in range(first, first + n, BATCH):
            frames = range(start, min(start + BATCH, first + n))
            yield np.stack([crop_audio_window(mel, frame).T for frame in frames])[:, None]


class SyncNetV2(Expert):
    """SyncNet v2 as the published LSE scripts use it: they take one window fewer than there are,
    and beyond the ends of these the sound is zero vectors.
    """

    kind = "SyncNet_v2"
    size = 224
    published = True
    _audio = property(lambda self: self.model.forward_aud)

    def embed_frames(self, frames: np.ndarray) -> torch.Tensor:
        import torch

        x = torch.from_numpy(frames).to(self.device)
        return self.model.forward_lip(x.permute(3, 0, 1, 2)[None].float())

    def hears(self, samples: int) -> int:
        return max(0, samples // FRAME_SAMPLES - WINDOW)

    def _span(self, first: int, windows: int, hears: int, max_shift: int) -> tuple[int, int]:
        return first, min(first + windows - 1, hears)

    def _sound_windows(self, sound: np.ndarray, n: int, first: int) -> Iterator[np.ndarray]:
        from models.syncnet_v2 import MFCC_STEP, mfcc, mfcc_windows

        sound = sound[first * FRAME_SAMPLES :]
        for start in range(0, n, BATCH):
            last, lead = min(start + BATCH, n), min(start, 1)
            # a part at a time, as MFCC take 1 MB a second; pre-emphasis reaches back by one sample
            part = sound[(start - lead) * FRAME_SAMPLES : (last + WINDOW) * FRAME_SAMPLES]
            yield mfcc_windows(mfcc(part)[:, MFCC_STEP * lead :], last - start)  # (B, 1, 13, 20)


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
    """The offset of the longest run of windows in the preprocessed clip in `folder`, from its crops
    and its audio.wav; a shift in a filelist changes neither. InputError where the clip is too short
    for the search, ValueError where a crop cannot be read. expert: or what judges in its place.
    """
    from corpus.clips import index_clip

    folder = os.fspath(folder)
    clip = index_clip(folder, dataclasses.replace(hp, img_size=expert.size), individual_mels=False)
    if isinstance(clip, str):
        raise InputError(f"{folder}: {clip}")
    run = longest_run(clip.starts)
    first = int(run[0])
    sound = pcm16(load_wav(os.path.join(folder, "audio.wav")))
    lips = expert.embed_lips(clip.read(first, len(run) + WINDOW - 1))
    try:
        return expert.offset(lips, sound, max_shift, first)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def balanced(in_sync: np.ndarray, shifted: np.ndarray, threshold: float = 0.5) -> float:
    """Accuracy: the mean of the share of cosines in sync (N,) above the threshold and of shifted
    ones (M,) not above it.
    """
    return float(((in_sync > threshold).mean() + (shifted <= threshold).mean()) / 2)


def longest_run(frames: np.ndarray) -> np.ndarray:
    """The longest stretch of consecutive numbers in an increasing array."""
    runs = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1)
    return max(runs, key=len)
