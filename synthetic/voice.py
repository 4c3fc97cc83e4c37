"""Speech-like audio by formant synthesis, together with the articulation that makes it.

One set of 5 ms tracks steers both the sound and the lips: phoneme targets are smoothed by the same
symmetric window, so the lips neither lead nor lag. The opening is F1's and the width F2's, as in
real vowels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audio import TRAINING_FPS as FPS

SAMPLE_RATE = 16000
STEP = 0.005  # seconds between two control points
BLOCK = int(SAMPLE_RATE * STEP)  # samples
COARTICULATION = 0.06  # seconds, support of the smoothing window
RELEASE = 0.035  # seconds the lips take to part from, or meet for, a bilabial closure

# Vowels: F1, F2, F3 in Hz of an average voice.
VOWELS = {
    "aa": (740, 1120, 2500), "ae": (680, 1720, 2450), "ah": (620, 1250, 2450),
    "eh": (540, 1850, 2500), "ih": (400, 2000, 2580), "iy": (290, 2300, 3050),
    "ao": (560, 850, 2450), "uh": (430, 1050, 2300), "uw": (310, 880, 2280),
    "er": (480, 1380, 1750),
}  # fmt: skip
VOWEL_ODDS = {
    "aa": 4, "ae": 3, "ah": 2, "eh": 2, "ih": 1, "iy": 2, "ao": 2, "uh": 1, "uw": 2, "er": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Consonant:
    """Targets of a consonant; the sound's parts are amplitudes relative to a vowel's voicing."""

    seconds: float
    opening: float  # 0 = lips shut
    width: float
    formants: tuple[float, float, float]
    voice: float = 0.0  # voiced sound through the formants
    murmur: float = 0.0  # low-passed voicing: nasal murmur, voice bar
    noise: float = 0.0  # frication
    hz: tuple[float, float] = (4000, 2000)  # centre, bandwidth of the noise
    burst: float = 0.0  # noise at the release of a stop


CONSONANTS = {
    "m": Consonant(0.095, 0, 0.5, (260, 1100, 2200), murmur=0.30),
    "b": Consonant(0.085, 0, 0.5, (250, 900, 2250), murmur=0.12, burst=0.10, hz=(900, 900)),
    "p": Consonant(0.095, 0, 0.5, (250, 900, 2250), burst=0.22, hz=(1000, 1200)),
    "n": Consonant(0.080, 0.14, 0.6, (300, 1500, 2600), voice=0.10, murmur=0.28),
    "d": Consonant(0.070, 0.14, 0.6, (280, 1750, 2650), murmur=0.12, burst=0.25, hz=(4200, 2000)),
    "t": Consonant(0.080, 0.12, 0.6, (280, 1750, 2650), noise=0.03, burst=0.45, hz=(4600, 2200)),
    "k": Consonant(0.080, 0.22, 0.5, (300, 1600, 2100), noise=0.02, burst=0.40, hz=(2100, 900)),
    "g": Consonant(0.075, 0.22, 0.5, (300, 1600, 2100), murmur=0.12, burst=0.22, hz=(2000, 900)),
    "f": Consonant(0.095, 0.06, 0.5, (300, 1100, 2300), noise=0.10, hz=(5500, 6000)),
    "v": Consonant(0.075, 0.06, 0.5, (300, 1100, 2300), murmur=0.20, noise=0.06, hz=(5500, 6000)),
    "s": Consonant(0.105, 0.13, 0.75, (300, 1700, 2600), noise=0.42, hz=(6200, 1700)),
    "z": Consonant(0.085, 0.13, 0.75, (300, 1700, 2600), murmur=0.15, noise=0.26, hz=(6200, 1700)),
    "sh": Consonant(0.105, 0.20, 0.2, (300, 1800, 2400), noise=0.42, hz=(3200, 1300)),
    "l": Consonant(0.075, 0.30, 0.6, (370, 1150, 2750), voice=0.55),
    "r": Consonant(0.075, 0.24, 0.25, (350, 1150, 1550), voice=0.55),
    "w": Consonant(0.080, 0.08, 0.0, (300, 680, 2250), voice=0.45),
    "y": Consonant(0.070, 0.16, 0.9, (280, 2250, 3000), voice=0.45),
}  # fmt: skip
BILABIAL = ("m", "b", "p")
CODAS = ("m", "n", "p", "t", "k", "s", "f", "l", "sh")
SILENCE = "sil"


@dataclass(frozen=True)
class Voice:
    """A speaker's voice."""

    pitch: float  # Hz, mean
    tract: float  # formants are multiplied by this: long tracts below 1, short ones above
    rate: float  # segments last 1 / rate of their table value
    breath: float  # aspiration noise in the voicing
    tilt: float  # 0..1, dullness of the glottal pulse
    range: float  # of the intonation, as a share of the pitch


