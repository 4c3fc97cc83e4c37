"""The loop that the three training scripts share: step, log, validate, save, stop when asked to."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from datasets import WindowDataset
from errors import InputError
from hparams import HParams
from training import distributed
from training.log import RunLog
from training.precision import Ema, NonFiniteLoss, Precision
from training.setup import set_learning_rates, to_device, train_batches
from training.state import Checkpoints

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """What a training script has set up when its loop begins."""

    hp: HParams
    device: torch.device
    train_set: WindowDataset
    val_set: WindowDataset
    model: nn.Module  # the network whose weights are saved
    precision: Precision
    log: RunLog
    checkpoints: Checkpoints
    rates: dict  # optimizer -> its learning rate
    state: dict  # see Checkpoints.resume
    ema: Ema | None = None

    @property
    def judged(self) -> nn.Module:
        """What is validated: the moving average where there is one."""
        return self.ema.model if self.ema else self.model


def open_run(
    args: argparse.Namespace, hp: HParams, device: torch.device, sets: tuple, parts: dict
) -> Run:
    """A run, resumed where there is something to resume. sets: for training and validation.
    parts: as of Checkpoints.
    """
    log, precision, model = RunLog(args, hp), Precision(hp, device), parts[""][0]
    ema = Ema(model, hp.ema) if hp.ema else None
    checkpoints = Checkpoints(args.checkpoint_dir, hp, parts, precision, ema)
    # before the resume, which brings those of another step
    rates = {optimizer: optimizer.param_groups[0]["lr"] for _, optimizer in parts.values()}
    state = checkpoints.resume({part: getattr(args, f"{part}checkpoint_path") for part in parts})
    return Run(hp, device, *sets, model, precision, log, checkpoints, rates, state, ema)


def train_loop(
    run: Run, step_fn: Callable[[dict], dict], validate_fn: Callable[[int], float],
    batch_size: int, eval_interval: int, checkpoint_interval: int,
) -> None:  # fmt: skip
    """Step, log, validate, save, until hp.nsteps, hp.nepochs or a signal to stop, which is answered
    by a checkpoint after the step.

    step_fn(batch) makes one update (or a part of one, see Precision) and gives scalars;
    validate_fn(step) writes the log and gives a score of which less is better. batch_size: samples
    that one process loads at a time.
    """
    hp, state = run.hp, run.state
    run.log.begin()
    _introduce(run)
    per_step = batch_size * hp.accumulation * distributed.world_size()
    if state["samples"] < 0:  # a released checkpoint does not say
        state["samples"] = state["global_step"] * per_step
    saved = state["global_step"]
    loading = contextlib.closing(train_batches(run.train_set, batch_size, hp, state["samples"]))
    quiet = not (sys.stderr.isatty() and distributed.is_main())
    bar = tqdm(initial=saved, total=hp.nsteps or None, unit="step", disable=quiet)
    with stop_signals() as asked, bar, loading as batches:
        while not finished(state, hp):
            step = state["global_step"] + 1
            set_learning_rates(state["global_step"], run.rates, hp)
            scalars = _take_step(run, step, step_fn, batches)
            state["global_step"], state["samples"] = step, state["samples"] + per_step
            state["global_epoch"] = state["samples"] // len(run.train_set)
            means = run.log.train(step, scalars)
            bar.update()
            if means:
                bar.set_postfix({name: f"{value:.4f}" for name, value in list(means.items())[:2]})
            last = finished(state, hp)
            if step % eval_interval == 0 or last:
                run.checkpoints.save_best(state, validate_fn(step))
            if step % checkpoint_interval == 0 or last:
                run.checkpoints.save(state)
                saved = step
            if distributed.any_process(bool(asked)):
                logger.warning("step %d: asked to stop; the same command goes on from here", step)
                break
    if saved != state["global_step"]:
        run.checkpoints.save(state)
    run.log.close()


@contextlib.contextmanager
def stop_signals() -> Iterator[list]:
    """While in use, SIGTERM and Ctrl-C only fill the list; a second one ends the run at once."""
    asked: list = []

    def note(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finished(state: dict, hp: HParams) -> bool:
    """Whether hp.nsteps or hp.nepochs has been reached."""
    return state["global_epoch"] >= hp.nepochs or 0 < hp.nsteps <= state["global_step"]


def _introduce(run: Run) -> None:
    """Says what the run is made of and where it begins, long before its first numbers."""
    for data in (run.train_set, run.val_set):
        left_out = sum(data.unusable.values())
        logger.info("%s: %d clips, %d left out", data.split, len(data), left_out)
    size = sum(parameter.numel() for parameter in run.model.parameters())
    step, name = run.state["global_step"], type(run.model).__name__
    processes = f", {distributed.world_size()} processes" * (distributed.world_size() > 1)
    logger.info("%s of %s parameters on %s%s", name, f"{size:,}", run.device, processes)
    logger.info("goes on from step %d" if step else "begins at step %d", step)


def _take_step(run: Run, step: int, step_fn: Callable, batches: Iterator[dict]) -> dict:
    """One update, from as many batches as hp.accumulation says; gives the last one's scalars and
    `wait`, the share of the time in which there was no data.
    """
    start, waited = time.monotonic(), 0.0
    for number in range(run.hp.accumulation):
        if number:
            run.log.add(scalars)  # noqa: F821  (of the batch before)
        run.precision.last = number == run.hp.accumulation - 1
        asked = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - asked
        batch = to_device(batch, run.device)
        try:
            scalars = step_fn(batch)
        except NonFiniteLoss as error:
            clips = sorted({run.train_set.clips[int(index)].folder for index in batch["clip"]})
            raise InputError(
                f"step {step}: {error}: training stopped. The newest checkpoint in "
                f"{run.checkpoints.folder} is from before it. The batch was made of "
                f"{', '.join(clips)}. If it comes back, lower the learning rate, or train without "
                "--amp float16"
            ) from error
    run.precision.end_step()
    if run.ema is not None:
        run.ema.update(run.model, step)
    return {**scalars, "wait": torch.tensor(waited / (time.monotonic() - start))}
