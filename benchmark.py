"""Measure how fast the parts are on this machine. Figures taken so are in BENCHMARKS.md.

    python benchmark.py data
    python benchmark.py data --data_root lrs2_preprocessed --filelists filelists --workers 8
    python benchmark.py inference --seconds 10
    python benchmark.py inference --face me.mp4 --audio speech.mp3 --checkpoint_path wav2lip.pth
    python benchmark.py inference --memory_minutes 0.5 10
    python benchmark.py inference --batches 1 8 32 128
    python benchmark.py train --batches 16 64
    python benchmark.py released --repo ../Wav2Lip

Ratios carry over to other machines, figures do not.
"""

from __future__ import annotations

import argparse

from benchmarks import data, inference, released, train
from benchmarks.common import check_shared
from errors import run_cli

COMMANDS = {
    "data": (data, "training samples a second, and memory per worker"),
    "inference": (inference, "each stage and the whole, by back end; memory; the network alone"),
    "train": (train, "steps of the expert and of the generator"),
    "released": (released, "whole runs of a released checkout and of ours"),
}


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure how fast the parts are on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, text) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=text))
    return parser


def main(args: argparse.Namespace) -> None:
    check_shared(args)
    COMMANDS[args.command][0].measure(args)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
