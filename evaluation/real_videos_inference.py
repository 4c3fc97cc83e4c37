"""Generate the paper's real-world videos: dubbed, with random speech, or with synthetic speech.

    python -m evaluation.real_videos_inference --mode dubbed --filelist dubbed.txt \\
        --data_root videos --checkpoint_path checkpoints/wav2lip.pth --out results/dubbed
    python -m evaluation.real_videos_inference --mode tts --filelist tts.txt --data_root videos \\
        --audio_root speech --checkpoint_path checkpoints/wav2lip.pth --out results/tts

Lists: a video a line (dubbed: its own sound is used), or `video audio` (random, tts); see
evaluation/pairs.py. Line i becomes OUT/<i>.mp4, counted from 0, made as the released program does
it at the video's own frame rate, with pads 0 10 0 0 and frames scaled to a shorter side of at most
720. A video shorter than the speech starts again; with tts its frames are repeated evenly instead:
output i of n is frame i * frames // n. A frame without a face skips the pair; those are counted,
and listed with the reason in OUT/pairs.json. The same command again continues.
"""

from __future__ import annotations

import argparse

from errors import run_cli
from evaluation.gen_videos_from_filelist import add_generation_arguments, generate_from_args
from evaluation.pairs import read_pairs

MODES = ("dubbed", "random", "tts")
MAX_SHORT_SIDE = 720


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Generate the paper's real-world videos.")
    add = parser.add_argument
    add("--mode", choices=MODES, required=True)
    add("--filelist", required=True, help="lines `video` (dubbed) or `video audio` (random, tts)")
    add("--data_root", required=True, help="folder of the videos")
    add("--audio_root", help="folder of the audio files; default DATA_ROOT")
    add_generation_arguments(parser, out="results/real", pads=(0, 10, 0, 0))
    return parser


def main(args: argparse.Namespace) -> None:
    generate_from_args(
        args,
        read_pairs(args.filelist, args.mode),
        audio_root=args.audio_root if args.mode != "dubbed" else None,
        skip_short=False,
        faithful=True,
        max_short_side=MAX_SHORT_SIDE,
        pad="stretch" if args.mode == "tts" else "loop",
    )


if __name__ == "__main__":
    run_cli(main, get_args_parser())
