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

from benchmarks.data import add_data_arguments, data_benchmark
from benchmarks.inference import add_inference_arguments, inference_benchmark
from benchmarks.released import add_released_arguments, released_benchmark
from benchmarks.train import add_train_arguments, train_benchmark
from errors import run_cli


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure how fast the parts are on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="training samples a second, and memory per worker")
    add_data_arguments(data)
    data.set_defaults(run=data_benchmark)
    inference = commands.add_parser(
        "inference", help="each stage and the whole, by back end; memory; the network alone"
    )
    add_inference_arguments(inference)
    inference.set_defaults(run=inference_benchmark)
    train = commands.add_parser("train", help="steps of the expert and of the generator")
    add_train_arguments(train)
    train.set_defaults(run=train_benchmark)
    released = commands.add_parser("released", help="whole runs of a released checkout and of ours")
    add_released_arguments(released)
    released.set_defaults(run=released_benchmark)
    return parser


def main(args: argparse.Namespace) -> None:
    args.run(args)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