def make_voice(rng: np.random.Generator) -> Voice:
    """Draw a voice: pitch 85-250 Hz; small people have both high pitch and short tracts."""
    place = rng.uniform(0, 1)
    pitch = 85 * (250 / 85) ** np.clip(place + rng.normal(0, 0.08), 0, 1)
    return Voice(
        pitch=float(pitch),
        tract=0.92 + 0.2 * place + rng.normal(0, 0.015),
        rate=rng.uniform(0.92, 1.12),
        breath=rng.uniform(0.02, 0.09),
        tilt=rng.uniform(0.2, 0.75),
        range=rng.uniform(0.08, 0.2),
    )


def vowel_opening(symbol: str) -> float:
    """Mouth opening 0..1 of a vowel, from its F1."""
    return float(0.12 + 0.88 * (VOWELS[symbol][0] - 290) / (740 - 290))


def vowel_width(symbol: str) -> float:
    """Mouth width 0 (round) .. 1 (spread) of a vowel, from its F2."""
    return float(np.clip((VOWELS[symbol][1] - 850) / (2300 - 850), 0, 1))


def make_phonemes(
    rng: np.random.Generator, seconds: float, voice: Voice
) -> list[tuple[float, float, str]]:
    """Random words and pauses: [(start, end, symbol), ...] without gaps, silence at both ends."""
    vowels, odds = list(VOWELS), np.array(list(VOWEL_ODDS.values()), float)
    consonants, timeline = list(CONSONANTS), [(0.0, float(rng.uniform(0.06, 0.2)), SILENCE)]

    def add(symbol: str, length: float) -> None:
        timeline.append((timeline[-1][1], timeline[-1][1] + length, symbol))

    while timeline[-1][1] < seconds:
        for _ in range(rng.integers(1, 4)):  # syllables of a word
            onset = str(rng.choice(BILABIAL if rng.random() < 0.3 else consonants))
            add(onset, CONSONANTS[onset].seconds * rng.uniform(0.9, 1.25) / voice.rate)
            add(str(rng.choice(vowels, p=odds / odds.sum())), rng.uniform(0.11, 0.21) / voice.rate)
            if rng.random() < 0.25:
                coda = str(rng.choice(CODAS))
                add(coda, CONSONANTS[coda].seconds * rng.uniform(0.9, 1.1) / voice.rate)
        if rng.random() < 0.25:
            add(SILENCE, rng.uniform(0.12, 0.3))
    timeline = [phoneme for phoneme in timeline if phoneme[1] <= seconds - 0.08]
    if timeline[-1][2] == SILENCE:
        timeline.pop()
    return [*timeline, (timeline[-1][1] if timeline else 0.0, float(seconds), SILENCE)]


def _targets(symbol: str) -> list[float]:
    """Opening, width, F1, F2, F3, voice, murmur, noise centre, noise bandwidth."""
    if symbol in VOWELS:
        shape = (vowel_opening(symbol), vowel_width(symbol))
        return [*shape, *VOWELS[symbol], 1.0, 0.0, 4000, 2000]
    if symbol == SILENCE:
        return [0.0, 0.5, 400, 1400, 2450, 0.0, 0.0, 4000, 2000]
    sound = CONSONANTS[symbol]
    return [sound.opening, sound.width, *sound.formants, sound.voice, sound.murmur, *sound.hz]


