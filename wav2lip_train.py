"""Train a generator with a frozen lip-sync expert (paper section 3.3).

    python wav2lip_train.py --data_root lrs2_preprocessed --checkpoint_dir checkpoints/wav2lip \\
        --syncnet_checkpoint_path checkpoints/expert/checkpoint_step000700000.pth

Run the same command again to continue. The sync weight stays 0 until the validation sync loss is
below 0.75; aim at 0.2. The second generator family: `--config configs/crossattn.yaml`.
"""

from __future__ import annotations

import argparse

from errors import run_cli
from hparams import HParams, add_training_arguments, load_training_hparams
from training.steps import create_mask_loss
from training.steps import generator_step as train_step
from training.steps import validate_generator as validate

# torch and what needs it are imported inside the functions, so that --help answers at once


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a generator.")
    add_training_arguments(parser)
    add = parser.add_argument
    add("--syncnet_checkpoint_path", required=True, help="the trained lip-sync expert")
    return parser


def sync_weight(state: dict, hp: HParams) -> float:
    """The sync loss' weight in the coming step: hp.syncnet_wt until the gate has opened, then
    state["syncnet_wt"], reached over hp.syncnet_wt_ramp steps.
    """
    if state["gate_step"] < 0 or not hp.syncnet_wt_ramp:
        return state["syncnet_wt"]
    share = min(1.0, (state["global_step"] + 1 - state["gate_step"]) / hp.syncnet_wt_ramp)
    return hp.syncnet_wt + share * (state["syncnet_wt"] - hp.syncnet_wt)


def main(args: argparse.Namespace) -> None:
    hp = load_training_hparams(args)
    from training.check import check_generator
    from training.setup import launch

    launch(args, hp, check_generator, train)


def train(args: argparse.Namespace, hp: HParams, device) -> None:
    """Data, models, optimizer, resume, loop."""
    from training.loop import open_run
    from training.setup import create_adam, prepare_generator, speed_up

    train_set, val_set, expert, model = prepare_generator(args, hp, device)
    optimizer = create_adam(model, hp.initial_learning_rate, device)
    run = open_run(args, hp, device, (train_set, val_set), {"": (model, optimizer)})
    called, mask_loss = speed_up(model, device, hp), create_mask_loss(hp)

    def step(batch: dict) -> dict:
        networks, weight = (called, expert, optimizer), sync_weight(run.state, hp)
        return train_step(batch, *networks, weight, run.precision, mask_loss, hp.mouth_wt)[0]

    def evaluate(batches) -> tuple[dict[str, float], tuple | None]:
        return validate(run.judged, expert, batches, device, run.precision)

    train_generator(run, step, evaluate, hp.syncnet_wt_gated)


def train_generator(run, step_fn, evaluate, gated_weight: float) -> None:
    """The loop of both generators; validations draw the sample grid and may open the gate.

    run: a training.loop.Run. step_fn(batch) -> scalars; evaluate(batches) -> (scores, first batch
    with its frames).
    """
    from training import distributed
    from training.lip_check import LipCheck
    from training.loop import train_loop
    from training.setup import logger, validation_batches

    hp, state = run.hp, run.state
    # the first process alone: its numbers are the ones written
    lips = LipCheck(run.val_set, run.device) if distributed.is_main() else None

    def validate_fn(step: int) -> float:
        scores, first = evaluate(validation_batches(run.val_set, hp.batch_size, hp))
        if lips:
            scores |= lips.scores(run.judged, scores["sync"])
        gate = {"syncnet_wt": sync_weight(state, hp), "gate": float(state["gate_step"] >= 0)}
        run.log.write(step, "val", {**scores, **gate})
        if first is not None:
            run.log.grid(step, *first)
        if scores["sync"] < hp.sync_gate and state["gate_step"] < 0:
            # paper: only a generator that draws faces can be taught to sync
            state["syncnet_wt"], state["gate_step"] = max(gated_weight, hp.syncnet_wt), step
            logger.info("step %d: the gate is open, sync weight %g", step, state["syncnet_wt"])
        return gated_weight * scores["sync"] + (1 - gated_weight) * scores["l1"]

    train_loop(run, step_fn, validate_fn, hp.batch_size, hp.eval_interval, hp.checkpoint_interval)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
