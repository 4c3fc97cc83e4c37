"""Train the lip-sync expert (paper section 3.1).

    python color_syncnet_train.py --data_root lrs2_preprocessed --checkpoint_dir checkpoints/expert

Run the same command again to continue. The released advice: go on until the validation loss is
about 0.25; on LRS2 the loss leaves 0.69 (= ln 2, a coin toss) only after 150 to 200 thousand steps
at batch 64.
"""

from __future__ import annotations

import argparse

from errors import run_cli
from hparams import HParams, add_training_arguments, load_training_hparams
from training.steps import expert_step as train_step

# torch and what needs it are imported inside the functions, so that --help answers at once


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the lip-sync expert.")
    add_training_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    hp = load_training_hparams(args)
    from training.check import check_expert
    from training.setup import launch

    launch(args, hp, check_expert, train)


def train(args: argparse.Namespace, hp: HParams, device) -> None:
    """Data, model, optimizer, resume, loop."""
    from training import distributed
    from training.expert_validation import ExpertValidationDataset, validate_expert
    from training.loop import open_run, train_loop
    from training.plateau import PlateauWatch
    from training.setup import create_adam, logger, prepare_expert, speed_up

    train_set, model, clips = prepare_expert(args, hp, device)
    val_set = ExpertValidationDataset(args.data_root, "val", hp, args.filelists)
    optimizer = create_adam(model, hp.syncnet_lr, device)
    run = open_run(args, hp, device, (train_set, val_set), {"": (model, optimizer)})
    called = speed_up(model, device, hp)
    watch = PlateauWatch(hp, args)

    def step(batch: dict) -> dict:
        return train_step(batch, called, optimizer, hp, run.precision)

    def evaluate(step: int) -> float:
        scores = validate_expert(run.judged, val_set, hp, hp.syncnet_batch_size, device)
        run.log.write(step, "val", scores)
        message = watch.feed(step, scores)
        if message and distributed.is_main():
            logger.warning(message)
        return scores["loss"]

    train_loop(run, step, evaluate, clips, hp.syncnet_eval_interval, hp.syncnet_checkpoint_interval)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
