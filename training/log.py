"""What a training run says: console, train.log, metrics.jsonl, TensorBoard, sample grids."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from logging.handlers import MemoryHandler

import torch

from errors import InputError
from hparams import HParams
from media.files import add_record
from training import distributed

logger = logging.getLogger(__name__)


class RunLog:
    """What a run says, in `<log_dir>/<experiment>/` and on the console.

    metrics.jsonl has one object a line: {"step", "time", "split",
    name: mean, ...}. Training scalars are averaged over hp.log_interval steps and all processes;
    only the first process writes, and all must call alike. Until begin() it speaks on the console
    only: a run whose resume is refused leaves the files of the one before alone.
    """

    def __init__(self, args: argparse.Namespace, hp: HParams) -> None:
        name = args.experiment or os.path.basename(os.path.normpath(args.checkpoint_dir))
        self.folder, self._checkpoint_dir = os.path.join(args.log_dir, name), args.checkpoint_dir
        self._hp, self._step, self._board = hp, 0, None
        self._sums, self._counts = Counter(), Counter()
        if not distributed.is_main():
            logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
            return
        self._kept = MemoryHandler(1)  # until it has a target, then it passes on what comes
        console = logging.StreamHandler(sys.stderr)
        # a terminal has a bar with the numbers of training; elsewhere they are printed
        console.setLevel(logging.INFO if sys.stderr.isatty() else logging.DEBUG)
        logger.setLevel(logging.DEBUG)
        logging.basicConfig(
            level=logging.INFO,
            format="%(asctime)s %(message)s",
            datefmt="%Y-%m-%d %H:%M:%S",
            handlers=[self._kept, console],
            force=True,
        )

    def begin(self) -> None:
        """Make the folders and files; InputError where that cannot be."""
        if not distributed.is_main():
            return
        try:
            for folder in (self.folder, self._checkpoint_dir):
                os.makedirs(folder, exist_ok=True)
                self._hp.save(os.path.join(folder, "hparams.yaml"))
            file = logging.FileHandler(os.path.join(self.folder, "train.log"), encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write to {error.filename}: {error.strerror}") from error
        file.setFormatter(self._kept.formatter)
        self._kept.setTarget(file)
        self._kept.flush()
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(os.path.join(self.folder, "tensorboard"))

    def add(self, scalars: dict[str, torch.Tensor]) -> None:
        """Take in one batch's scalars; nothing waits for the device here."""
        for name, value in scalars.items():
            self._sums[name] += value.detach()
            self._counts[name] += 1

    def train(self, step: int, scalars: dict[str, torch.Tensor]) -> dict[str, float] | None:
        """Add the scalars of a step; every hp.log_interval steps write and return their means."""
        self.add(scalars)
        self._step = step
        return None if step % self._hp.log_interval else self._flush()

    def _flush(self) -> dict[str, float]:
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        means = distributed.mean_of(means)
        self._sums.clear()
        self._counts.clear()
        self.write(self._step, "train", means)
        return means

    def write(self, step: int, split: str, scalars: dict[str, float]) -> None:
        """One line of metrics.jsonl and the same numbers in TensorBoard."""
        if self._board is None:
            return
        line = {"step": step, "time": round(time.time(), 1), "split": split, **scalars}
        add_record(os.path.join(self.folder, "metrics.jsonl"), line)
        for name, value in scalars.items():
            self._board.add_scalar(f"{split}/{name}", value, step)
        numbers = "  ".join(f"{name} {value:.4f}" for name, value in scalars.items())
        level = logging.DEBUG if split == "train" else logging.INFO
        logger.log(level, "step %d %s: %s", step, split, numbers)

    def grid(
        self, step: int, batch: dict[str, torch.Tensor], generated: torch.Tensor, rows: int = 4
    ) -> None:
        """Save samples_step*.png: for each clip and frame reference | input | generated | truth."""
        if self._board is None:
            return
        import cv2

        parts = [batch["x"][:rows, 3:], batch["x"][:rows, :3], generated[:rows], batch["y"][:rows]]
        image = torch.stack([part.detach().float().cpu() for part in parts])  # (4, R, 3, T, H, W)
        image = image.permute(1, 4, 3, 0, 5, 2).flatten(2, 4).flatten(0, 1)  # (R*H, T*4*W, 3)
        pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
        cv2.imwrite(os.path.join(self.folder, f"samples_step{step:09d}.png"), pixels)
        self._board.add_image("samples", pixels[..., ::-1].copy(), step, dataformats="HWC")

    def close(self) -> None:
        """Write what the last few steps gave and curves.png, and end TensorBoard's file."""
        if self._counts:
            self._flush()
        if self._board is None:
            return
        self._board.close()
        # a finished run that is started again takes no step
        if os.path.exists(os.path.join(self.folder, "metrics.jsonl")):
            from training.curves import plot_curves

            name = os.path.basename(self.folder)
            plot_curves({name: self.folder}, os.path.join(self.folder, "curves.png"))
