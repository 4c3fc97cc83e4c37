"""Train the generator with the expert and a visual quality discriminator (paper section 3.4).

    python hq_wav2lip_train.py --data_root lrs2_preprocessed \\
        --checkpoint_dir checkpoints/wav2lip_gan \\
        --syncnet_checkpoint_path checkpoints/expert/checkpoint_step000700000.pth

Run the same command again to continue. Discriminator checkpoints lie beside the generator's as
disc_checkpoint_*.pth.
"""

from __future__ import annotations

import argparse

import wav2lip_train
from errors import run_cli
from hparams import HParams

# torch and what needs it are imported inside the functions, so that --help answers at once


def get_args_parser() -> argparse.ArgumentParser:
    parser = wav2lip_train.get_args_parser()
    parser.description = "Train the Wav2Lip generator with the quality discriminator."
    parser.add_argument(
        "--disc_checkpoint_path", help="discriminator to start from while checkpoint_dir holds none"
    )
    return parser


def train_step(
    batch: dict, model, disc, expert, optimizer, disc_optimizer, syncnet_wt: float, disc_wt: float
) -> tuple[dict, object]:
    """One update of both networks. Returns the scalars l1, sync, perceptual, disc_real, disc_fake,
    total, grad_norm and the generated frames (B, 3, T, H, W).
    """
    from torch.nn.functional import l1_loss

    from models.syncnet import generator_sync_loss
    from models.wav2lip import probability_loss
    from training import grad_norm

    model.train()
    disc.train()

    # Generator
    optimizer.zero_grad()
    generated = model(batch["indiv_mels"], batch["x"])
    sync = generator_sync_loss(expert, batch["mel"], generated, syncnet_wt)
    perceptual = disc.perceptual_forward(generated)
    l1 = l1_loss(generated, batch["y"])
    total = syncnet_wt * sync + disc_wt * perceptual + (1 - syncnet_wt - disc_wt) * l1
    total.backward()
    norm = grad_norm(model)
    optimizer.step()

    # Discriminator
    disc_optimizer.zero_grad()
    disc_real = probability_loss(disc(batch["y"]), 1.0)
    disc_real.backward()
    disc_fake = probability_loss(disc(generated.detach()), 0.0)
    disc_fake.backward()
    disc_optimizer.step()
    return {
        "l1": l1,
        "sync": sync,
        "perceptual": perceptual,
        "disc_real": disc_real,
        "disc_fake": disc_fake,
        "total": total,
        "grad_norm": norm,
    }, generated


def validate(model, disc, expert, batches, device) -> tuple[dict[str, float], dict, object]:
    """As wav2lip_train.validate, with the perceptual loss of the first batch's frames."""
    import torch

    disc.eval()
    scores, batch, generated = wav2lip_train.validate(model, expert, batches, device)
    with torch.no_grad():
        scores["perceptual"] = float(disc.perceptual_forward(generated))
    return scores, batch, generated


def main(args: argparse.Namespace) -> None:
    run = wav2lip_train.prepare(args)
    from models import create_model
    from run_log import RunLog
    from training import Checkpoints, place, set_learning_rates

    hp, model, expert = run.hp, run.model, run.expert
    disc = place(create_model("Wav2Lip_disc_qual", width=hp.width), run.device, hp)
    optimizers = create_optimizers(model, disc, hp)
    rates = dict(
        zip(optimizers, (hp.initial_learning_rate, hp.disc_initial_learning_rate), strict=True)
    )
    log = RunLog(args, hp)
    parts = {"": (model, optimizers[0]), "disc_": (disc, optimizers[1])}
    checkpoints = Checkpoints(args.checkpoint_dir, hp, parts)
    state = checkpoints.resume({"": args.checkpoint_path, "disc_": args.disc_checkpoint_path})

    def step(batch: dict) -> tuple[dict, object]:
        set_learning_rates(state["global_step"], rates, hp)
        return train_step(batch, model, disc, expert, *optimizers, state["syncnet_wt"], hp.disc_wt)

    def evaluate(batches) -> tuple[dict[str, float], dict, object]:
        return validate(model, disc, expert, batches, run.device)

    wav2lip_train.train(run, step, evaluate, hp.hq_syncnet_wt_gated, checkpoints, log, state)
    log.close()


def create_optimizers(model, disc, hp: HParams) -> tuple:
    """Adam for both networks, with a first beta of 0.5 as usual for adversarial training."""
    import torch

    betas = (hp.disc_beta1, 0.999)
    return (
        torch.optim.Adam(model.parameters(), lr=hp.initial_learning_rate, betas=betas),
        torch.optim.Adam(disc.parameters(), lr=hp.disc_initial_learning_rate, betas=betas),
    )


if __name__ == "__main__":
    run_cli(main, get_args_parser())
