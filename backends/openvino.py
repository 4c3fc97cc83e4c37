"""OpenVINO, the fastest engine on a CPU: float32, or int8 calibrated on the user's own frames."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Backend, references_of
from errors import InputError, require_package
from models.openvino_core import openvino_core

if TYPE_CHECKING:
    import openvino
    from torch import nn

MIN_CALIBRATION = 32  # frames
MAX_CALIBRATION = 300  # frames; NNCF's own default
HELD_OUT = 4  # of so many frames one tests what the others calibrated
MIN_SSIM = 0.98  # int8 against float32


class OpenVINOBackend(Backend):
    """OpenVINO on the CPU. Each network is converted when first used, which takes seconds."""

    name = "openvino"
    precision = "float32"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._ov = require_package("openvino", "the openvino back end", "openvino")
        openvino_core()  # before NNCF makes its own
        self._model = model
        self._requests: dict[str, openvino.InferRequest] = {}

    def describe(self) -> str:
        return f"openvino {self._ov.__version__.split('-')[0]}, {self.precision}, CPU"

    def _run(self, part: str, *inputs: np.ndarray) -> tuple:
        if part not in self._requests:
            self._requests[part] = self.compiled(self.converted(part, inputs))
        request = self._requests[part]
        request.infer([np.ascontiguousarray(x) for x in inputs], share_inputs=True)
        outputs = (tensor.data for tensor in request.output_tensors)
        return tuple(x.copy() if part == "encode" else x for x in outputs)

    def converted(self, part: str, inputs: tuple) -> openvino.Model:
        """A network of torch.py for any number of frames; inputs: an example."""
        import torch

        from backends.torch import NETWORKS, example, on_cpu

        network = NETWORKS[part](on_cpu(self._model)).eval()
        tensors, free = example(part, inputs)
        shapes = [
            (self._ov.PartialShape([-1 if any_number else 1, *x.shape[1:]]), self._ov.Type(x.dtype))
            for x, any_number in zip(inputs, free, strict=True)
        ]
        with warnings.catch_warnings(), torch.no_grad():
            # torch.jit is deprecated, but OpenVINO's own way in; torch.export takes longer
            warnings.simplefilter("ignore")
            traced = torch.jit.freeze(torch.jit.trace(network, tensors, check_trace=False))
            return self._ov.convert_model(traced, example_input=tensors, input=shapes)

    def compiled(self, model: openvino.Model) -> openvino.InferRequest:
        import torch

        settings = {
            # the default is bfloat16 where the processor has it: off by more than a grey level
            "INFERENCE_PRECISION_HINT": "f32",
            # "THROUGHPUT" computes batches side by side: about as fast, but one alone gets one core
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "ENABLE_CPU_PINNING": False,  # video decoding, encoding and other programs run beside
        }
        return openvino_core().compile_model(model, "CPU", settings).create_infer_request()


class Int8Backend(OpenVINOBackend):
    """What `quantized` makes. A still face goes through the whole network."""

    precision = "int8"

    def __init__(self, model: nn.Module, whole: openvino.Model) -> None:
        super().__init__(model)
        self.splits = False
        self._requests["whole"] = self.compiled(whole)


def quantized(
    backend: OpenVINOBackend, calibration: Iterable[tuple[np.ndarray, ...]]
) -> Int8Backend:
    """`backend` in int8 (NNCF, post-training): weights a channel each, activations by their range
    over the calibration's frames.

    calibration: batches of (faces, mels), or with references as a third, as for `generate`,
    MIN_CALIBRATION frames or more. Every HELD_OUT-th frame is kept out of it: InputError where int8
    and float32 pictures of those have a mean SSIM below MIN_SSIM.
    """
    inputs = _frames(calibration)
    # NNCF imports a part of torch that warns of a missing CUDA
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    nncf = require_package("nncf", "int8", "nncf")
    held_out = np.arange(len(inputs[0])) % HELD_OUT == HELD_OUT - 1
    used = [tuple(x[i : i + 1] for x in inputs) for i in np.flatnonzero(~held_out)]
    model = backend.converted("whole", tuple(x[:1] for x in inputs))
    nncf.set_log_level(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        model = nncf.quantize(
            model,
            nncf.Dataset(used, list),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(used),
        )
    result = Int8Backend(backend._model, model)
    kept = [x[held_out] for x in inputs]
    pictures = (engine.generate(*kept)[..., :3] for engine in (backend, result))
    score = mean_ssim(*pictures)
    if not score >= MIN_SSIM:
        raise InputError(
            f"int8 is refused: its pictures have SSIM {score:.4f} with those of float32 on "
            f"{held_out.sum()} of your frames, below {MIN_SSIM}"
        )
    return result


def _frames(calibration: Iterable[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Faces, mels and references of the batches' first MAX_CALIBRATION frames; InputError below
    MIN_CALIBRATION.
    """
    faces: list[np.ndarray] = []
    mels: list[np.ndarray] = []
    references: list[np.ndarray] = []
    for some_faces, some_mels, *given in calibration:
        faces += list(some_faces)
        mels += list(some_mels)
        references += list(references_of(some_faces, *given or [None]))
        if len(faces) >= MAX_CALIBRATION:
            break
    if len(faces) < MIN_CALIBRATION:
        raise InputError(f"int8 needs {MIN_CALIBRATION} frames to calibrate on, got {len(faces)}")
    faces, mels, references = (x[:MAX_CALIBRATION] for x in (faces, mels, references))
    return np.stack(faces), np.stack(mels).astype(np.float32), np.stack(references)


def mean_ssim(truth: np.ndarray, generated: np.ndarray) -> float:
    """Of frames uint8 BGR (N, H, W, 3)."""
    import torch

    from media.difference import picture_tensor, ssim

    with torch.inference_mode():
        return float(np.mean(ssim(*(picture_tensor(x, "cpu") for x in (truth, generated)))))
