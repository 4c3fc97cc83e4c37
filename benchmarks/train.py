"""How fast the trainings step, loading included: `python benchmark.py train`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile

from benchmarks.common import (
    OutOfMemory,
    add_shared,
    apart,
    circumstances,
    random_checkpoint,
    report,
)
from benchmarks.data import CLIPS, write_clips
from hparams import HParams, load_hparams
from lipsync.options import positive

TRAININGS = ("expert", "generator")
SETTINGS = {  # what a way is made of; float32 alone is the paper's run
    "float32": {},
    "bfloat16": {"amp": "bfloat16"},
    "float16": {"amp": "float16"},
    "channels_last": {"channels_last": True},
    "compile": {"compile": True},
}
WAYS = ("float32", "channels_last", "bfloat16", "bfloat16+channels_last")
COLUMNS = {
    "training, way": "{training}, {way}", "batch": "batch", "samples/s": "samples_per_second",
    "x float32": "speedup", "waiting": "{wait:.1%}", "peak GiB": "memory_gib",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    add_shared(parser, *CLIPS, "device", "json", span=60.0, of="that the steps may take")
    add = parser.add_argument
    add("--trainings", nargs="+", choices=TRAININGS, default=TRAININGS, help="default: both")
    add("--ways", nargs="+", type=way, default=WAYS,
        help=f"of {', '.join(SETTINGS)}, several joined by +; default: {' '.join(WAYS)}")
    add("--batches", nargs="+", type=positive, default=[16], metavar="SAMPLES", help="default: 16")
    add("--hparams", nargs="+", default=[], metavar="KEY=VALUE", help="what else differs")
    add("--steps", type=positive, default=50, help="of each figure; default %(default)s")
    # fmt: on


def way(text: str) -> str:
    """A combination of SETTINGS, for argparse."""
    if unknown := [part for part in text.split("+") if part not in SETTINGS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(SETTINGS)}")
    return text


def measure(args: argparse.Namespace) -> None:
    """Print samples a second of each training, way and batch, each in a process of its own; one
    that does not fit into memory is left out with a line.
    """
    from tqdm import tqdm

    from models.device import select_device

    hp, device, rows = load_hparams(None, args.hparams), select_device(args.device), []
    hp, facts = dataclasses.replace(hp, num_workers=args.workers), circumstances()
    cases = [(t, w, b) for t in args.trainings for b in args.batches for w in args.ways]
    with tempfile.TemporaryDirectory() as folder:
        write_clips(args, folder)
        args.syncnet_checkpoint_path = random_checkpoint(
            os.path.join(folder, "expert.pth"), "SyncNet_color", hp.width, hp.img_size
        )
        for training, named, batch in tqdm(cases, "cases", disable=None):
            try:
                row = apart(time_case, args, hp, training, named, batch)
            except OutOfMemory as error:
                print(f"left out: {training}, {named}, batch {batch}: {error}", file=sys.stderr)
                continue
            rows.append({"training": training, "way": named, "batch": batch} | row)
    base = {(r["training"], r["batch"]): r for r in rows if r["way"] == "float32"}
    for row in rows:
        first = base.get((row["training"], row["batch"]))
        row["speedup"] = first["step_seconds"] / row["step_seconds"] if first else "-"
    report(
        args, f"training steps on {device}, {args.workers} workers", facts, [(rows, COLUMNS)],
        "Means of whole steps, loading included. waiting: the share of them in which there was no "
        "data; peak: of the GPU's memory, on a CPU of the process, packages and data included.",
        train=rows,
    )  # fmt: skip


def time_case(args: argparse.Namespace, hp: HParams, training: str, named: str, batch: int) -> dict:
    """Seconds of a step, samples a second, share of waiting and GiB of one case, as its script
    makes the step; the generator's as after the gate, when the expert teaches.
    """
    import torch

    from models.device import select_device
    from training import setup
    from training.check import peak_memory, time_steps
    from training.precision import Precision
    from training.steps import create_mask_loss, expert_step, generator_step

    for part in named.split("+"):
        hp = dataclasses.replace(hp, **SETTINGS[part])
    hp = dataclasses.replace(hp, syncnet_batch_size=batch, batch_size=batch, accumulation=1)
    device, clips = select_device(args.device), batch
    if training == "expert":
        data, model, clips = setup.prepare_expert(args, hp, device)
    else:
        data, _, expert, model = setup.prepare_generator(args, hp, device)
    precision, mask_loss = Precision(hp, device), create_mask_loss(hp)
    rate = hp.syncnet_lr if training == "expert" else hp.initial_learning_rate
    optimizer = setup.create_adam(model, rate, device)
    called = setup.speed_up(model, device, hp)

    def step(samples: dict) -> None:
        if training == "expert":
            expert_step(samples, called, optimizer, hp, precision)
        else:
            weights = (hp.syncnet_wt_gated, precision, mask_loss, hp.mouth_wt)
            generator_step(samples, called, expert, optimizer, *weights)
        precision.end_step()

    batches = setup.train_batches(data, clips, hp, 0)
    try:
        seconds, wait = time_steps(step, batches, device, args.steps, args.seconds)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory("it does not fit into the GPU's memory") from error
    finally:
        batches.close()
    facts = {"step_seconds": seconds, "samples_per_second": batch / seconds, "wait": wait}
    return facts | {"memory_gib": peak_memory(device)}
