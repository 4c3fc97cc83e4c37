"""ONNX: the generator as a file for other engines, and the ONNX Runtime back end."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Backend
from backends.exported import INPUTS, description
from errors import InputError, require_package
from media.files import replacing
from models.openvino_core import cpu_threads

if TYPE_CHECKING:
    import onnxruntime
    import torch
    from torch import nn

TOLERANCE = 1e-4  # of an exported model's frames in 0..1
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class OnnxBackend(Backend):
    """ONNX Runtime in float32, on a GPU with its CUDA build. Each network is exported when first
    used, which takes seconds.
    """

    name = "onnx"

    def __init__(self, model: nn.Module, device: torch.device | str = "cpu") -> None:
        import torch

        super().__init__(model)
        self._ort = _require_onnx("the onnx back end")
        self._gpu = torch.device(device).type == "cuda"
        if self._gpu and "CUDAExecutionProvider" not in self._ort.get_available_providers():
            raise InputError(
                "this onnxruntime has no CUDA: pip install onnxruntime-gpu, or use --device cpu"
            )
        self._model = model
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def describe(self) -> str:
        where = "CUDA" if self._gpu else "CPU"
        return f"onnxruntime {self._ort.__version__}, float32, {where}"

    def _run(self, part: str, *inputs: np.ndarray) -> tuple:
        if part not in self._sessions:
            self._sessions[part] = self._session(part, inputs)
        session = self._sessions[part]
        feed = {x.name: value for x, value in zip(session.get_inputs(), inputs, strict=True)}
        return tuple(session.run(None, feed))

    def _session(self, part: str, inputs: tuple) -> onnxruntime.InferenceSession:
        from backends.torch import NETWORKS, example, on_cpu

        network = NETWORKS[part](on_cpu(self._model)).eval()
        tensors, free = example(part, inputs)
        axes = tuple(any_length() if any_number else None for any_number in free)
        if part == "decode":  # forward(mels, *features)
            axes = axes[0], axes[1:]
        names = [f"input{index}" for index in range(len(inputs))]
        return open_session(to_onnx(network, tensors, axes, names), self._gpu)


def any_length() -> dict:
    """Says of an input that its first axis has any length, the same for all inputs."""
    import torch

    return {0: torch.export.Dim("batch")}


def to_onnx(
    network: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    axes: tuple,
    names: Sequence[str],
    outputs: Sequence[str] | None = None,
    facts: dict | None = None,
) -> bytes:
    """`network` as serialised ONNX; axes: any_length() for an input with any number of frames, or
    None. facts: for the file's own metadata.
    """
    import torch

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own parts
        program = torch.export.export(network, inputs, dynamic_shapes=axes)
        program = torch.onnx.export(
            program, dynamo=True, input_names=names, output_names=outputs, verbose=False
        )
    model = program.model_proto
    for key, value in (facts or {}).items():
        model.metadata_props.add(key=key, value=str(value))
    return model.SerializeToString()


def open_session(model: bytes, gpu: bool = False) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    providers = ["CUDAExecutionProvider"] if gpu else []
    return onnxruntime.InferenceSession(model, options, [*providers, "CPUExecutionProvider"])


def export(model: nn.Module, path: str | os.PathLike) -> float:
    """Write `model` as ONNX and return how far its frames are from PyTorch's, at most.

    Inputs audio_sequences (N, 1, 80, 16) and face_sequences (N, 6, H, W), output frames
    (N, 3, H, W), all float32, as in the model's forward; of a model with a mask also face_and_mask
    (N, 4, H, W). Metadata: model, img_size, mask. InputError, and no file, where ONNX
    Runtime computes anything TOLERANCE or more away.
    """
    import torch

    from backends.torch import Masked, on_cpu

    _require_onnx("the export")
    model, size = on_cpu(model).eval(), model.img_size
    generator = torch.Generator().manual_seed(0)

    def inputs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        audio = 8 * torch.rand(count, 1, 80, 16, generator=generator) - 4
        return audio, torch.rand(count, 6, size, size, generator=generator)

    network, outputs = model, ["frames"]
    if hasattr(model, "draw"):  # the mask, too, for --checkpoint_path (exported.py)
        network, outputs = Masked(model), ["frames", "face_and_mask"]
    axes = (any_length(), any_length())
    content = to_onnx(network, inputs(2), axes, INPUTS, outputs, description(model))
    session, differences = open_session(content), []
    for count in (1, 3):
        tensors = inputs(count)
        with torch.inference_mode():
            expected = model(*tensors).numpy()
        feed = {name: x.numpy() for name, x in zip(INPUTS, tensors, strict=True)}
        differences.append(np.abs(session.run(None, feed)[0] - expected).max())
    difference = float(np.max(differences))  # NaN stays NaN
    if not difference < TOLERANCE:
        raise InputError(
            f"{os.fspath(path)} is not written: ONNX frames are {difference:.1e} off PyTorch's, "
            f"at most {TOLERANCE:g} is allowed"
        )
    try:
        with replacing(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise InputError(f"{os.fspath(path)} cannot be written ({error.strerror})") from error
    return difference


def _require_onnx(what: str) -> object:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    modules = [require_package(name, what, " ".join(PACKAGES)) for name in PACKAGES]
    return modules[-1]
