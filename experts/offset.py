"""By how many frames a clip's sound is early or late, as a lip-sync expert sees and hears it.

The expert is a SyncNet_color (self-trained or released) or SyncNet v2, the judge of the paper's LSE
metrics. For every shift of the sound against the picture the distances between the embeddings of
faces and of sound are averaged over the clip: the shift with the smallest mean gives the offset,
and how far that lies below the median is the confidence (Chung and Zisserman, "Out of time", 2016).
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audio import pcm16
from errors import InputError
from experts.accuracy import MAX_SHIFT, embed_faces, embed_mels, longest_run
from hparams import HParams
from media.files import file_label

if TYPE_CHECKING:
    import torch
    from torch import nn

    from corpus.clips import Clip

# Face windows in a row that an estimate needs. On held-out synthetic speakers, whole clips of 71
# are right to the frame; of 20, 99% are right within a frame; of 10, 91% (searching +-5).
MIN_WINDOWS = 10
FRAME_SAMPLES = 640  # of 16 kHz sound at 25 fps
LIP_SIZE = 224  # px: the side of SyncNet v2's frames
WINDOW = 5  # frames that either expert sees at a time


@dataclass(frozen=True)
class Expert:
    """A network that embeds lips and sound.

    kind: "SyncNet_color" or "SyncNet_v2". label: its file's name and the beginning of the SHA-256
    of its content, to tell in a record which expert it was.
    """

    model: nn.Module
    kind: str
    label: str


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


def load_expert(path: str | os.PathLike, device: str | torch.device = "auto") -> Expert:
    """The expert in a checkpoint, told apart by its parameters; InputError for other models."""
    from models.checkpoint import load_model, read_checkpoint
    from models.device import select_device

    selected = select_device(device)
    parameters = read_checkpoint(path)["state_dict"]
    kind = "SyncNet_v2" if "netcnnlip.0.weight" in parameters else "SyncNet_color"
    try:
        model = load_model(path, kind).to(selected)
    except InputError as error:
        raise InputError(f"an expert is a SyncNet_color or a SyncNet v2: {error}") from error
    return Expert(model, kind, file_label(path))


def clip_offset(
    expert: Expert, folder: str | os.PathLike, hp: HParams, max_shift: int = MAX_SHIFT
) -> Offset:
    """The offset of the preprocessed clip in `folder`, from its crops and its audio.wav.

    mel.npy is not heard, so the answer is the same after a correction (preparation/sync.py). Clips
    with gaps are cut to their longest run of crops. The search goes as far as half of the face
    windows still meet sound, at most +-max_shift; InputError where the clip is too short for that,
    ValueError where a crop cannot be read.
    """
    from audio import load_wav
    from corpus.clips import Clip, index_clip

    folder = os.fspath(folder)
    if expert.kind == "SyncNet_v2":
        curve, size = _curve_v2, LIP_SIZE
    else:
        curve, size = _curve_color, expert.model.img_size
    hp = dataclasses.replace(hp, img_size=size)
    clip = index_clip(folder, hp, individual_mels=False)
    if not isinstance(clip, Clip):
        raise InputError(f"{folder}: {clip}")
    starts = longest_run(clip.starts)
    wav = load_wav(os.path.join(folder, "audio.wav"), hp.sample_rate)
    try:
        return offset_of(curve(expert.model, clip, starts, wav, hp, max_shift))
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def _curve_color(
    model, clip: Clip, starts: np.ndarray, wav: np.ndarray, hp: HParams, max_shift: int
) -> np.ndarray:
    """The sound reaches beyond a run of crops as far as the clip does."""
    return curve_color(model, embed_faces(model, clip, starts, hp), starts, wav, hp, max_shift)


def curve_color(
    model, face: np.ndarray, starts: np.ndarray, wav: np.ndarray, hp: HParams, max_shift: int
) -> np.ndarray:
    """(2v+1,) mean distances of a SyncNet_color's unit vectors, over the pairs of windows that
    exist; v = max_shift, or less where the clip is short. InputError where it is too short for any.

    face: (W, D) embeddings of the face windows that begin with the consecutive frames `starts`
    (W,). wav: float (n,), sample 0 being heard with frame 0.
    """
    from audio import MEL_RATE, melspectrogram

    _search_limit(len(starts), max_shift, max_shift)
    mel = melspectrogram(wav, hp).T  # (T, 80)
    heard = np.arange(max(0, starts[0] - max_shift), starts[-1] + max_shift + 1)
    heard = heard[np.floor(MEL_RATE * heard / hp.fps) + hp.syncnet_mel_step_size <= len(mel)]
    pairs = {
        shift: np.flatnonzero(np.isin(starts + shift, heard))  # face windows that meet sound
        for shift in range(-max_shift, max_shift + 1)
    }
    enough = (2 * min(len(pairs[s]), len(pairs[-s])) >= len(starts) for s in range(max_shift + 1))
    reach = [shift for shift, met in enumerate(enough) if met]
    limit = _search_limit(len(starts), len(reach) - 1, max_shift)
    audio = embed_mels(model, mel, heard, hp)  # (A, D)
    first = starts[0] - heard[0]  # row of the sound of the first face window
    return np.array(
        [
            np.linalg.norm(face[pairs[s]] - audio[pairs[s] + first + s], axis=1).mean()
            for s in range(-limit, limit + 1)
        ]
    )


def _search_limit(windows: int, reach: int, max_shift: int) -> int:
    """The shifts to search, either way; InputError where the clip is too short for any."""
    if windows < MIN_WINDOWS or reach < min(max_shift, MIN_WINDOWS // 2):
        raise InputError("too short for an offset")
    return min(max_shift, reach)


def _curve_v2(
    model, clip: Clip, starts: np.ndarray, wav: np.ndarray, hp: HParams, max_shift: int
) -> np.ndarray:
    """As released, on the crops scaled to 224 x 224; where the clip is short, a shorter search."""
    first, length = int(starts[0]), len(starts) + hp.syncnet_T - 1
    heard = wav[first * FRAME_SAMPLES : (first + length) * FRAME_SAMPLES]
    windows = window_count(length, len(heard))
    limit = _search_limit(windows, windows // 2, max_shift)
    return released_curve(*embed_v2(model, clip.read(first, length), pcm16(heard)), limit)


def window_count(frames: int, samples: int) -> int:
    """Windows that the released LSE script takes: one fewer than there are."""
    return max(0, min(frames, samples // FRAME_SAMPLES) - 5)


class FaceWindows:
    """An expert's embeddings of every window of five consecutive frames, as the frames come.

    embed: uint8 frames (N, H, W, 3) -> (N-4, D). At most batch_size + 4 frames are held.
    """

    def __init__(self, embed: Callable[[np.ndarray], np.ndarray], batch_size: int = 32) -> None:
        self._embed, self._hold = embed, batch_size + WINDOW - 1
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
        self._embeddings.append(self._embed(np.stack(self._frames)))
        del self._frames[: 1 - WINDOW]


def lip_windows(model, batch_size: int = 32) -> FaceWindows:
    """SyncNet v2's embeddings (W, 1024) of frames uint8 BGR (224, 224, 3)."""
    import torch

    def embed(frames: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(frames).to(next(model.parameters()).device)
        with torch.inference_mode():
            return model.forward_lip(x.permute(3, 0, 1, 2)[None].float()).cpu().numpy()

    return FaceWindows(embed, batch_size)


def embed_sound(model, wav: np.ndarray, count: int, batch_size: int = 32) -> np.ndarray:
    """SyncNet v2's embeddings (count, 1024) of the sound of the windows that begin with the frames
    0..count-1. wav: int16 (n,) at 16 kHz.
    """
    import torch

    from models.syncnet_v2 import MFCC_STEP, mfcc, mfcc_windows

    device = next(model.parameters()).device
    embedded = []
    for first in range(0, count, batch_size):
        last, lead = min(first + batch_size, count), min(first, 1)
        # a part at a time, as MFCC take 1 MB a second; pre-emphasis reaches back by one sample
        part = wav[(first - lead) * FRAME_SAMPLES : (last + WINDOW) * FRAME_SAMPLES]
        windows = mfcc_windows(mfcc(part)[:, MFCC_STEP * lead :], last - first)  # (B, 1, 13, 20)
        with torch.inference_mode():
            embedded.append(model.forward_aud(torch.from_numpy(windows).to(device)).cpu().numpy())
    return np.concatenate(embedded)


def embed_v2(
    model, frames: Iterable[np.ndarray], wav: np.ndarray, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """SyncNet v2's embeddings (lips, audio), each float32 (W, 1024); W = window_count(T, n).

    frames: uint8 BGR (T, 224, 224, 3), or any iterable of them, which is read no further than the
    sound reaches. wav: int16 (n,) at 16 kHz. InputError where W is 0.
    """
    lips = lip_windows(model, batch_size)
    for frame in itertools.islice(frames, len(wav) // FRAME_SAMPLES):
        lips.feed(frame)
    return pair_v2(model, lips, wav, batch_size)


def pair_v2(
    model, lips: FaceWindows, wav: np.ndarray, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """embed_v2 where all frames have been fed to `lips`."""
    count = window_count(lips.frames, len(wav))
    if not count:
        raise InputError(f"{lips.frames} frames and {len(wav)} samples hold no SyncNet window")
    return lips.flush()[:count], embed_sound(model, wav, count, batch_size)


def lse(lips: np.ndarray, audio: np.ndarray, vshift: int = 15) -> tuple[int, float, float]:
    """(offset, LSE-C, LSE-D) as published, of SyncNet v2's features (W, 1024); see embed_v2."""
    found = offset_of(released_curve(lips, audio, vshift))
    return found.offset, found.confidence, found.distance


def released_curve(lips: np.ndarray, audio: np.ndarray, vshift: int) -> np.ndarray:
    """(2 vshift + 1,) mean distances (torch's, eps 1e-6) of lips to audio, both (W, D), at each
    shift. Beyond its ends the sound is zero vectors, as in the released code.
    """
    import torch

    padded = torch.from_numpy(np.pad(audio, ((vshift, vshift), (0, 0))))
    still = torch.from_numpy(lips)
    distance = torch.nn.functional.pairwise_distance
    return np.array(
        [
            float(distance(still, padded[first : first + len(lips)]).double().mean())
            for first in range(2 * vshift + 1)
        ]
    )


def offset_of(curve: np.ndarray) -> Offset:
    """What a curve of mean distances (2v+1,) at the shifts -v..v says."""
    if not np.isfinite(curve).all():
        raise InputError("the expert's embeddings are not numbers; its checkpoint is damaged")
    best = int(curve.argmin())
    low = float(curve[best])
    return Offset(len(curve) // 2 - best, float(np.median(curve)) - low, low, curve)
