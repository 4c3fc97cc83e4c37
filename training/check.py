"""What `--check` of a training script does: whether a run of days can learn, and its hours.

It overfits one small batch, asks the generator's expert about the validation windows, and times
steps with loading. InputError (exit code 2) where the run is bound to fail. Nothing is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.utils.data import default_collate
from tqdm import tqdm

from datasets import SyncNetDataset
from errors import InputError
from hparams import HParams
from models.checkpoint import load_model
from models.device import memory_bytes, select_device
from training import expert_validation as validation
from training import setup, steps
from training.lip_check import LipCheck
from training.plateau import LRS2_LEAVES
from training.precision import NonFiniteLoss, Precision

OVERFIT_STEPS = 300
# Samples, the loss they must come down to, and the least learning rate, as fine-tuning's are too
# low for so few steps. Small and full models, released rate: the expert is there after 10 to 30
# steps, the generator (at 1e-3) after 30 to 80.
EXPERT_SAMPLES, EXPERT_BOUND, EXPERT_RATE = 8, 0.1, 1e-4
CONTRASTIVE_BOUND = 0.2  # it is a sum of two losses
GENERATOR_SAMPLES, GENERATOR_BOUND, GENERATOR_RATE = 2, 0.05, 1e-3
EXPERT_WINDOWS = 256  # of the validation split, at least: an accuracy is known to 3 percent
LEAST_ACCURACY = 0.75  # of an expert that is to teach; a trained one has 0.85 to 0.95
SHIFT_AUC = 0.75  # from here on an expert's word about the clips' offset counts
WARM_UP = 3  # steps before the clock starts: workers start, kernels are chosen
TIMED_STEPS, TIMED_SECONDS = 50, 60.0
MOST_WAIT = 0.05  # share of the time without data from which on loading is worth work
EXPERT_STEPS = 700_000  # in all, on LRS2, as released
GENERATOR_STEPS = 100_000


def check_expert(args: argparse.Namespace, hp: HParams) -> dict[str, float]:
    """Check a run of color_syncnet_train.py. Prints what it finds and returns the numbers."""
    device, precision = _begin(args, hp)
    data, model, clips = setup.prepare_expert(args, hp, device)
    SyncNetDataset(args.data_root, "val", hp, args.filelists)  # that the first validation finds it
    optimizer = setup.create_adam(model, max(hp.syncnet_lr, EXPERT_RATE), device)

    def step(batch: dict, called) -> dict:
        return steps.expert_step(batch, called, optimizer, hp, precision)

    contrastive = hp.syncnet_loss == "contrastive"
    bound = CONTRASTIVE_BOUND if contrastive else EXPERT_BOUND
    samples = max(2, EXPERT_SAMPLES // (hp.contrastive_windows if contrastive else 1))
    report = _try(step, model, (data, samples, clips), "loss", bound, precision, hp)
    begin, end = (_hours(leaves, report) for leaves in LRS2_LEAVES)
    print(
        f"hours: the released recipe leaves ln 2 after {LRS2_LEAVES[0]:,} to {LRS2_LEAVES[1]:,} "
        f"steps on LRS2 (batch 64; here {hp.syncnet_batch_size}): {begin:.1f} to {end:.1f} h; it "
        f"takes about {EXPERT_STEPS:,} in all: {_hours(EXPERT_STEPS, report):.1f} h"
    )
    return report


def check_generator(
    args: argparse.Namespace, hp: HParams, quality: bool = False
) -> dict[str, float]:
    """Check a run of wav2lip_train.py, or with `quality` of hq_wav2lip_train.py, its expert
    included. Prints what it finds and returns the numbers.
    """
    device, precision = _begin(args, hp)
    data, val_set, expert, model = setup.prepare_generator(args, hp, device)
    report = check_accuracy(expert, args, hp, device)
    if args.checkpoint_path:
        report |= check_lips(args.checkpoint_path, expert, val_set, hp, device)
    mask_loss, rate = steps.create_mask_loss(hp), max(hp.initial_learning_rate, GENERATOR_RATE)
    # the weights as after the gate, when a step costs most
    if quality:
        hp_raised = dataclasses.replace(hp, initial_learning_rate=rate)
        disc = setup.create_disc(hp, device)
        optimizers = setup.create_optimizers(model, disc, hp_raised, device)
        rest = disc, expert, *optimizers, hp.hq_syncnet_wt_gated, hp.disc_wt, precision, disc
    else:
        rest = expert, setup.create_adam(model, rate, device), hp.syncnet_wt_gated, precision

    def step(batch: dict, called) -> dict:
        update = steps.quality_step if quality else steps.generator_step
        return update(batch, called, *rest, mask_loss)[0]

    sizes = data, GENERATOR_SAMPLES, hp.batch_size
    report |= _try(step, model, sizes, "l1", GENERATOR_BOUND, precision, hp)
    hours = _hours(GENERATOR_STEPS, report)
    print(f"hours: {hours:.1f} h for every {GENERATOR_STEPS:,} steps of batch {hp.batch_size}")
    return report


def _begin(args: argparse.Namespace, hp: HParams) -> tuple:
    """The device and the Precision of the run."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError("--check runs in one process: start it without torchrun")
    device = select_device(args.device)
    return device, Precision(dataclasses.replace(hp, accumulation=1), device)