def make_tracks(phonemes: list[tuple[float, float, str]]) -> dict[str, np.ndarray]:
    """Tracks (N,) every 5 ms: opening, width, f1-f3, voice, murmur, noise, noise_hz, noise_band."""
    time = np.arange(round(phonemes[-1][1] / STEP) + 1) * STEP
    index = np.searchsorted([end for _, end, _ in phonemes[:-1]], time, side="right")
    steps = np.array([_targets(symbol) for _, _, symbol in phonemes], float)[index]  # (N, 9)
    window = np.hanning(round(COARTICULATION / STEP) + 3)[1:-1]
    edge = len(window) // 2
    padded = np.pad(steps, ((edge, edge), (0, 0)), mode="edge").T
    smooth = [np.convolve(column, window / window.sum(), "valid") for column in padded]
    names = ("opening", "width", "f1", "f2", "f3", "voice", "murmur")
    tracks = dict(zip(names, smooth[:7], strict=True))
    lips, noise, bands = np.ones(len(time)), np.zeros(len(time)), steps[:, 7:].copy()
    for start, end, symbol in phonemes:
        if symbol in BILABIAL:
            # Lips touch for all of the closure; full freedom is back RELEASE seconds away from it.
            lips = np.minimum(lips, np.maximum(start - time, time - end) / RELEASE)
        if sound := CONSONANTS.get(symbol):
            inside = np.clip(np.minimum(time - start, end - time) / 0.012 + 0.5, 0, 1)
            noise = np.maximum(noise, sound.noise * inside)
            if sound.burst:
                release = (time >= end - STEP) & (time < end + 0.012)
                noise[release], bands[release] = sound.burst, sound.hz
    lips = np.clip(lips, 0, 1)
    tracks["opening"] = np.minimum(tracks["opening"], lips)
    tracks["voice"] *= np.clip(lips * 1.5, 0, 1)  # nothing but the murmur passes shut lips
    return tracks | {"noise": noise, "noise_hz": bands[:, 0], "noise_band": bands[:, 1]}


def _upsample(track: np.ndarray, samples: int) -> np.ndarray:
    """(N,) control track -> (samples,) by straight lines."""
    return np.interp(np.arange(samples) / BLOCK, np.arange(len(track)), track)


def _glottis(rng: np.random.Generator, voice: Voice, samples: int) -> np.ndarray:
    """(samples,) derivative of the glottal flow: asymmetric pulses at the jittered pitch."""
    time = np.arange(samples) / SAMPLE_RATE
    speeds, starts = rng.uniform(0.3, 1.6, (3, 1)), rng.uniform(0, 1, (3, 1))
    melody = np.sin(2 * np.pi * (speeds * time + starts)).sum(axis=0) / 2
    knots = np.arange(0, time[-1] + 0.02, 0.01)
    jitter = np.interp(time, knots, rng.normal(0, 0.006, len(knots)))
    pitch = voice.pitch * (1 + voice.range * melody + jitter)
    phase = np.cumsum(pitch / SAMPLE_RATE) % 1.0
    rise, fall = 0.42, 0.16 + 0.12 * voice.tilt  # shares of the cycle: glottis opens, closes
    opens = 0.5 - 0.5 * np.cos(np.pi * phase / rise)
    closes = np.cos(0.5 * np.pi * np.clip((phase - rise) / fall, 0, 1))
    flow = np.where(phase < rise, opens, closes)
    pulses = np.diff(flow, prepend=flow[0]) * SAMPLE_RATE / pitch / 6
    return pulses + voice.breath * rng.normal(0, 1, samples) * (0.3 + flow)


