"""By how many frames a clip's sound is late or early, asked of lip landmarks instead of an expert.

An expert cannot judge the clips it was trained on: where the offset of a recording never changes,
it learns that offset by heart and calls it 0. Here a linear map says how far lips are open when a
mel spectrogram sounds like this, and the shift at which that agrees best with the landmarks
(face_detection/landmarks.py) is the offset. The map (lip_opening.npy) was fitted on clips of GRID
s1 and of HDTF's training speakers, after their own offsets were taken out (docs/training.md).
"""

from __future__ import annotations

import os

import numpy as np

from audio import MEL_RATE, TRAINING_FPS, melspectrogram
from errors import InputError
from experts.offset import MAX_SHIFT, Offset
from face_detection.landmarks import lip_opening, load_landmarks
from hparams import HParams
from models.device import DeviceName

BANDS, CONTEXT = 20, 6  # of the mel's 80; frames to either side
MAP = os.path.join(os.path.dirname(__file__), "lip_opening.npy")
SURE = 0.35  # a confidence that wrong sounds of 10 s reach in less than 5%
LEAST = 50  # frames, two seconds: fewer agree with anything


class LipLag:
    """Judges clips in an Expert's place. MissingLandmarks without the landmark package."""

    kind, label, device = "landmarks", "lip landmarks", DeviceName("cpu")
    size = HParams.img_size

    def __init__(self) -> None:
        self.landmarks = load_landmarks()

    def embed_lips(self, faces: np.ndarray) -> np.ndarray:
        """How far the lips of faces uint8 BGR (N, size, size, 3) are open: (N,)."""
        whole = [(0, 0, self.size, self.size)] * len(faces)
        return lip_opening(self.landmarks.find(faces, whole))

    def offset(self, opening: np.ndarray, sound: np.ndarray, max_shift: int, first: int) -> Offset:
        """As Expert.offset; InputError where there are less than two seconds."""
        if len(opening) < LEAST:
            raise InputError(f"fewer than {LEAST} frames in a row")
        heard = sound.astype(np.float32) / 32768
        return lip_offset(opening, heard, TRAINING_FPS, first, max_shift)


def lip_offset(
    opening: np.ndarray, sound: np.ndarray, fps: float, start: int = 0, max_shift: int = MAX_SHIFT
) -> Offset:
    """The offset of sound (samples,) at 16 kHz against lips whose opening (N,) is seen from frame
    `start` on. A quarter of a short clip is searched, no more.
    """
    bands = mel_bands(melspectrogram(sound).T, fps)
    return best_shift(opening, bands, start, np.load(MAP), min(max_shift, len(opening) // 4))


def mel_bands(mel: np.ndarray, fps: float) -> np.ndarray:
    """Mel rows (T, 80) -> the means of BANDS bands in each frame of the picture (frames, BANDS)."""
    bands = np.asarray(mel, float).reshape(len(mel), BANDS, -1).mean(2)
    edges = (np.arange(int(len(mel) * fps / MEL_RATE) + 1) * MEL_RATE / fps).round().astype(int)
    return np.add.reduceat(bands, edges[:-1]) / np.diff(np.append(edges[:-1], len(bands)))[:, None]


def context(bands: np.ndarray, start: int, length: int) -> np.ndarray:
    """What is heard around each of `length` frames from `start` on, each column centred
    (length, (2 * CONTEXT + 1) * BANDS). Beyond the ends the sound is taken to stand still.
    """
    frames = np.arange(start, start + length)[:, None] + np.arange(-CONTEXT, CONTEXT + 1)
    heard = bands[frames.clip(0, len(bands) - 1)].reshape(length, -1)
    return heard - heard.mean(0)


def best_shift(
    opening: np.ndarray, bands: np.ndarray, start: int, linear: np.ndarray, max_shift: int
) -> Offset:
    """The shift of the sound at which `linear` of it correlates best with the opening (N,) of the
    lips from frame `start` on; distances are 1 - correlation.
    """
    lips = (opening - opening.mean()) / max(float(opening.std()), 1e-9)
    curve = np.empty(2 * max_shift + 1)
    for index in range(len(curve)):
        expected = context(bands, start + index - max_shift, len(lips)) @ linear
        curve[index] = 1 - expected @ lips / len(lips) / max(float(expected.std()), 1e-9)
    best = int(curve.argmin())
    distance = float(curve[best])
    return Offset(max_shift - best, float(np.median(curve)) - distance, distance, curve)


def fit(clips: list[tuple[np.ndarray, np.ndarray, int]], ridge: float = 30.0) -> np.ndarray:
    """The map from clips in sync: (opening (N,), bands (frames, BANDS), first frame) each."""
    gram, cross = 0.0, 0.0
    for opening, bands, start in clips:
        heard = context(bands, start, len(opening))
        gram = gram + heard.T @ heard
        cross = cross + heard.T @ ((opening - opening.mean()) / max(float(opening.std()), 1e-9))
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), cross)