def _try(
    step: Callable, model, sizes: tuple, loss_name: str, bound: float, precision: Precision,
    hp: HParams,
) -> dict[str, float]:  # fmt: skip
    """Overfit, then time step(batch, called). sizes: data, samples to learn by heart, of a step."""

    def whole_step(batch: dict, called=model) -> dict:
        scalars = step(batch, called)
        precision.end_step()
        return scalars

    (data, few, batch_size), device = sizes, precision.device
    batch = small_batch(data, few, device)
    count, windows = overfit(whole_step, batch, loss_name, bound, OVERFIT_STEPS), len(batch["mel"])
    print(f"overfits one batch: yes, {windows} windows to {loss_name} {bound} in {count} steps")
    batches = setup.train_batches(data, batch_size, hp, 0)
    called = partial(whole_step, called=setup.speed_up(model, device, hp))
    seconds, wait = time_steps(called, batches, device, TIMED_STEPS, TIMED_SECONDS)
    batches.close()
    seconds *= hp.accumulation
    print(f"step: {seconds:.3f} s with loading, {wait:.1%} of it waiting for data")
    if wait > MOST_WAIT:
        print(
            f"more than {MOST_WAIT:.0%}: loading holds it up. More workers help: "
            f"--hparams num_workers=... (now {hp.num_workers})"
        )
    memory = peak_memory(device)
    where = "on the GPU" if device.type == "cuda" else "in this process"
    print(f"memory: {memory:.2f} GiB at most {where}")
    return {"overfit_steps": count, "step_seconds": seconds, "wait": wait, "memory_gib": memory}


