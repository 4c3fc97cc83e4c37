"""Sharpness and exposure of crops, level and faults of sound, and vectors that tell copies."""

from __future__ import annotations

import os
import wave
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from corpus.clips import Clip
    from preparation.doctor_measure import Measures

SAMPLES = 8  # crops looked at in each clip
SAMPLE_RATE = 16000
LEVEL_SAMPLES = 400  # 25 ms, in which the sound's level is taken
FLOOR_DB = -100.0  # digital silence
SILENCE_DB = 35.0  # so far below a clip's loud parts nobody speaks; quiet rooms hum at -40 and less
FAINTEST_DB = -65.0  # nor below this, whatever the loud parts
FULL_SCALE = 32700  # of 32768; a clipped wave that was resampled no longer meets the last value
BLACK, WHITE = 2, 253  # grey levels


def measure_pictures(clip: Clip, measures: Measures) -> None:
    """Sharpness, exposure and the vectors of SAMPLES crops at even distances, as training sees
    them: at img_size.
    """
    import cv2

    from preparation.doctor_measure import short

    greys, faults = [], []
    for i in range(SAMPLES):
        frame = int(clip.frames[int((i + 0.5) * len(clip.frames) / SAMPLES)])
        try:
            if not clip.packed:
                _require_whole(clip.frame_path(frame))
            greys.append(cv2.cvtColor(clip.read(frame, 1)[0], cv2.COLOR_BGR2GRAY))
        except (OSError, ValueError) as error:
            faults.append(error)
    if faults:
        count = f"{len(faults)} of {SAMPLES} crops looked at"
        measures.problems.append(f"{count} cannot be read ({short(faults[0])})")
    if not greys:
        return
    stack = np.stack(greys)  # (S, H, W) uint8
    measures.sharpness = float(np.median([cv2.Laplacian(g, cv2.CV_32F).var() for g in greys]))
    measures.brightness = float(stack.mean())
    measures.dark_share = float((stack <= BLACK).mean())
    measures.bright_share = float((stack >= WHITE).mean())
    if len(greys) == SAMPLES:  # all at the same moments, else copies would not look alike
        changes = np.diff([_shrink(grey, 8) for grey in greys], axis=0)  # (S - 1, 8, 8)
        measures.change = float(np.abs(changes).mean())
        measures.picture_vector = _unit(changes, least=1.0)
        measures.look_vector = _unit(_shrink(stack.mean(0), 24), least=1.0)


def _require_whole(path: str) -> None:
    """ValueError where a JPEG ends early: decoders fill the rest with grey and say nothing."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 2))
        if file.read() != b"\xff\xd9":
            raise ValueError(f"{path} is truncated")


def _shrink(picture: np.ndarray, size: int) -> np.ndarray:
    import cv2

    return cv2.resize(picture.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)


def _unit(values: np.ndarray, least: float) -> np.ndarray | None:
    """values less their mean as a float16 vector of length 1; None where their standard deviation
    is below `least`, because rounding would then decide.
    """
    flat = values.astype(np.float32).ravel()
    flat = flat - flat.mean()
    if flat.std() < least:
        return None
    return (flat / np.linalg.norm(flat)).astype(np.float16)


def sound_vector(mel: np.ndarray, steps: int = 32, bands: int = 16) -> np.ndarray | None:
    """How the timbre of a mel (T, 80) moves in time, as a unit vector (steps * bands,).

    Each band less its mean, then each step less its own, so that neither gain and filters nor
    loudness count: sentences of one rhythm are loud in step. Nearly the same for a copy that was
    encoded again. None for silence and steady tones.
    """
    import cv2

    if len(mel) < steps:
        return None
    coarse = cv2.resize(np.ascontiguousarray(mel), (bands, steps), interpolation=cv2.INTER_AREA)
    moving = coarse - coarse.mean(0)
    return _unit(moving - moving.mean(1, keepdims=True), least=0.1)


def read_sound(path: str, measures: Measures) -> np.ndarray | None:
    """int16 (n,), or None with a problem noted."""
    from preparation.doctor_measure import short

    try:
        with wave.open(path, "rb") as file:
            kind = file.getframerate(), file.getnchannels(), file.getsampwidth()
            if kind != (SAMPLE_RATE, 1, 2):
                raise wave.Error("{} Hz, {} channels, {} bytes a sample".format(*kind))
            content = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error, RuntimeError) as error:
        measures.problems.append(f"audio.wav cannot be used ({short(error)})")
        return None
    sound = np.frombuffer(content[: len(content) // 2 * 2], "<i2")
    if len(sound) < LEVEL_SAMPLES:
        measures.problems.append("audio.wav holds no sound")
        return None
    return sound


def measure_sound(sound: np.ndarray | None, measures: Measures, seconds: float | None) -> None:
    """Level, silence and faults of int16 (n,). seconds: what there should be by clip.json."""
    if sound is None:
        return
    measures.seconds = len(sound) / SAMPLE_RATE
    if seconds is not None and abs(seconds - measures.seconds) > 0.1:
        measures.problems.append(f"audio.wav holds {measures.seconds:.2f} s of {seconds:.2f} s")
    samples = sound.astype(np.float32) / 32768
    steps = samples[: len(samples) // LEVEL_SAMPLES * LEVEL_SAMPLES].reshape(-1, LEVEL_SAMPLES)
    power = (steps**2).mean(1)
    level = 10 * np.log10(power + 10 ** (FLOOR_DB / 10))
    silent = level < max(np.percentile(level, 95) - SILENCE_DB, FAINTEST_DB)
    measures.silence_share = float(silent.mean())
    if not silent.all():
        measures.speech_db = float(10 * np.log10(power[~silent].mean()))
    peak = np.abs(sound.astype(np.int32))
    measures.peak_db = float(max(FLOOR_DB, 20 * np.log10(max(1e-9, peak.max() / 32768))))
    measures.clipped_share = float((peak >= FULL_SCALE).mean())
    measures.dc = float(samples.mean())
