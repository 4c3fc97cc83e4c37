"""Train a generator with the expert and a visual quality discriminator (paper section 3.4).

    python hq_wav2lip_train.py --data_root lrs2_preprocessed \\
        --checkpoint_dir checkpoints/wav2lip_gan \\
        --syncnet_checkpoint_path checkpoints/expert/checkpoint_step000700000.pth

Run the same command again to continue. Discriminator checkpoints lie beside the generator's as
disc_checkpoint_*.pth.
"""

from __future__ import annotations

import argparse
from functools import partial

import wav2lip_train
from errors import run_cli
from hparams import HParams, load_training_hparams
from training.steps import create_mask_loss
from training.steps import quality_step as train_step

# torch and what needs it are imported inside the functions, so that --help answers at once


def get_args_parser() -> argparse.ArgumentParser:
    parser = wav2lip_train.get_args_parser()
    parser.description = "Train a generator with the quality discriminator."
    parser.add_argument(
        "--disc_checkpoint_path", help="discriminator to start from while checkpoint_dir holds none"
    )
    return parser


def validate(model, disc, expert, batches, device, precision) -> tuple[dict, tuple | None]:
    """As wav2lip_train.validate, with the perceptual loss of the processes' first batches."""
    import torch

    from training import distributed

    disc.eval()
    scores, first = wav2lip_train.validate(model, expert, batches, device, precision)
    with torch.no_grad():
        perceptual = float(disc.perceptual_forward(first[1])) if first else 0.0
    # a process may have no window
    sums = distributed.sum_of({"perceptual": perceptual, "processes": float(first is not None)})
    scores["perceptual"] = sums["perceptual"] / sums["processes"]
    return scores, first


def main(args: argparse.Namespace) -> None:
    hp = load_training_hparams(args)
    from training.check import check_generator
    from training.setup import launch

    launch(args, hp, partial(check_generator, quality=True), train)


def train(args: argparse.Namespace, hp: HParams, device) -> None:
    """Data, models, optimizers, resume, loop."""
    from training.loop import open_run
    from training.setup import create_disc, create_optimizers, prepare_generator, speed_up

    train_set, val_set, expert, model = prepare_generator(args, hp, device)
    disc = create_disc(hp, device)
    optimizers = create_optimizers(model, disc, hp, device)
    parts = {"": (model, optimizers[0]), "disc_": (disc, optimizers[1])}
    run = open_run(args, hp, device, (train_set, val_set), parts)
    called, called_disc = speed_up(model, device, hp), speed_up(disc, device, hp)
    mask_loss = create_mask_loss(hp)

    def step(batch: dict) -> dict:
        weight = wav2lip_train.sync_weight(run.state, hp)
        return train_step(
            batch, called, disc, expert, *optimizers, weight, hp.disc_wt, run.precision,
            called_disc, mask_loss, hp.mouth_wt,
        )[0]  # fmt: skip

    def evaluate(batches) -> tuple[dict[str, float], tuple | None]:
        return validate(run.judged, disc, expert, batches, device, run.precision)

    wav2lip_train.train_generator(run, step, evaluate, hp.hq_syncnet_wt_gated)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
