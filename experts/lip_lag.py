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

from audio import MEL_RATE, load_wav, melspectrogram
from corpus.clips import index_clip
from errors import InputError
from experts.offset import Offset, longest_run
from face_detection.landmarks import lip_opening, load_landmarks
from hparams import HParams

BANDS, CONTEXT = 20, 6  # of the mel's 80; frames to either side
MAP = os.path.join(os.path.dirname(__file__), "lip_opening.npy")
SURE = 0.35  # a confidence that wrong sounds of 10 s reach in less than 5%
LEAST = 50  # frames, two seconds: fewer agree with anything


class LipLag:
    """Judges clips in an expert's place. MissingLandmarks without the landmark package."""

    kind, label = "landmarks", "lip landmarks"

    def __init__(self) -> None:
        self.landmarks = load_landmarks()
        self.map = np.load(MAP)  # ((2 * CONTEXT + 1) * BANDS,)

    def clip_offset(self, folder: str, hp: HParams, max_shift: int) -> Offset:
        """The offset of a preprocessed clip, positive where its sound is early. InputError where no
        two seconds in a row have face and sound.
        """
        clip = index_clip(folder, hp, individual_mels=False)
        if isinstance(clip, str):
            raise InputError(f"{folder}: {clip}")
        start, length = int((run := longest_run(clip.starts))[0]), len(run) + hp.syncnet_T - 1
        if length < LEAST:
            raise InputError(f"{folder}: fewer than {LEAST} frames in a row")
        crops = clip.read(start, length)
        size = crops.shape[1]
        opening = lip_opening(self.landmarks.find(crops, [(0, 0, size, size)] * length))
        sound = load_wav(os.path.join(folder, "audio.wav"), hp.sample_rate)
        bands = mel_bands(melspectrogram(sound).T, hp.fps)
        return best_shift(opening, bands, start, self.map, min(max_shift, length // 4))


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
