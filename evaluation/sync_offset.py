"""By how many frames a clip's sound is early or late, as a lip-sync expert sees and hears it.

The expert is a SyncNet_color (self-trained or released) or SyncNet v2, the judge of the paper's LSE
metrics. For every shift of the sound against the picture the distances between the embeddings of
faces and of sound are averaged over the clip: the shift with the smallest mean gives the offset,
and how far that lies below the median is the confidence (Chung and Zisserman, "Out of time", 2016).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from errors import InputError
from evaluation.expert_accuracy import MAX_SHIFT, embed_faces, embed_mels, longest_run
from hparams import HParams

if TYPE_CHECKING:
    from torch import nn

    from clips import Clip

# Face windows in a row that an estimate needs. On held-out synthetic speakers, whole clips of 71
# are right to the frame; of 20, 99% are right within a frame; of 10, 91% (searching +-5).
MIN_WINDOWS = 10
FRAME_SAMPLES = 640  # of 16 kHz sound at 25 fps
LIP_SIZE = 224  # px: the side of SyncNet v2's frames


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


def load_expert(path: str | os.PathLike, device: str = "auto") -> Expert:
    """The expert in a checkpoint, told apart by its parameters; InputError for other models."""
    from checkpoint import load_model, read_checkpoint
    from training import select_device

    selected = select_device(device)
    parameters = read_checkpoint(path)["state_dict"]
    kind = "SyncNet_v2" if "netcnnlip.0.weight" in parameters else "SyncNet_color"
    try:
        model = load_model(path, kind).to(selected)
    except InputError as error:
        raise InputError(f"an expert is a SyncNet_color or a SyncNet v2: {error}") from error
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return Expert(model, kind, f"{os.path.basename(path)} {digest[:12]}")


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
    from clips import Clip, index_clip

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
    """Mean distances of unit vectors, over the pairs of windows that exist. The sound reaches
    beyond a run of crops as far as the clip does.
    """
    from audio import MEL_RATE, melspectrogram

    mel = melspectrogram(wav, hp).T  # (T, 80)
    heard = np.arange(max(0, starts[0] - max_shift), starts[-1] + max_shift + 1)
    heard = heard[np.floor(MEL_RATE * heard / hp.fps) + hp.syncnet_mel_step_size <= len(mel)]
    pairs = {
        shift: np.flatnonzero(np.isin(starts + shift, heard))  # face windows that meet sound
        for shift in range(-max_shift, max_shift + 1)
    }
    reach = [
        shift
        for shift in range(max_shift + 1)
        if 2 * min(len(pairs[shift]), len(pairs[-shift])) >= len(starts)
    ]
    limit = _search_limit(len(starts), len(reach) - 1, max_shift)
    face = embed_faces(model, clip, starts, hp)  # (W, D)
    audio = embed_mels(model, mel, heard, hp)  # (A, D)
    distances = np.sqrt(np.maximum(0, 2 - 2 * face @ audio.T))  # (W, A), of unit vectors
    first = starts[0] - heard[0]  # column of the sound of the first face window
    return np.array(
        [
            distances[pairs[shift], pairs[shift] + first + shift].mean()
            for shift in range(-limit, limit + 1)
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
    sound = np.round(heard * 32768).astype(np.int16)
    return released_curve(*embed_v2(model, clip.read(first, length), sound), limit)


def window_count(frames: int, samples: int) -> int:
    """Windows that the released LSE script takes: one fewer than there are."""
    return max(0, min(frames, samples // FRAME_SAMPLES) - 5)


def embed_v2(
    model, frames: np.ndarray, wav: np.ndarray, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """SyncNet v2's features (lips, audio), each float32 (W, 1024); W = window_count(T, n).

    frames: uint8 BGR (T, 224, 224, 3); wav: int16 (n,) at 16 kHz. InputError where W is 0.
    """
    import torch

    from models.syncnet_v2 import LIP_FRAMES, mfcc, mfcc_windows

    count = window_count(len(frames), len(wav))
    if not count:
        raise InputError(f"{len(frames)} frames and {len(wav)} samples hold no SyncNet window")
    device = next(model.parameters()).device
    windows = torch.from_numpy(mfcc_windows(mfcc(wav), count))  # (W, 1, 13, 20)
    lips, audio = [], []
    with torch.inference_mode():
        for first in range(0, count, batch_size):
            last = min(first + batch_size, count)
            x = torch.from_numpy(frames[first : last + LIP_FRAMES - 1]).to(device)
            x = x.permute(3, 0, 1, 2)[None].float()  # (1, 3, B+4, 224, 224)
            lips.append(model.forward_lip(x).cpu())
            audio.append(model.forward_aud(windows[first:last].to(device)).cpu())
    return torch.cat(lips).numpy(), torch.cat(audio).numpy()


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
