"""OpenVINO's one core of a process, for the back end and the landmarks alike."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino

# Importing OpenVINO or NNCF reports home unless this package, which does it, is absent
sys.modules.setdefault("openvino_telemetry", None)


@functools.cache
def openvino_core() -> openvino.Core:
    """One for the process, its CPU plugin loaded. Each plugin gives the thread a signal stack.
    Where plugins go in another order than they came, one frees the stack in use, and the next
    signal that Python handles, Ctrl-C say, ends the process without a word.
    """
    import openvino

    core = openvino.Core()
    core.get_versions("CPU")
    return core


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
