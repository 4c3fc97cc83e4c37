"""Training on several processes: what does nothing where there is one.

    torchrun --nproc_per_node=4 color_syncnet_train.py ...

Process groups come from torchrun's environment: NCCL on GPUs, gloo on CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn

from errors import InputError


def rank() -> int:
    """Number of this process, 0 where it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes logs and checkpoints."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the group that torchrun describes, if any; gives this process' own device."""
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        yield device
        return
    if device.type == "cuda":
        local, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= count:
            raise InputError(
                f"torchrun starts process {local + 1} of this machine, which has {count} GPUs: "
                "lower --nproc_per_node"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def sync_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norms that see the batches of all processes; perhaps a new module."""
    if world_size() == 1:
        return model
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GlooSyncBatchNorm  # torch's own runs on GPUs only
    return model


class GlooSyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d over the batches of all processes, for the CPU; equal batch sizes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce  # through which gradients flow

        mean = all_reduce(x.mean((0, 2, 3))) / world_size()
        centred = x - mean[:, None, None]
        var = all_reduce(centred.square().mean((0, 2, 3))) / world_size()
        with torch.no_grad():
            count = x.numel() // x.shape[1] * world_size()
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(var + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]


def sum_of(values: dict[str, float]) -> dict[str, float]:
    """Each number summed over processes; the same names everywhere."""
    if world_size() == 1:
        return values
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(sums)
    return dict(zip(values, sums.tolist(), strict=True))


def mean_of(values: dict[str, float]) -> dict[str, float]:
    """Each number averaged over processes."""
    return {name: value / world_size() for name, value in sum_of(values).items()}


def any_process(flag: bool) -> bool:
    """Whether `flag` is set in any process: what all must decide alike, such as stopping."""
    return sum_of({"flag": float(flag)})["flag"] > 0
