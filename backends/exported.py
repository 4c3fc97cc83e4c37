"""The generator from a file that `python -m backends export` wrote: runs without torch.

`.xml` (with its `.bin`): OpenVINO, float32 or int8, bytes to bytes. `.onnx`: the model's own
forward in float32, on OpenVINO where that is installed, else on ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Backend, Facts
from errors import InputError, require_package
from models.openvino_core import cpu_threads, openvino_core

if TYPE_CHECKING:
    from torch import nn

INPUTS = ("audio_sequences", "face_sequences")  # of a model's forward
INFO = "wav2lip"  # where a file says what it is: name, img_size, mask, precision


def description(model: nn.Module) -> dict[str, object]:
    """What an exported file says of the model in it."""
    from models.checkpoint import describe_model

    record = describe_model(model)
    return {name: record[name] for name in ("name", "img_size")} | {"mask": hasattr(model, "draw")}


class OnnxFile(Backend):
    """A model's forward behind `generate`: pictures are scaled here, in NumPy.

    run: (audio (N, 1, 80, 16), pictures (N, 6, S, S)) -> its outputs, of which the last has the
    mask, where the model has one, as fourth channel.
    """

    name = "onnx"

    def __init__(self, img_size: int, description: str, run: Callable) -> None:
        super().__init__(Facts(img_size))
        self._description, self._forward = description, run

    def describe(self) -> str:
        return self._description

    def _run(self, part: str, *inputs: np.ndarray) -> tuple:
        faces, mels, references = inputs
        masked = faces.copy()
        masked[:, faces.shape[1] // 2 :] = 0
        pictures = np.concatenate((masked, references), axis=3).transpose(0, 3, 1, 2)
        frames = self._forward(mels[:, None], pictures.astype(np.float32) / np.float32(255))[-1]
        return (np.floor(frames * 255).astype(np.uint8).transpose(0, 2, 3, 1),)


def open_exported(path: str, device: str, name: str, openvino: bool) -> Backend:
    """The network in the file, on OpenVINO or not; InputError where it is another, damaged, or has
    no engine.
    """
    onnx = path.endswith(".onnx")
    if not openvino and not (onnx and name in ("auto", "onnx")):
        raise InputError(f"{path} needs the openvino back end on the CPU, not {name} on {device}")
    try:
        return _on_openvino(path, onnx) if openvino else _on_onnxruntime(path, device)
    except (RuntimeError, LookupError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"checkpoint {path} is not what python -m backends export writes ({reason})"
        ) from error


def _on_openvino(path: str, onnx: bool) -> Backend:
    from backends.openvino import WholeBackend

    network = openvino_core().read_model(path)
    if onnx:
        _require_inputs({x.any_name for x in network.inputs})
        side = network.input(INPUTS[1]).partial_shape[2].get_length()
        whole = WholeBackend(network, side, "float32")
        order = [x.any_name for x in network.inputs]

        def run(*given: np.ndarray) -> tuple:
            feed = dict(zip(INPUTS, given, strict=True))
            return whole._run("whole", *(feed[name] for name in order))

        return OnnxFile(side, whole.describe(), run)
    info = {key: network.get_rt_info([INFO, key]).value for key in ("img_size", "precision")}
    return WholeBackend(network, int(info["img_size"]), info["precision"])


def _on_onnxruntime(path: str, device: str) -> Backend:
    ort = require_package("onnxruntime", "the onnx back end", "onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    providers = ["CPUExecutionProvider"]
    if not device.startswith("cpu"):
        providers.insert(0, "CUDAExecutionProvider")
    session = ort.InferenceSession(path, options, providers)
    _require_inputs({x.name for x in session.get_inputs()})
    side = {x.name: x.shape for x in session.get_inputs()}[INPUTS[1]][2]

    def run(audio: np.ndarray, pictures: np.ndarray) -> list[np.ndarray]:
        return session.run(None, dict(zip(INPUTS, (audio, pictures), strict=True)))

    where = session.get_providers()[0].removesuffix("ExecutionProvider")
    return OnnxFile(side, f"onnxruntime {ort.__version__}, float32, {where}", run)


def _require_inputs(names: set[str]) -> None:
    if names != set(INPUTS):
        raise LookupError(f"its inputs are not {' and '.join(INPUTS)}")
