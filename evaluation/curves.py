"""Curves of training runs as one picture: a panel for each number, a line for each run.

    python -m evaluation.curves runs/expert runs/expert_contrastive --out curves.png

Every training writes its own as runs/<experiment>/curves.png when it ends.
"""

from __future__ import annotations

import argparse
import os

from errors import run_cli
from training.curves import plot_curves


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Draw the curves of training runs.")
    parser.add_argument("runs", nargs="+", metavar="FOLDER", help="a folder with metrics.jsonl")
    parser.add_argument("--names", nargs="+", help="which numbers; default: all")
    parser.add_argument("--hours", action="store_true", help="against hours of work, not steps")
    parser.add_argument("--out", default="curves.png", help="default: %(default)s")
    return parser


def main(args: argparse.Namespace) -> None:
    runs = {os.path.basename(os.path.normpath(folder)): folder for folder in args.runs}
    if len(runs) < len(args.runs):  # runs/expert of two projects
        runs = {folder: folder for folder in args.runs}
    plot_curves(runs, args.out, args.names, args.hours)
    print(args.out)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
