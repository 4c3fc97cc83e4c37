"""The generator on the fastest engine there is: OpenVINO, PyTorch or ONNX Runtime, bytes to bytes.

In code: `create_backend(model, "cpu").generate(faces, mels)`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Backend
from errors import InputError, MissingPackage

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch, OpenVINO and ONNX Runtime are imported inside the functions, so that --help answers at once

NAMES = ("auto", "torch", "openvino", "onnx")

logger = logging.getLogger(__name__)


def create_backend(
    model: nn.Module,
    device: torch.device | str = "cpu",
    name: str = "auto",
    calibration: Iterable[tuple[np.ndarray, ...]] | None = None,
) -> Backend:
    """`model` (a generator in eval mode with img_size) on an engine.

    name: "auto" is OpenVINO on a CPU where it is installed, else PyTorch. calibration: batches of
    (faces, mels) or (faces, mels, references), as for generate, of the user's own frames; given
    them, OpenVINO computes in int8.
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
