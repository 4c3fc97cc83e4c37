"""How a step is computed: autocast, loss scaling, accumulation, clipping. Off = the paper's run."""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import nn

from hparams import HParams
from training import distributed

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class NonFiniteLoss(ArithmeticError):
    """A loss or a gradient is infinite or not a number; its network has not been updated by it."""


class Precision:
    """Backward passes and updates of one training run.

    `last` is False for all but the last of the batches that make one step (hp.accumulation). Batch
    norm sees each of those batches alone.
    """

    def __init__(self, hp: HParams | None = None, device: torch.device | str = "cpu") -> None:
        hp = hp or HParams()
        self.device = torch.device(device)
        self.dtype = DTYPES.get(hp.amp)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=hp.amp == "float16")
        self.accumulation, self.clip_grad = hp.accumulation, hp.clip_grad
        self.last = True

    def autocast(self) -> contextlib.AbstractContextManager:
        """Around forward passes."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def full(self, tensor: torch.Tensor) -> torch.Tensor:
        """What autocast made half as precise, in float32 for the losses."""
        return tensor if self.dtype is None else tensor.float()

    def no_sync(self, model: nn.Module) -> contextlib.AbstractContextManager:
        """Around forward and backward passes: gradients are exchanged in a step's last batch."""
        if self.last or not isinstance(model, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return model.no_sync()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of `loss` (a scalar). NonFiniteLoss: it is none of float16's doing."""
        if self.scaler.is_enabled():  # else the gradients tell, at the update
            _require_finite("loss", loss.detach())
        self.scaler.scale(loss / self.accumulation).backward()

    def update(self, optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, torch.Tensor]:
        """One step of the optimizer, after a step's last batch; gives {"grad_norm"} before
        clipping, else {}. NonFiniteLoss where the gradients are not finite.
        """
        if not self.last:
            return {}
        self.scaler.unscale_(optimizer)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not self.scaler.is_enabled():  # the scaler skips such steps and lowers its scale
            _require_finite("gradient", norm)
        if self.clip_grad:
            torch.nn.utils.clip_grads_with_norm_(model.parameters(), self.clip_grad, norm)
        self.scaler.step(optimizer)
        optimizer.zero_grad()
        return {"grad_norm": norm}

    def end_step(self) -> None:
        """After the updates of all optimizers."""
        if self.last:
            self.scaler.update()


def _require_finite(what: str, value: torch.Tensor) -> None:
    if distributed.any_process(not bool(value.isfinite())):
        raise NonFiniteLoss(f"the {what} is {float(value)}")


class Ema:
    """A moving average of a network's weights: w <- decay * w + (1 - decay) * new, after each step.

    Batch norm's statistics are averages already and are copied. `model` is the averaged network.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.model = decay, copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in `model` after step `step` (from 1): young averages forget faster."""
        decay = min(self.decay, step / (step + 10))
        for mine, new in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(new, 1 - decay)
        for mine, new in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(new)
