"""OpenVINO's one core of a process, for the back end and the landmarks alike."""

from __future__ import annotations

import functools
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