def small_batch(dataset, samples: int, device) -> dict[str, torch.Tensor]:
    """A fixed batch of `samples` samples, half of them in sync where they have a label."""
    chosen: dict[float | None, list] = {}
    for number in range(16 * samples):
        sample = dataset[divmod(number, len(dataset))]
        label = float(sample["y"]) if "y" in sample else None
        kept = chosen.setdefault(label, [])
        if len(kept) < (samples if label is None else samples // 2):
            kept.append(sample)
        if sum(map(len, chosen.values())) == samples:
            break
    return setup.to_device(default_collate(sum(chosen.values(), [])), device)


def overfit(
    step_fn: Callable[[dict], dict], batch: dict, loss_name: str, bound: float, max_steps: int
) -> int:
    """Steps until the loss of the fixed batch is at most `bound`; InputError if it never is.

    step_fn(batch) makes one update and returns scalars, among them `loss_name`.
    """
    first = last = None
    try:
        for step in tqdm(range(1, max_steps + 1), "overfit", disable=not sys.stderr.isatty()):
            last = step_fn(batch)[loss_name].item()
            first = last if first is None else first
            if last <= bound:
                return step
    except NonFiniteLoss as error:
        raise InputError(
            f"check failed: while overfitting one batch, {error}: lower the learning rate, or "
            "train without --amp float16"
        ) from error
    raise InputError(
        f"check failed: one batch of {len(batch['mel'])} windows cannot be learned by heart: its "
        f"{loss_name} went from {first:.3f} to {last:.3f} in {max_steps} steps, not to {bound}. A "
        "run cannot learn either. Is the learning rate far too high? Are the pictures still or "
        "black, or the sound silent (preprocess.py --doctor)?"
    )


def check_accuracy(expert, args: argparse.Namespace, hp: HParams, device) -> dict[str, float]:
    """A frozen expert's scores on the validation windows of this data; InputError where it knows
    too little to teach a generator.
    """
    dataset = validation.ExpertValidationDataset(args.data_root, "val", hp, args.filelists)
    windows = max(EXPERT_WINDOWS, hp.eval_windows, len(dataset))
    batches = setup.validation_batches(dataset, 64, dataclasses.replace(hp, eval_windows=windows))
    found = validation.pair_cosines(expert, batches, device)
    scores = validation.summarise([found])
    said = (
        f"the expert tells right from wrong sound in {scores['accuracy']:.0%} of {windows} "
        f"validation windows (loss {scores['loss']:.2f}, AUC {scores.get('auc', 0.5):.2f})"
    )
    if not scores["accuracy"] >= LEAST_ACCURACY:
        raise InputError(
            f"check failed: {said}, below {LEAST_ACCURACY:.0%}: a generator learns no sync from "
            f"it. {_remedy(*validation.best_shift(found), args)}"
        )
    print(said)
    return {f"expert_{name}": value for name, value in scores.items()}


def check_lips(path: str, expert, dataset, hp: HParams, device) -> dict[str, float]:
    """What the generator that a run begins with makes of the validation clips: l1, sync, and where
    there are landmarks follows, leak and amplitude. Says in plain words when only sync is good.
    """
    model = load_model(path, hp.model).to(device)
    batches = setup.validation_batches(dataset, hp.batch_size, hp)
    scores, _ = steps.validate_generator(model, expert, batches, device, Precision())
    scores |= LipCheck(dataset, device).scores(model, scores["sync"])
    print(f"{path}: " + ", ".join(f"{name} {value:.2f}" for name, value in scores.items()))
    return scores


def _remedy(shift: int, auc: float, args: argparse.Namespace) -> str:
    """What to do about an expert that knows little, by the offset at which it knows most."""
    data = shlex.join([args.data_root, "--filelists", args.filelists])
    expert, clips = shlex.quote(args.syncnet_checkpoint_path), f"--preprocessed_root {data}"
    if shift and auc >= SHIFT_AUC:
        side = "late" if shift > 0 else "early"
        return (
            f"It knows the sound that is {abs(shift)} frames {side} (AUC {auc:.2f}), so the clips "
            f"are out of sync: python preprocess.py {clips} --correct_sync --expert {expert}"
        )
    return (
        "Train it longer, or on this data: python color_syncnet_train.py --data_root "
        f"{data} --checkpoint_path {expert} --checkpoint_dir checkpoints/expert; are the clips "
        f"sound? python preprocess.py {clips} --doctor --expert {expert}"
    )


def time_steps(
    step_fn: Callable[[dict], object], batches: Iterator[dict], device: torch.device, steps: int,
    seconds: float,
) -> tuple[float, float]:  # fmt: skip
    """Mean seconds of a step with loading, and the share of them in which there was no data: of
    `steps` steps, or of fewer in `seconds`, after WARM_UP untimed ones.
    """

    def step() -> float:
        asked = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - asked
        step_fn(setup.to_device(batch, device))
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # or the step would end while we wait for the next batch
        return waited

    for _ in range(WARM_UP):
        step()
    start, waits = time.perf_counter(), []
    while not waits or (len(waits) < steps and time.perf_counter() - start < seconds):
        waits.append(step())
    took = time.perf_counter() - start
    return took / len(waits), sum(waits) / took


def peak_memory(device: torch.device) -> float:
    """GiB that training took at most: of the GPU, where it is on one, else this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return memory_bytes()[1] / 2**30


def _hours(steps: int, report: dict[str, float]) -> float:
    return steps * report["step_seconds"] / 3600
