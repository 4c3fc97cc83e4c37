"""Where the networks compute."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from errors import InputError, require_package

if TYPE_CHECKING:
    import torch


GPU_FILES = ("/dev/nvidiactl", "/dev/nvmap", "/dev/kfd", "/dev/dxg")  # PC, Jetson, AMD, WSL


class DeviceName(str):
    """ "cpu", "cuda:1" ..., with a `type` as torch.device has."""

    @property
    def type(self) -> str:
        return self.partition(":")[0]


def device_name(name: str) -> DeviceName:
    """What select_device gives, by name; a CPU is known without torch, which loads for seconds."""
    gpu = sys.platform != "linux" or any(map(os.path.exists, GPU_FILES))
    if name == "cpu" or (name == "auto" and not gpu):
        return DeviceName("cpu")
    return DeviceName(select_device(name))


def select_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU, or the CPU where there is none."""
    torch = require_package("torch", f"--device {name}", "-r requirements.txt")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"--device {name} cannot be used here ({str(error).splitlines()[0]})"
        ) from error
    return device


def core_count() -> int:
    """Processors that this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> tuple[int, int]:
    """What this process holds of the machine's memory, and the most that it has held (where macOS
    does not tell, again what it holds). Not getrusage: its ru_maxrss also counts the parent's
    pages, which a child has until its own program is loaded.
    """
    import psutil

    info = psutil.Process().memory_info()
    peak = getattr(info, "peak_wset", info.rss)  # Windows
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="utf-8") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    return info.rss, peak
