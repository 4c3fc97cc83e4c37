"""Waveform to mel spectrogram with the paper's numerics: 80 bands, 80 rows a second, values in [-4,
4] (section 4.1).
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import wave
from typing import IO

import numpy as np

from errors import InputError
from hparams import HParams

MEL_RATE = 80.0  # mel rows a second: sample_rate / hop_size
TRAINING_FPS = 25
MEL_STEPS = 16  # rows a generated frame hears: 0.2 s


def load_wav(path: str | os.PathLike, sample_rate: int = 16000) -> np.ndarray:
    """The audio of any file as float32 mono (n,), full scale 1."""
    from media.read import load_audio

    return load_audio(path, sample_rate)


def save_wav(
    wav: np.ndarray, path: str | os.PathLike | IO[bytes], sample_rate: int = 16000
) -> None:
    """Write float mono (n,), full scale 1, as 16-bit PCM; louder samples are clipped."""
    with wave.open(os.fspath(path) if isinstance(path, os.PathLike) else path, "wb") as file:
        file.setparams((1, 2, sample_rate, len(wav), "NONE", ""))
        file.writeframes(pcm16(wav).astype("<i2").tobytes())


def pcm16(wav: np.ndarray) -> np.ndarray:
    """Float samples of full scale 1 as int16, of the same shape; louder ones are clipped."""
    return np.round(np.clip(wav, -1, 32767 / 32768) * 32768).astype(np.int16)


def preemphasis(wav: np.ndarray, k: float, preemphasize: bool = True) -> np.ndarray:
    """The filter [1, -k], which lifts high frequencies."""
    if not preemphasize:
        return wav
    return np.append(wav[:1], wav[1:] - k * wav[:-1])


def melspectrogram(wav: np.ndarray, hp: HParams | None = None) -> np.ndarray:
    """Mel spectrogram (num_mels, T) of float mono (n,) at hp.sample_rate; T = n // hop_size + 1."""
    hp = hp or HParams()
    if len(wav) <= hp.n_fft // 2:  # reflect padding needs that many samples
        raise InputError(
            f"audio of {len(wav) / hp.sample_rate:.3f} s is too short for a spectrogram"
        )
    wav = preemphasis(np.asarray(wav, np.float32), hp.preemphasis, hp.preemphasize)
    # librosa's default padding changed to zeros in 0.10; the released values come from "reflect"
    frames = _frames(wav, hp.n_fft, hp.hop_size, "reflect") * _window(hp.win_size, hp.n_fft)
    basis = _mel_basis(hp.sample_rate, hp.n_fft, hp.num_mels, hp.fmin, hp.fmax)
    # not `@`: OpenBLAS would share it among threads that spin for milliseconds afterwards, in live
    # mode all the time, and take the processor from the network
    mel = np.einsum("mf,ft->mt", basis, np.abs(np.fft.rfft(frames).T))
    floor = np.exp(hp.min_level_db / 20 * np.log(10))
    decibels = 20 * np.log10(np.maximum(floor, mel)) - hp.ref_level_db
    mel = _normalize(decibels, hp) if hp.signal_normalization else decibels
    return mel.astype(np.float32)  # (num_mels, T)


