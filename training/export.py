"""A checkpoint's weights alone, in half precision: a sixth of the file, or less, to be shared.

    python -m training.export --checkpoint_path checkpoints/me/best.pth --out checkpoints/me.pth

Takes the moving average where the file holds one; leaves out the optimizer and all that only a run
that goes on needs. Everything here loads the result, as float32.
"""

from __future__ import annotations

import argparse
import os

from errors import InputError, run_cli

# torch is imported inside the functions, so that --help answers at once

KEPT = ("global_step", "hparams", "model")


def exported(checkpoint: dict) -> dict:
    """What is written of a checkpoint, as read_checkpoint gives it."""
    weights = checkpoint.get("ema") or checkpoint["state_dict"]
    kept = {name: checkpoint[name] for name in KEPT if name in checkpoint}
    return {"state_dict": {name: halved(value) for name, value in weights.items()}, **kept}


def halved(value):
    """A tensor in float16; as it is where it holds whole numbers (counters), or what float16 cannot
    (above 65504, which a variance may be).
    """
    import torch

    if not value.is_floating_point():
        return value
    half = value.to(torch.float16)
    return half if torch.equal(half.isfinite(), value.isfinite()) else value


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description="A checkpoint's weights alone, in half precision.",
    )
    parser.add_argument("--checkpoint_path", required=True, help="any checkpoint")
    parser.add_argument("--out", required=True, help="file to write, .pth")
    return parser


def main(args: argparse.Namespace) -> None:
    from models.checkpoint import read_checkpoint, save_checkpoint

    if not args.out.endswith(".pth"):
        raise InputError(f"--out {args.out} does not end in .pth")
    content = exported(read_checkpoint(args.checkpoint_path))
    save_checkpoint(args.out, content)
    before, after = (os.path.getsize(path) / 1e6 for path in (args.checkpoint_path, args.out))
    step = content.get("global_step", "unknown")
    print(f"{args.out}: {after:.1f} MB of {before:.1f} MB, step {step}")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
