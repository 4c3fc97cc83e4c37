"""Train the lip-sync expert (paper section 3.1).

    python color_syncnet_train.py --data_root lrs2_preprocessed --checkpoint_dir checkpoints/expert

Run the same command again to continue. The released advice: go on until the validation loss is
about 0.25; on LRS2 the loss leaves 0.69 (= ln 2, a coin toss) only after 150 to 200 thousand steps
at batch 64.
"""

from __future__ import annotations

import argparse

from errors import run_cli
from hparams import HParams, add_training_arguments, load_hparams

# torch and what needs it are imported inside the functions, so that --help answers at once


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the lip-sync expert.")
    add_training_arguments(parser)
    return parser


def train_step(batch: dict, model, optimizer) -> dict:
    """One update. Returns the scalars loss, accuracy and grad_norm."""
    from models.syncnet import cosine_loss, sync_accuracy
    from training import grad_norm

    model.train()
    optimizer.zero_grad()
    audio, face = model(batch["mel"], batch["x"])  # (B, 512) each
    loss = cosine_loss(audio, face, batch["y"])
    loss.backward()
    norm = grad_norm(model)
    optimizer.step()
    return {"loss": loss, "accuracy": sync_accuracy(audio, face, batch["y"]), "grad_norm": norm}


def validate(model, batches, device) -> dict[str, float]:
    """Mean loss and accuracy over the fixed validation windows, running statistics in use."""
    import torch

    from models.syncnet import cosine_loss, sync_accuracy
    from training import to_device

    model.eval()
    loss = accuracy = count = 0.0
    with torch.no_grad():
        for batch in batches:
            batch = to_device(batch, device)
            audio, face = model(batch["mel"], batch["x"])
            size = len(audio)
            loss += float(cosine_loss(audio, face, batch["y"])) * size
            accuracy += float(sync_accuracy(audio, face, batch["y"])) * size
            count += size
    return {"loss": loss / count, "accuracy": accuracy / count}


def main(args: argparse.Namespace) -> None:
    hp = load_hparams(args.config, args.hparams)
    import torch

    from datasets import SyncNetDataset
    from models import create_model
    from run_log import RunLog
    from training import Checkpoints, place, seed_everything, select_device

    device = select_device(args.device)
    seed_everything(hp.seed)
    train_set = SyncNetDataset(args.data_root, "train", hp, args.filelists)
    val_set = SyncNetDataset(args.data_root, "val", hp, args.filelists)
    model = place(create_model("SyncNet_color", width=hp.width), device, hp)
    optimizer = torch.optim.Adam(model.parameters(), lr=hp.syncnet_lr)
    log = RunLog(args, hp)
    checkpoints = Checkpoints(args.checkpoint_dir, hp, {"": (model, optimizer)})
    state = checkpoints.resume({"": args.checkpoint_path})
    train(hp, device, model, optimizer, train_set, val_set, checkpoints, log, state)
    log.close()


def train(
    hp: HParams, device, model, optimizer, train_set, val_set, checkpoints, log, state: dict
) -> None:
    """The loop: step, log, validate, save, until hp.nsteps or hp.nepochs."""
    from training import (
        finished,
        progress,
        set_learning_rates,
        to_device,
        train_batches,
        validation_batches,
    )

    batch_size = hp.syncnet_batch_size
    bar = progress(state["global_step"], hp)
    batches = train_batches(train_set, batch_size, hp, state["global_step"])
    while not finished(state["global_step"], state["global_epoch"], hp):
        set_learning_rates(state["global_step"], {optimizer: hp.syncnet_lr}, hp)
        scalars = train_step(to_device(next(batches), device), model, optimizer)
        state["global_step"] += 1
        step = state["global_step"]
        state["global_epoch"] = step * batch_size // len(train_set)
        means = log.train(step, scalars)
        bar.update()
        if means:
            bar.set_postfix(loss=f"{means['loss']:.4f}", accuracy=f"{means['accuracy']:.3f}")
        last = finished(step, state["global_epoch"], hp)
        if step % hp.syncnet_eval_interval == 0 or last:
            log.write(
                step, "val", validate(model, validation_batches(val_set, batch_size, hp), device)
            )
        if step % hp.syncnet_checkpoint_interval == 0 or last:
            checkpoints.save(state)
    bar.close()


if __name__ == "__main__":
    run_cli(main, get_args_parser())
