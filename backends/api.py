"""The generator on the fastest engine there is: OpenVINO, PyTorch or ONNX Runtime, bytes to bytes.

In code: `create_backend(model, "cpu").generate(faces, mels)`.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch, OpenVINO and ONNX Runtime are imported inside the functions, so that --help answers at once

NAMES = ("auto", "torch", "openvino", "onnx")
CHUNK = 8  # frames that a CPU computes at once: more is no faster and takes more memory

logger = logging.getLogger(__name__)


class Backend:
    """A generator on some engine. Made in one thread, it may be used in others, in turn.

    Where the model has encode_face(faces) -> tuple of features and decode(audio, features), a still
    face is encoded once; any other model sees it again with every mel window. A model with
    draw(audio, features) -> face, mask gives faces with a fourth channel, the mask for paste_face.
    """

    name = ""
    chunk: int | None = CHUNK  # None: a batch as it comes

    def __init__(self, model: nn.Module) -> None:
        self.img_size: int = model.img_size
        self.splits = hasattr(model, "encode_face") and hasattr(model, "decode")
        self._lock = threading.Lock()

    def describe(self) -> str:
        """Engine and version, precision, processor: for logs and benchmarks."""
        raise NotImplementedError

    def _run(self, part: str, *inputs: object) -> tuple:
        """Outputs of "whole", "encode" or "decode" (backends/torch.py). Those of "encode" stay
        valid and may be inputs of "decode"; the others are arrays, valid until the next call.
        """
        raise NotImplementedError

    def generate(self, faces: np.ndarray, mels: np.ndarray) -> np.ndarray:
        """Faces uint8 BGR (N, H, W, 3) and mel windows (N, 80, 16) -> faces that say them;
        H = W = img_size; (N, H, W, 4) with a mask.
        """
        if len(faces) != len(mels):
            raise ValueError(f"{len(faces)} faces for {len(mels)} mel windows")
        return self._chunked(lambda part, mel: self._run("whole", faces[part], mel), mels)

    def prepare(self, face: np.ndarray) -> object:
        """A still face uint8 BGR (H, W, 3) -> what generate_still needs of it."""
        if not self.splits:
            return face
        with self._lock:
            return self._run("encode", face[None])

    def generate_still(self, features: object, mels: np.ndarray) -> np.ndarray:
        """`prepare`'s face with mel windows (N, 80, 16) -> (N, H, W, 3): what `generate` makes of
        the face repeated N times, but for rounding.
        """
        if self.splits:
            return self._chunked(lambda _, mel: self._run("decode", mel, *features), mels)
        return self.generate(np.repeat(features[None], len(mels), axis=0), mels)

    def _chunked(self, run: Callable, mels: np.ndarray) -> np.ndarray:
        mels = np.ascontiguousarray(mels, np.float32)
        frames = np.empty((0, self.img_size, self.img_size, 3), np.uint8)
        step = self.chunk or max(1, len(mels))
        with self._lock:
            for first in range(0, len(mels), step):
                part = slice(first, first + step)
                made = run(part, mels[part])[0]
                if not first:
                    frames = np.empty((len(mels), *made.shape[1:]), np.uint8)
                frames[part] = made
        return frames


def create_backend(
    model: nn.Module,
    device: torch.device | str = "cpu",
    name: str = "auto",
    calibration: Iterable[tuple[np.ndarray, np.ndarray]] | None = None,
) -> Backend:
    """`model` (a generator in eval mode with img_size) on an engine.

    name: "auto" is OpenVINO on a CPU where it is installed, else PyTorch. calibration: batches of
    (faces, mels), as for generate, of the user's own frames; given them, OpenVINO computes in int8.
    InputError where the engine is not installed or cannot do it.
    """
    import torch

    device = torch.device(device)
    if name not in NAMES:
        raise InputError(f"unknown back end {name!r}; choose one of {', '.join(NAMES)}")
    if calibration is not None and (name not in ("auto", "openvino") or device.type != "cpu"):
        raise InputError("int8 needs the openvino back end on the CPU")
    if name == "onnx":
        from backends.onnx import OnnxBackend

        return OnnxBackend(model, device)
    if name == "openvino" or (name == "auto" and device.type == "cpu"):
        from backends.openvino import OpenVINOBackend, quantized

        if device.type != "cpu":
            raise InputError(f"the openvino back end runs on the CPU, not on {device}")
        try:
            backend = OpenVINOBackend(model)
            return backend if calibration is None else quantized(backend, calibration)
        except MissingPackage as error:
            if name == "openvino" or calibration is not None:
                raise
            logger.info("PyTorch is used: %s", error)
    from backends.torch import TorchBackend

    return TorchBackend(model, device)


class MissingPackage(InputError):
    """An optional package is not installed, or does not import."""


def require_package(package: str, what: str, remedy: str) -> ModuleType:
    """The module, or MissingPackage: one line with what needs it and the remedy."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise MissingPackage(f"{what} needs {package} ({reason}): pip install {remedy}") from error
