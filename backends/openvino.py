"""OpenVINO, the fastest engine on a CPU: float32, or int8 (quantize.py)."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Backend, Facts
from errors import InputError
from models.openvino_core import compiled, cpu_threads, openvino_core, require_openvino

if TYPE_CHECKING:
    import openvino
    import torch
    from torch import nn

    from backends.cache import NetworkCache


class OpenVINOBackend(Backend):
    """OpenVINO on the CPU. Each network is converted when first used, which takes seconds, or comes
    from the cache.

    device: the CPU; create_backend asks for no other. load: gives the model where only its facts
    are known.
    """

    name = "openvino"

    def __init__(
        self,
        model: nn.Module | Facts,
        device: torch.device | str = "cpu",
        load: Callable[[], nn.Module] | None = None,
        cache: NetworkCache | None = None,
    ) -> None:
        super().__init__(model)
        self._ov = require_openvino("the openvino back end")
        openvino_core()  # before NNCF makes its own
        self._load = load or (lambda: model)
        self.cache = cache
        self.int8: WholeBackend | None = None  # quantize.py
        self._requests: dict[str, openvino.InferRequest] = {}

    def describe(self) -> str:
        return f"openvino {self._ov.__version__.split('-')[0]}, {self.precision}, CPU"

    def start(self, still: bool) -> None:
        def begin() -> None:
            with contextlib.suppress(InputError):  # the caller meets it, too, and says it once
                self.warm_up(still)

        threading.Thread(target=begin).start()

    def whole(self) -> openvino.Model:
        """The network "whole", converted."""
        face = np.zeros((1, self.img_size, self.img_size, 3), np.uint8)
        return self.converted("whole", (face, np.zeros((1, 80, 16), np.float32), face))

    def _run(self, part: str, *inputs: np.ndarray) -> tuple:
        if part not in self._requests:
            network = compiled(self.converted(part, inputs), cpu_threads())
            self._requests[part] = network.create_infer_request()
        request = self._requests[part]
        request.infer([np.ascontiguousarray(x) for x in inputs], share_inputs=True)
        outputs = (tensor.data for tensor in request.output_tensors)
        return tuple(x.copy() if part == "encode" else x for x in outputs)

    def converted(self, part: str, inputs: tuple) -> openvino.Model:
        """A network of torch.py for any number of frames; inputs: an example."""
        if self.cache and (found := self.cache.read(part)):
            return found
        model = self._load()  # first: it says what to do where there is no torch
        import torch

        from backends.torch import NETWORKS, example, on_cpu

        network = NETWORKS[part](on_cpu(model)).eval()
        tensors, free = example(part, inputs)
        shapes = [
            (self._ov.PartialShape([-1 if any_number else 1, *x.shape[1:]]), self._ov.Type(x.dtype))
            for x, any_number in zip(inputs, free, strict=True)
        ]
        with warnings.catch_warnings(), torch.no_grad():
            # torch.jit is deprecated, but OpenVINO's own way in; torch.export takes longer
            warnings.simplefilter("ignore")
            traced = torch.jit.freeze(torch.jit.trace(network, tensors, check_trace=False))
            made = self._ov.convert_model(traced, example_input=tensors, input=shapes)
        return self.cache.write(part, made) if self.cache else made


class WholeBackend(OpenVINOBackend):
    """One network that is at hand: int8, or from a file. A still face goes through it whole."""

    def __init__(self, network: openvino.Model, img_size: int, precision: str) -> None:
        super().__init__(Facts(img_size))
        self.precision, self._network = precision, network

    def converted(self, part: str, inputs: tuple) -> openvino.Model:
        return self._network
