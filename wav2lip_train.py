"""Train the generator with a frozen lip-sync expert (paper section 3.3).

    python wav2lip_train.py --data_root lrs2_preprocessed --checkpoint_dir checkpoints/wav2lip \\
        --syncnet_checkpoint_path checkpoints/expert/checkpoint_step000700000.pth

Run the same command again to continue. The sync weight stays 0 until the validation sync loss is
below 0.75; aim at 0.2.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from errors import run_cli
from hparams import HParams, add_training_arguments, load_hparams

# torch and what needs it are imported inside the functions, so that --help answers at once


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the Wav2Lip generator.")
    add_training_arguments(parser)
    parser.add_argument(
        "--syncnet_checkpoint_path", required=True, help="the trained lip-sync expert"
    )
    return parser


def train_step(batch: dict, model, expert, optimizer, syncnet_wt: float) -> tuple[dict, object]:
    """One update. Returns scalars l1, sync, total, grad_norm and the frames (B, 3, T, H, W)."""
    from torch.nn.functional import l1_loss

    from models.syncnet import generator_sync_loss
    from training import grad_norm

    model.train()
    optimizer.zero_grad()
    generated = model(batch["indiv_mels"], batch["x"])
    sync = generator_sync_loss(expert, batch["mel"], generated, syncnet_wt)
    l1 = l1_loss(generated, batch["y"])
    total = syncnet_wt * sync + (1 - syncnet_wt) * l1
    total.backward()
    norm = grad_norm(model)
    optimizer.step()
    return {"l1": l1, "sync": sync, "total": total, "grad_norm": norm}, generated


def validate(model, expert, batches, device) -> tuple[dict[str, float], dict, object]:
    """Mean l1 and sync over the fixed validation windows, and the first batch with its frames for
    the sample grid.
    """
    import torch
    from torch.nn.functional import l1_loss

    from models.syncnet import get_sync_loss
    from training import to_device

    model.eval()
    l1 = sync = count = 0.0
    first = None
    with torch.no_grad():
        for batch in batches:
            batch = to_device(batch, device)
            generated = model(batch["indiv_mels"], batch["x"])
            first = first or (batch, generated)
            size = len(generated)
            l1 += float(l1_loss(generated, batch["y"])) * size
            sync += float(get_sync_loss(expert, batch["mel"], generated)) * size
            count += size
    return {"l1": l1 / count, "sync": sync / count}, *first


@dataclass
class GeneratorRun:
    """What both generator trainings begin with: the data, the frozen expert, a fresh generator."""

    hp: HParams
    device: object
    expert: object
    model: object
    train_set: object
    val_set: object


def prepare(args: argparse.Namespace) -> GeneratorRun:
    """Seed everything and build a GeneratorRun; InputError where data or expert are unusable."""
    hp = load_hparams(args.config, args.hparams)
    from checkpoint import load_model
    from datasets import Wav2LipDataset
    from models import create_model
    from training import freeze, place, seed_everything, select_device

    device = select_device(args.device)
    seed_everything(hp.seed)
    expert = load_model(args.syncnet_checkpoint_path, "SyncNet_color").to(device)
    return GeneratorRun(
        hp=hp,
        device=device,
        expert=freeze(expert, hp.expert_batch_stats),
        model=place(create_model("Wav2Lip", width=hp.width), device, hp),
        train_set=Wav2LipDataset(args.data_root, "train", hp, args.filelists),
        val_set=Wav2LipDataset(args.data_root, "val", hp, args.filelists),
    )


def main(args: argparse.Namespace) -> None:
    run = prepare(args)
    import torch

    from run_log import RunLog
    from training import Checkpoints, set_learning_rates

    hp, model, expert = run.hp, run.model, run.expert
    optimizer = torch.optim.Adam(model.parameters(), lr=hp.initial_learning_rate)
    log = RunLog(args, hp)
    checkpoints = Checkpoints(args.checkpoint_dir, hp, {"": (model, optimizer)})
    state = checkpoints.resume({"": args.checkpoint_path})

    def step(batch: dict) -> tuple[dict, object]:
        set_learning_rates(state["global_step"], {optimizer: hp.initial_learning_rate}, hp)
        return train_step(batch, model, expert, optimizer, state["syncnet_wt"])

    def evaluate(batches) -> tuple[dict[str, float], dict, object]:
        return validate(model, expert, batches, run.device)

    train(run, step, evaluate, hp.syncnet_wt_gated, checkpoints, log, state)
    log.close()


def train(
    run: GeneratorRun, step_fn, validate_fn, gated_weight: float, checkpoints, log, state: dict
) -> None:
    """The loop of both generators: step, log, validate, open the gate, save, until hp.nsteps or
    hp.nepochs.

    step_fn(batch) -> (scalars, frames); validate_fn(batches) -> (scalars, batch, frames).
    """
    from training import finished, logger, progress, to_device, train_batches, validation_batches

    hp, device = run.hp, run.device
    bar = progress(state["global_step"], hp)
    batches = train_batches(run.train_set, hp.batch_size, hp, state["global_step"])
    while not finished(state["global_step"], state["global_epoch"], hp):
        scalars, _ = step_fn(to_device(next(batches), device))
        state["global_step"] += 1
        step = state["global_step"]
        state["global_epoch"] = step * hp.batch_size // len(run.train_set)
        means = log.train(step, scalars)
        bar.update()
        if means:
            bar.set_postfix({name: f"{means[name]:.4f}" for name in ("l1", "sync")})
        last = finished(step, state["global_epoch"], hp)
        if step % hp.eval_interval == 0 or last:
            scores, batch, frames = validate_fn(validation_batches(run.val_set, hp.batch_size, hp))
            log.write(step, "val", {**scores, "syncnet_wt": state["syncnet_wt"]})
            log.grid(step, batch, frames)
            if scores["sync"] < hp.sync_gate and state["syncnet_wt"] < gated_weight:
                # paper: only a generator that draws faces can be taught to sync
                state["syncnet_wt"] = gated_weight
                logger.info("step %d: the gate is open, sync weight %g", step, gated_weight)
        if step % hp.checkpoint_interval == 0 or last:
            checkpoints.save(state)
    bar.close()


if __name__ == "__main__":
    run_cli(main, get_args_parser())
