"""How well a lip-sync expert tells right from wrong sound on clips that it has not met, and how
much of that it owes to its window: the paper's ablation of temporal context.

    python -m evaluation.expert --expert checkpoints/expert/best.pth \\
        --data_root lrs2_preprocessed --split test

A row for each of --frames: so many of its five frames the expert sees, the middle ones; the others
repeat the nearest of those. The sound is 0.2 s in each row. (The paper trains an expert for each
number of frames; this shows what one expert draws from context.) The columns are a validation's:
training/expert_validation.py.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from errors import InputError, require_file, run_cli
from experts.offset import REPORTED_SHIFTS
from lipsync.options import positive

if TYPE_CHECKING:
    import torch

COLUMNS = ("accuracy", "auc", "loss", *(f"accuracy_shift_{n}" for n in REPORTED_SHIFTS))


def shown(window: torch.Tensor, frames: int) -> torch.Tensor:
    """A window (B, T, ...) of which only the middle `frames` are seen."""
    import torch

    first = (window.shape[1] - frames) // 2
    return window[:, torch.arange(window.shape[1]).clamp(first, first + frames - 1)]


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A lip-sync expert's accuracy by its context.")
    add = parser.add_argument
    add("--expert", required=True, metavar="FILE", help="a SyncNet_color")
    add("--data_root", required=True, help="root of the preprocessed clips")
    add("--filelists", default="filelists", help="folder of the split's list")
    add("--split", default="test", help="default %(default)s")
    add("--frames", nargs="+", type=int, choices=range(1, 6), default=[5, 3, 1], metavar="N",
        help="of five; default 5 3 1")  # fmt: skip
    add("--windows", type=positive, help="that are judged; default: one of every clip")
    add("--batch_size", type=positive, default=64)
    add("--num_workers", type=int, default=2)
    add("--device", default="auto")
    return parser


def main(args: argparse.Namespace) -> None:
    from experts.offset import load_expert
    from hparams import HParams
    from training.expert_validation import ExpertValidationDataset, pair_cosines, summarise
    from training.setup import validation_batches

    expert = load_expert(require_file(args.expert, "--expert"), args.device)
    if expert.published:
        raise InputError(f"{args.expert} is a {expert.kind}: scores_LSE.py is for that")
    windows = args.windows or 0
    hp = HParams(img_size=expert.size, eval_windows=windows, num_workers=args.num_workers)
    dataset = ExpertValidationDataset(args.data_root, args.split, hp, args.filelists)
    print(
        f"{args.expert}: {windows or len(dataset)} windows of {len(dataset)} clips ({args.split})"
    )
    print("frames", *(name.replace("accuracy_shift_", "acc_") for name in COLUMNS), sep="\t")
    for frames in args.frames:
        batches = validation_batches(dataset, args.batch_size, hp)
        seen = (batch | {"window": shown(batch["window"], frames)} for batch in batches)
        scores = summarise([pair_cosines(expert.model, seen, expert.device)])
        print(frames, *(f"{scores.get(name, float('nan')):.3f}" for name in COLUMNS), sep="\t")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
