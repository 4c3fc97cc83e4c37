"""OpenVINO, imported here and nowhere else, and its one core of a process."""

from __future__ import annotations

import functools
import os
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from errors import require_package

if TYPE_CHECKING:
    import openvino

# What OpenVINO and NNCF report home with, from a forked process that may hang where there is no
# network; whichever is imported first looks for it, so it must seem absent before
sys.modules.setdefault("openvino_telemetry", None)

_MAKING = threading.Lock()


def require_openvino(what: str, package: str = "openvino") -> ModuleType:
    """OpenVINO, or "nncf", after the line above: no other file imports them
    (tests/test_openvino_core.py). MissingPackage as require_package, with `what` needs it.
    """
    return require_package(package, what, package)


def openvino_core() -> openvino.Core:
    """One for the process, its CPU plugin loaded; MissingPackage. Each plugin gives the thread a
    signal stack. Where plugins go in another order than they came, one frees the stack in use, and
    the next signal that Python handles, Ctrl-C say, ends the process without a word.
    """
    with _MAKING:  # a cache alone lets two threads make one each
        return _core()


@functools.cache
def _core() -> openvino.Core:
    package = require_openvino("this network")
    core = package.Core()
    core.get_versions("CPU")
    _use_once(package, core)
    return core


def _use_once(package: ModuleType, core: openvino.Core) -> None:
    """The binding makes some of its types when they are first used. Two threads whose networks ran
    for the first time at once met one half made ("'iterator' is not an instance of 'iterator'"), or
    waited for each other for ever, in Tensor.data; so it is all used here, by one.
    """
    numbers = package.opset8.parameter([-1], np.float32)
    model = package.Model([package.opset8.relu(numbers)], [numbers], "first")
    request = core.compile_model(model, "CPU").create_infer_request()
    for shared in (False, True):
        request.infer([np.zeros(1, np.float32)], share_inputs=shared)
    made = [(tensor.data, list(tensor.shape)) for tensor in request.output_tensors]
    list(model.inputs[0].partial_shape), list(model.outputs), made[0][0].copy()


def compiled(model: openvino.Model, threads: int) -> openvino.CompiledModel:
    settings = {
        # the default is bfloat16 where the processor has it: off by more than a grey level
        "INFERENCE_PRECISION_HINT": "f32",
        # "THROUGHPUT" computes batches side by side: about as fast, but one alone gets one core
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # video decoding, encoding and other programs run beside
    }
    return openvino_core().compile_model(model, "CPU", settings)


def cpu_threads() -> int:
    """PyTorch's number where it is loaded, else OMP_NUM_THREADS, else the cores at hand."""
    if torch := sys.modules.get("torch"):
        return torch.get_num_threads()
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) else len(os.sched_getaffinity(0))