def _resonate(source: np.ndarray, centres: np.ndarray, bands: np.ndarray) -> np.ndarray:
    """Run (samples,) through a cascade of resonators, of unit gain at 0 Hz, that change every 5 ms.

    centres, bands: (sections, N) in Hz. Neighbouring blocks of equal settings are filtered in one
    go, for speed.
    """
    from scipy.signal import sosfilt

    centres, bands = np.round(centres, 1), np.round(bands, 1)
    radius = np.exp(-np.pi * bands / SAMPLE_RATE)
    a1, a2 = -2 * radius * np.cos(2 * np.pi * centres / SAMPLE_RATE), radius**2
    one, zero = np.ones_like(a1), np.zeros_like(a1)
    sections = np.stack([1 + a1 + a2, zero, zero, one, a1, a2]).transpose(2, 1, 0)  # (N, S, 6)
    blocks = min(len(sections), -(-len(source) // BLOCK))
    changes = np.any(sections[1:blocks] != sections[: blocks - 1], axis=(1, 2))
    starts = [0, *(np.flatnonzero(changes) + 1)]
    out, state = np.empty_like(source), np.zeros((centres.shape[0], 2))
    for first, last in zip(starts, [*starts[1:], blocks + 1], strict=True):
        part = slice(first * BLOCK, last * BLOCK)
        out[part], state = sosfilt(np.ascontiguousarray(sections[first]), source[part], zi=state)
    return out


def synthesize_speech(
    rng: np.random.Generator, tracks: dict[str, np.ndarray], voice: Voice, samples: int
) -> np.ndarray:
    """(samples,) float32 sound of the tracks, about -20 dBFS, peak at most 0.95."""
    source, still = _glottis(rng, voice, samples), np.ones_like(tracks["f1"])
    formants = [tracks["f1"], tracks["f2"], tracks["f3"], 3600 * still, 4600 * still]
    centres = np.minimum(np.stack(formants) * voice.tract, 7200)
    bands = np.stack([60 + 0.05 * tracks["f1"], 90 * still, 130 * still, 220 * still, 320 * still])
    voiced = _resonate(source * _upsample(tracks["voice"], samples), centres, bands)
    centres, bands = np.stack([250 * still, 600 * still]), np.stack([90 * still, 400 * still])
    murmur = _resonate(source * _upsample(tracks["murmur"], samples), centres, bands)
    centre, band = np.minimum(tracks["noise_hz"] * voice.tract**0.5, 7000), tracks["noise_band"]
    hiss = _resonate(rng.normal(0, 1, samples), np.stack([centre] * 2), np.stack([band] * 2))
    # Unit gain at 0 Hz makes a high resonance loud: its peak is about (centre / band) squared.
    tame = 0.5 * np.minimum((band / centre) ** 2, 1)
    hiss *= _upsample(tracks["noise"], samples) * _upsample(tame, samples)
    loud = np.sqrt(np.mean(voiced**2) / max(np.mean(tracks["voice"] ** 2), 0.05))  # of a vowel
    level, floor = 10 ** (rng.uniform(-22, -17) / 20), 10 ** (rng.uniform(-72, -62) / 20)
    wave = level * ((voiced + murmur) / max(loud, 1e-6) + hiss) + rng.normal(0, floor, samples)
    return (wave * min(1.0, 0.95 / np.abs(wave).max())).astype(np.float32)


def make_speech(
    rng: np.random.Generator, seconds: float, voice: Voice
) -> tuple[np.ndarray, list[tuple[float, float, str]], np.ndarray, np.ndarray]:
    """Random speech of one voice: (wave, phonemes, opening, width).

    wave: (round(25 seconds) * 640,) float32 at 16 kHz. phonemes: [(start, end, symbol), ...] in
    seconds. opening, width: (round(25 seconds),) the mouth at the times i / 25; opening 0 = lips
    shut .. 1 = widest, width 0 = round .. 1 = spread.
    """
    frames = round(seconds * FPS)
    seconds = frames / FPS
    phonemes = make_phonemes(rng, seconds, voice)
    tracks = make_tracks(phonemes)
    wave = synthesize_speech(rng, tracks, voice, frames * SAMPLE_RATE // FPS)
    every = round(1 / FPS / STEP)  # control points per frame
    opening, width = (tracks[name][: frames * every : every] for name in ("opening", "width"))
    return wave, phonemes, opening, width
