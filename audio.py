"""Waveform to mel spectrogram with the paper's numerics: 80 bands, 80 rows a second, values in [-4,
4] (section 4.1).
"""

from __future__ import annotations

import functools
import os

import numpy as np

from errors import InputError
from hparams import HParams


def load_wav(path: str | os.PathLike, sample_rate: int = 16000) -> np.ndarray:
    """The audio of any file as float32 mono (n,), full scale 1."""
    from media import load_audio

    return load_audio(path, sample_rate)


def save_wav(wav: np.ndarray, path: str | os.PathLike, sample_rate: int = 16000) -> None:
    """Write float mono (n,), full scale 1, as 16-bit PCM. Louder samples are clipped, nothing is
    rescaled.
    """
    from scipy.io import wavfile

    wavfile.write(
        path, sample_rate, np.round(np.clip(wav, -1, 32767 / 32768) * 32768).astype(np.int16)
    )


def preemphasis(wav: np.ndarray, k: float, preemphasize: bool = True) -> np.ndarray:
    """The filter [1, -k], which lifts high frequencies."""
    if not preemphasize:
        return wav
    return np.append(wav[:1], wav[1:] - k * wav[:-1])


def melspectrogram(wav: np.ndarray, hp: HParams | None = None) -> np.ndarray:
    """Mel spectrogram (num_mels, T) of float mono (n,) at hp.sample_rate; T = n // hop_size + 1."""
    import librosa

    hp = hp or HParams()
    if len(wav) <= hp.n_fft // 2:  # reflect padding needs that many samples
        raise InputError(
            f"audio of {len(wav) / hp.sample_rate:.3f} s is too short for a spectrogram"
        )
    # librosa's default padding changed to zeros in 0.10; the released values come from "reflect"
    spectrum = librosa.stft(
        preemphasis(np.asarray(wav, np.float32), hp.preemphasis, hp.preemphasize),
        n_fft=hp.n_fft,
        hop_length=hp.hop_size,
        win_length=hp.win_size,
        pad_mode="reflect",
    )
    mel = _mel_basis(hp.sample_rate, hp.n_fft, hp.num_mels, hp.fmin, hp.fmax) @ np.abs(spectrum)
    floor = np.exp(hp.min_level_db / 20 * np.log(10))
    decibels = 20 * np.log10(np.maximum(floor, mel)) - hp.ref_level_db
    mel = _normalize(decibels, hp) if hp.signal_normalization else decibels
    return mel.astype(np.float32)  # (num_mels, T)


@functools.lru_cache(maxsize=4)
def _mel_basis(sample_rate: int, n_fft: int, num_mels: int, fmin: float, fmax: float) -> np.ndarray:
    import librosa

    return librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=num_mels, fmin=fmin, fmax=fmax)


def _normalize(decibels: np.ndarray, hp: HParams) -> np.ndarray:
    """Decibels from [min_level_db, 0] to [-max, max] (symmetric_mels) or [0, max]."""
    top = hp.max_abs_value
    share = (decibels - hp.min_level_db) / -hp.min_level_db
    scaled, low = (2 * top * share - top, -top) if hp.symmetric_mels else (top * share, 0.0)
    return np.clip(scaled, low, top) if hp.allow_clipping_in_normalization else scaled
