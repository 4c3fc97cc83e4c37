"""A synthetic talking-face corpus in LRS2's layout: for demos and tests, nothing to download.

    python -m synthetic --out data/synthetic --speakers 12 --clips 4 --seconds 3
    python preprocess.py --data_root data/synthetic/mvlrs_v1 --preprocessed_root data/preprocessed

Writes <out>/mvlrs_v1/main/s0007/00001.mp4 (25 fps, H.264, mono AAC), beside each a 00001.json with
the truth (see `synthesize_clip`), and <out>/filelists/{train,val,test}.txt, split by speaker. The
lips follow the audio: both are made from the same articulation (synthetic/voice.py). The faces are
one public-domain portrait, reshaped and recoloured (synthetic/face.py), drawn frame by frame
(synthetic/render.py).
"""

from __future__ import annotations

import argparse

from errors import run_cli
from synthetic.corpus import write_corpus


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m synthetic",
        description="Write a synthetic talking-face corpus in LRS2's layout.",
    )
    add = parser.add_argument
    add("--out", default="data/synthetic", help="folder of the corpus (default: %(default)s)")
    add("--speakers", type=int, default=12, help="at least 3 (default: %(default)s)")
    add("--clips", type=int, default=4, help="clips per speaker (default: %(default)s)")
    add("--seconds", type=float, default=3.0, help="length of a clip (default: %(default)s)")
    add("--seed", type=int, default=0, help="same seed, same corpus (default: %(default)s)")
    add("--workers", type=int, help="processes (default: one per CPU)")
    return parser


def main(args: argparse.Namespace) -> None:
    written, skipped = write_corpus(
        args.out, args.speakers, args.clips, args.seconds, seed=args.seed, workers=args.workers
    )
    print(f"{written} clips written, {skipped} already there: {args.out}")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
