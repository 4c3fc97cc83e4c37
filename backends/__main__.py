"""The generator for other engines, written to a file.

    python -m backends export --checkpoint_path checkpoints/wav2lip.pth --out wav2lip.onnx

The file is checked against PyTorch (onnx.py).
"""

from __future__ import annotations

import argparse
import os

from errors import InputError, require_file, run_cli

# torch and ONNX are imported inside the functions, so that --help answers at once


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backends", description="The generator for other engines."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write ONNX, checked against PyTorch")
    export.add_argument("--checkpoint_path", required=True, help="generator weights")
    export.add_argument("--out", required=True, help="file to write, .onnx")
    return parser


def main(args: argparse.Namespace) -> None:
    from backends.onnx import export
    from models.checkpoint import load_generator

    require_file(args.checkpoint_path, "checkpoint")
    if not args.out.endswith(".onnx"):
        raise InputError(f"--out {args.out} does not end in .onnx")
    folder = os.path.dirname(args.out) or "."
    if not os.path.isdir(folder):
        raise InputError(f"--out {args.out}: there is no folder {folder}")
    difference = export(load_generator(args.checkpoint_path), args.out)
    size = os.path.getsize(args.out) / 1e6
    print(f"{args.out}: {size:.1f} MB, within {difference:.1e} of PyTorch")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