def _frames(wav: np.ndarray, length: int, hop: int, pad: str) -> np.ndarray:
    """(T, length) of samples around every hop-th one, the ends padded."""
    padded = np.pad(wav, length // 2, mode=pad)
    return np.lib.stride_tricks.sliding_window_view(padded, length)[::hop]


def _window(size: int, n_fft: int) -> np.ndarray:
    """Hann's of `size` samples, periodic, in the middle of n_fft."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    left = (n_fft - size) // 2
    return np.pad(hann, (left, n_fft - size - left)).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _mel_basis(sample_rate: int, n_fft: int, num_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """Triangles of unit area (num_mels, n_fft / 2 + 1) on Slaney's scale: linear below 1 kHz, then
    27 bands to a factor of 6.4. librosa, which needs seconds to load, has the same.
    """
    top, step = 15.0, np.log(6.4) / 27  # 1 kHz is band 15 on the scale
    low, high = (
        f / 1000 * top if f < 1000 else top + np.log(f / 1000) / step for f in (fmin, fmax)
    )
    bands = np.linspace(low, high, num_mels + 2)
    edges = np.where(bands < top, bands / top * 1000, 1000 * np.exp(step * (bands - top)))  # Hz
    widths = np.diff(edges)
    distance = edges[:, None] - np.fft.rfftfreq(n_fft, 1 / sample_rate)  # (num_mels + 2, bins)
    rising = -distance[:-2] / widths[:-1, None]
    falling = distance[2:] / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def _normalize(decibels: np.ndarray, hp: HParams) -> np.ndarray:
    """Decibels from [min_level_db, 0] to [-max, max] (symmetric_mels) or [0, max]."""
    top = hp.max_abs_value
    share = (decibels - hp.min_level_db) / -hp.min_level_db
    scaled, low = (2 * top * share - top, -top) if hp.symmetric_mels else (top * share, 0.0)
    return np.clip(scaled, low, top) if hp.allow_clipping_in_normalization else scaled


def mel_chunks(mel: np.ndarray, fps: float) -> list[np.ndarray]:
    """Released mel windows (80, 16) of a spectrogram (80, T), one a video frame.

    Chunk i starts at row int(i * 80 / fps); the first that would pass the end becomes the last 16
    rows and ends the list, so the video ends up to 0.15 s before the speech.
    """
    return [mel[:, start : start + MEL_STEPS] for start in chunk_starts(mel.shape[1], fps)]


def chunk_starts(rows: int, fps: float) -> list[int]:
    """First rows of the released mel windows of `rows` >= 16 mel rows; see mel_chunks."""
    starts = []
    for i in itertools.count():
        start = int(i * MEL_RATE / fps)  # the released order of operations: 80 / fps comes first
        if start + MEL_STEPS > rows:
            return [*starts, rows - MEL_STEPS]
        starts.append(start)


def window_starts(count: int, fps: float, first: int = 0) -> tuple[list[int], int]:
    """(first rows of the mel windows of `count` video frames from number `first` on, `lead`), in a
    spectrogram that begins with `lead` rows of silence.

    A window begins one training frame (1/25 s) before its video frame, where get_segmented_mels put
    it in training; the released program begins it at the frame itself, and its lips lead the sound
    by that frame.
    """
    lead = math.ceil(MEL_RATE / TRAINING_FPS)
    positions = (i * TRAINING_FPS / fps - 1 for i in range(first, first + count))  # training frames
    return [math.floor(MEL_RATE * (p / TRAINING_FPS)) + lead for p in positions], lead


def speech_chunks(
    wav: np.ndarray,
    fps: float,
    faithful: bool,
    drop_last: bool = False,
    silence_gate: float | None = None,
) -> list[np.ndarray]:
    """Mel windows (80, 16) for 16 kHz speech (n,), one a video frame.

    `faithful`: the released windows, see mel_chunks; with `drop_last` without the last, incomplete
    one, as in the released test-set script. By default those of `window_starts`, the speech being
    continued with silence, so that the video lasts as long as the audio. silence_gate: what is
    quieter (dBFS) is heard as silence; see quiet_rows.
    """
    if faithful:
        mel = melspectrogram(wav)
        if mel.shape[1] < MEL_STEPS:
            raise InputError(f"speech of {len(wav) / 16000:.2f} s is shorter than one mel window")
        chunks = mel_chunks(mel, fps)[: -1 if drop_last else None]
    else:
        frames = max(1, round(len(wav) / 16000 * fps))
        starts, lead = window_starts(frames, fps)
        hop = HParams.hop_size
        tail = max(0, (starts[-1] + MEL_STEPS) * hop - len(wav) - lead * hop) + hop
        wav = np.pad(np.asarray(wav, np.float32), (lead * hop, tail))
        mel = melspectrogram(wav)
        if silence_gate is not None:
            mel[:, quiet_rows(wav, mel.shape[1], silence_gate)] = -HParams.max_abs_value
        chunks = [mel[:, start : start + MEL_STEPS] for start in starts]
    if not np.isfinite(mel).all():
        raise InputError("the mel spectrogram of the speech holds values that are not numbers")
    return chunks


def quiet_rows(wav: np.ndarray, rows: int, level: float) -> np.ndarray:
    """Which mel rows of `wav` (n,) lie in a pause: at least MEL_STEPS rows (0.2 s) in a row whose
    root mean square is below `level` dBFS. bool (rows,).
    """
    hp = HParams
    rms = np.sqrt(np.mean(_frames(wav, hp.n_fft, hp.hop_size, "constant") ** 2, axis=1))
    quiet = np.zeros(rows, bool)
    quiet[: len(rms)] = rms[:rows] < 10 ** (level / 20)
    # padded with what is at the ends, so that a pause there need not be longer
    wide = np.pad(quiet, MEL_STEPS, mode="edge")
    begins = np.lib.stride_tricks.sliding_window_view(wide, MEL_STEPS).all(axis=1)
    wide = np.convolve(begins, np.ones(MEL_STEPS)) > 0
    return wide[MEL_STEPS:-MEL_STEPS]


class ShortWindow(ValueError):
    """The mel spectrogram ends before the window does."""


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
