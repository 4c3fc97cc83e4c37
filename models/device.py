"""Where the networks compute."""

from __future__ import annotations

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
