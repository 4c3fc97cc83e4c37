"""What the three training scripts share: device, seeds, loading, resuming, logging, sample
grids.
"""

from __future__ import annotations

import logging
import math
import os
import random
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from checkpoint import (
    checkpoint_path,
    list_checkpoints,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)
from errors import InputError
from hparams import HParams

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from datasets import WindowDataset

logger = logging.getLogger(__name__)


def select_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the first GPU, or the CPU where there is none."""
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


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch. The data have seeds of their own (datasets.py)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class EndlessSampler(torch.utils.data.Sampler):
    """(epoch, clip) keys without end: each epoch every clip once, in an order drawn from the seed.

    A sample's place in the stream is its number alone, so starting at sample N repeats what a run
    that was never stopped would have read.
    """

    def __init__(self, clips: int, seed: int, start: int = 0) -> None:
        self.clips, self.seed, self.start = clips, seed, start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, position = divmod(self.start, self.clips)
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.clips)
            for clip in order[position:]:
                yield epoch, int(clip)
            epoch, position = epoch + 1, 0


def train_batches(
    dataset: WindowDataset, batch_size: int, hp: HParams, start_step: int
) -> Iterator[dict]:
    """Batches without end, beginning with the one that step `start_step` (from 0) uses."""
    return _load(
        dataset, EndlessSampler(len(dataset), hp.seed, start_step * batch_size), batch_size, hp
    )


def validation_batches(dataset: WindowDataset, batch_size: int, hp: HParams) -> Iterator[dict]:
    """The same windows every time: one of every clip, or hp.eval_windows going round the split."""
    count = hp.eval_windows or len(dataset)
    keys = [divmod(number, len(dataset)) for number in range(count)]
    return _load(dataset, keys, batch_size, hp)


def _load(
    dataset: WindowDataset, keys: list | EndlessSampler, batch_size: int, hp: HParams
) -> Iterator[dict]:
    workers = min(hp.num_workers, os.cpu_count() or 1)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size,
        sampler=keys,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
    )
    try:
        yield from loader
    except InputError as error:
        # a worker's error carries its traceback as text: its last line is the message
        raise InputError(
            str(error).strip().splitlines()[-1].removeprefix("errors.InputError: ")
        ) from None


def _start_worker(_: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # one thread per worker process, or they fight over the cores
    torch.set_num_threads(1)


def to_device(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def freeze(expert: nn.Module, batch_stats: bool) -> nn.Module:
    """The expert as a judge: no gradients of its own, running statistics fixed (paper section 3.2).

    batch_stats: judge by each batch's statistics, as the released scripts do by never leaving train
    mode.
    """
    for parameter in expert.parameters():
        parameter.requires_grad_(False)
    return expert.train(batch_stats)


def grad_norm(model: nn.Module) -> torch.Tensor:
    """Euclidean norm of all gradients; nothing is clipped."""
    return torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])


class Checkpoints:
    """Saves and resumes one run's networks in `folder`.

    parts: prefix -> (model, optimizer). The main network has the prefix "" and is saved as
    checkpoint_step*.pth, a discriminator "disc_" and disc_checkpoint_step*.pth.
    """

    def __init__(
        self, folder: str, hp: HParams, parts: dict[str, tuple[nn.Module, Optimizer]]
    ) -> None:
        self.folder, self.hp, self.parts = folder, hp, parts

    def resume(self, start_paths: dict[str, str | None]) -> dict:
        """Load the newest checkpoint of the folder, or else the files in start_paths by prefix.

        Returns {"global_step", "global_epoch", "syncnet_wt"}; a fresh start is step 0 with hp's
        sync weight.
        """
        newest = list_checkpoints(self.folder)
        state = {"global_step": 0, "global_epoch": 0, "syncnet_wt": self.hp.syncnet_wt}
        for prefix, (model, optimizer) in self.parts.items():
            path = (
                checkpoint_path(self.folder, newest[-1][0], prefix)
                if newest
                else start_paths.get(prefix)
            )
            if path is None:
                continue
            checkpoint = read_checkpoint(path)
            load_weights(model, checkpoint, path)
            self._load_optimizer(optimizer, checkpoint.get("optimizer"), path)
            logger.info("loaded %s at step %s", path, checkpoint.get("global_step", 0))
            if prefix == "":
                state |= {
                    key: checkpoint[key]
                    for key in state
                    if isinstance(checkpoint.get(key), (int, float))
                }
                self._restore_rng(checkpoint.get("rng"))
        return state

    def _load_optimizer(self, optimizer: Optimizer, saved: dict | None, path: str) -> None:
        if not saved:
            logger.info("%s holds no optimizer state: the optimizer starts afresh", path)
            return
        try:
            optimizer.load_state_dict(saved)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"checkpoint {path}: its optimizer does not fit this model ({error})"
            ) from error

    @staticmethod
    def _restore_rng(state: object) -> None:
        if isinstance(state, dict) and isinstance(state.get("torch"), torch.Tensor):
            torch.set_rng_state(state["torch"])

    def save(self, state: dict) -> str:
        """Write all parts at state["global_step"], the main one last: its presence means that all
        are there.
        """
        step = state["global_step"]
        for prefix in sorted(self.parts, key=len, reverse=True):
            model, optimizer = self.parts[prefix]
            path = checkpoint_path(self.folder, step, prefix)
            save_checkpoint(
                path,
                {
                    "state_dict": model.state_dict(),
                    "optimizer": optimizer.state_dict() if self.hp.save_optimizer_state else None,
                    "global_step": step,
                    "global_epoch": state["global_epoch"],
                    "syncnet_wt": state["syncnet_wt"],
                    "model": {"name": type(model).__name__, "width": self.hp.width},
                    "hparams": dict(vars(self.hp)),
                    "rng": {"torch": torch.get_rng_state()},
                },
            )
        logger.info("saved %s", path)
        self._prune()
        return path

    def _prune(self) -> None:
        """Keep the newest hp.keep_checkpoints of every part."""
        for prefix in self.parts:
            old = (
                list_checkpoints(self.folder, prefix)[: -self.hp.keep_checkpoints]
                if self.hp.keep_checkpoints
                else []
            )
            for _, path in old:
                os.remove(path)


def set_learning_rates(step: int, rates: dict[Optimizer, float], hp: HParams) -> None:
    """Give every optimizer its rate for step `step` (from 0): constant, or hp's warm-up and cosine.

    A function of the step alone, so that a resumed run goes on with the right one.
    """
    share = min(1.0, (step + 1) / hp.warmup_steps) if hp.warmup_steps else 1.0
    if hp.cosine and hp.nsteps > hp.warmup_steps:
        done = max(0.0, (step - hp.warmup_steps) / (hp.nsteps - hp.warmup_steps))
        share *= 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    for optimizer, rate in rates.items():
        for group in optimizer.param_groups:
            group["lr"] = rate * share


def place(model: nn.Module, device: torch.device, hp: HParams) -> nn.Module:
    """The model on its device, in the memory layout that hp asks for."""
    return model.to(device, memory_format=torch.channels_last if hp.channels_last else None)


def finished(step: int, epoch: int, hp: HParams) -> bool:
    """Whether hp.nsteps or hp.nepochs has been reached."""
    return epoch >= hp.nepochs or (hp.nsteps > 0 and step >= hp.nsteps)


def progress(start: int, hp: HParams) -> object:
    """A progress bar over steps; quiet where standard error is not a terminal."""
    from tqdm import tqdm

    return tqdm(
        initial=start, total=hp.nsteps or None, unit="step", disable=not sys.stderr.isatty()
    )
