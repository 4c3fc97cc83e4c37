"""The generator on the fastest engine there is: OpenVINO, PyTorch or ONNX Runtime, bytes to bytes.

In code: `open_backend("checkpoints/open.pth").generate(faces, mels)`, or `create_backend(model)`.
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING

from backends.base import Backend, Facts, facts_of
from errors import InputError, MissingPackage, require_file, require_package
from models.openvino_core import require_openvino

if TYPE_CHECKING:
    import torch
    from torch import nn

# torch, OpenVINO and ONNX Runtime are imported inside the functions, so that --help answers at once

ENGINES = {  # a back end is its file, and a line here
    "torch": "torch.TorchBackend",
    "openvino": "openvino.OpenVINOBackend",
    "onnx": "onnx.OnnxBackend",
}
NAMES = ("auto", *ENGINES)

logger = logging.getLogger(__name__)


def open_backend(
    path: str | os.PathLike, device: str = "cpu", name: str = "auto", cache_dir: str | None = None
) -> Backend:
    """The generator in a file on an engine: weights, .pth, or what `python -m backends export`
    wrote, .onnx or .xml, which needs no torch.

    name: as of create_backend. cache_dir: where OpenVINO's networks are kept, "user" for the user's
    cache folder; None: nowhere. InputError where the file or the engine cannot be used.
    """
    path = require_file(path, "checkpoint")
    if path.endswith((".onnx", ".xml")):
        from backends.exported import open_exported

        return open_exported(path, device, name, on_openvino(device, name))
    if cache_dir and on_openvino(device, name):
        from backends.cache import NetworkCache
        from backends.openvino import OpenVINOBackend

        cache = NetworkCache(cache_dir, path)
        if facts := cache.notes().get("facts"):
            return OpenVINOBackend(Facts(**facts), load=lambda: _load(path), cache=cache)
        model = _load(path)
        cache.note(facts=vars(facts_of(model)))
        return OpenVINOBackend(model, cache=cache)
    return create_backend(_load(path), device, name)


def create_backend(
    model: nn.Module, device: torch.device | str = "cpu", name: str = "auto"
) -> Backend:
    """`model` (a generator in eval mode with img_size) on an engine.

    name: "auto" is OpenVINO on a CPU where it is installed, else PyTorch. InputError where the
    engine is not installed or cannot do it.
    """
    import torch

    device = torch.device(device)
    if name not in NAMES:
        raise InputError(f"unknown back end {name!r}; choose one of {', '.join(NAMES)}")
    if on_openvino(device.type, name):
        name = "openvino"
    module, _, engine = ENGINES["torch" if name == "auto" else name].partition(".")
    return getattr(importlib.import_module(f"backends.{module}"), engine)(model, device)


def on_openvino(device: str, name: str) -> bool:
    """Whether `name` means OpenVINO; InputError where it must and cannot."""
    if name not in ("auto", "openvino"):
        return False
    if not device.startswith("cpu"):
        if name == "openvino":
            raise InputError(f"the openvino back end runs on the CPU, not on {device}")
        return False
    try:
        require_openvino("the openvino back end")
    except MissingPackage as error:
        if name == "openvino":
            raise
        logger.info("PyTorch is used: %s", error)
        return False
    return True


def _load(path: str) -> nn.Module:
    require_package("torch", "a .pth", "-r requirements.txt, or give an exported .onnx or .xml")
    from models.checkpoint import load_generator

    return load_generator(path)
