"""What every back end promises: a generator on some engine, bytes to bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from errors import InputError

if TYPE_CHECKING:
    from torch import nn

CHUNK = 8  # frames that a CPU computes at once: more is no faster and takes more memory


@dataclass
class Facts:
    """What a back end must know of a generator that it does not hold: size, whether it splits."""

    img_size: int
    splits: bool = False


def facts_of(model: nn.Module | Facts) -> Facts:
    if isinstance(model, Facts):
        return model
    return Facts(model.img_size, hasattr(model, "encode_face") and hasattr(model, "decode"))


class Backend:
    """A generator on some engine. Made in one thread, it may be used in others, in turn.

    Where the model has encode_face(faces) -> tuple of features and decode(audio, features), a still
    face is encoded once; any other model sees it again with every mel window. A model with
    draw(audio, features) -> face, mask gives faces with a fourth channel, the mask for paste_face.
    """

    name = ""
    precision = "float32"  # or "int8"; float16 on a GPU is PyTorch's own matter
    chunk: int | None = CHUNK  # None: a batch as it comes

    def __init__(self, model: nn.Module | Facts) -> None:
        facts = facts_of(model)
        self.img_size, self.splits = facts.img_size, facts.splits
        self._lock = threading.Lock()

    def describe(self) -> str:
        """Engine and version, precision, processor: for logs and benchmarks."""
        raise NotImplementedError

    def start(self, still: bool) -> None:
        """What is slow the first time may begin now, beside the caller's work."""

    def warm_up(self, still: bool) -> None:
        """Everything that is slow the first time, now, for a still face or for others."""
        face = np.zeros((self.img_size, self.img_size, 3), np.uint8)
        mel = np.zeros((1, 80, 16), np.float32)
        if still:
            self.generate_still(self.prepare(face), mel)
        else:
            self.generate(face[None], mel)

    def _run(self, part: str, *inputs: object) -> tuple:
        """Outputs of "whole", "encode" or "decode" (backends/torch.py). Those of "encode" stay
        valid and may be inputs of "decode"; the others are arrays, valid until the next call:
        frames, and whether all of their numbers were finite.
        """
        raise NotImplementedError

    def generate(
        self, faces: np.ndarray, mels: np.ndarray, references: np.ndarray | None = None
    ) -> np.ndarray:
        """Faces uint8 BGR (N, H, W, 3) and mel windows (N, 80, 16) -> faces that say them;
        H = W = img_size; (N, H, W, 4) with a mask.

        references: what shows the network the whole face, mouth and all: one for each face, or one
        (1, H, W, 3) for all; None: the faces themselves. InputError where numbers come out that are
        not finite: they would be black or grey pixels.
        """
        if len(faces) != len(mels):
            raise ValueError(f"{len(faces)} faces for {len(mels)} mel windows")
        shown = references_of(faces, references)
        return self._chunked(
            lambda part, mel: self._run("whole", faces[part], mel, shown[part]), mels
        )

    def prepare(self, face: np.ndarray, reference: np.ndarray | None = None) -> object:
        """A still face uint8 BGR (H, W, 3) and its reference, as of `generate` (1, H, W, 3) -> what
        generate_still needs of them.
        """
        face = face[None]
        shown = references_of(face, reference)
        if not self.splits:
            return face, shown
        with self._lock:
            return self._run("encode", face, shown)

    def generate_still(self, features: object, mels: np.ndarray) -> np.ndarray:
        """`prepare`'s face with mel windows (N, 80, 16) -> (N, H, W, 3): what `generate` makes of
        the face repeated N times, but for rounding.
        """
        if self.splits:
            return self._chunked(lambda _, mel: self._run("decode", mel, *features), mels)
        face, reference = features
        return self.generate(np.repeat(face, len(mels), axis=0), mels, reference)

    def _chunked(self, run: Callable, mels: np.ndarray) -> np.ndarray:
        mels = np.ascontiguousarray(mels, np.float32)
        frames = np.empty((0, self.img_size, self.img_size, 3), np.uint8)
        step = self.chunk or max(1, len(mels))
        with self._lock:
            for first in range(0, len(mels), step):
                part = slice(first, first + step)
                made, *finite = run(part, mels[part])
                if not np.all(finite):
                    raise InputError(
                        f"the network's output is not finite ({self.describe()}): its weights are "
                        "too large for any picture"
                    )
                if not first:
                    frames = np.empty((len(mels), *made.shape[1:]), np.uint8)
                frames[part] = made
        return frames


def references_of(faces: np.ndarray, references: np.ndarray | None) -> np.ndarray:
    """One reference for each face: the faces themselves where there are none, one for all."""
    if references is None:
        return faces
    if len(references) not in (1, len(faces)):
        raise ValueError(f"{len(references)} references for {len(faces)} faces")
    return np.broadcast_to(references, faces.shape)
