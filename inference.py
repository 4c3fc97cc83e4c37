"""Redraw the lips in a video or photo to match any speech.

    python inference.py --face me.mp4 --audio speech.mp3
    python inference.py --checkpoint_path checkpoints/wav2lip.pth --face me.mp4 --audio speech.mp3
    python inference.py --checkpoint_path checkpoints/wav2lip.pth --face me.jpg --audio speech.wav
    python inference.py --checkpoint_path checkpoints/wav2lip.pth --manifest jobs.csv

As a library: `LipSync("checkpoints/wav2lip.pth").run("me.mp4", "speech.mp3", "out.mp4")`.
"""

from __future__ import annotations

import argparse
import time

from errors import InputError, require_file, run_cli
from lipsync.engine import LipSync, add_model_arguments, create_lipsync
from lipsync.options import REFERENCES, Options, add_arguments, options_from, positive
from media.files import log_job

__all__ = ["LipSync", "Options"]


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Redraw the lips in a video or photo to match any speech."
    )
    # fmt: off
    add_model_arguments(parser)
    add = parser.add_argument
    add("--face", "--image", help="video or picture with a face")
    add("--audio", help="speech: any audio file, or a video with sound")
    add("--outfile", "--output", default="results/result_voice.mp4",
        help=".mp4, .mov (H.264, AAC) or .mkv (lossless); default %(default)s")
    add("--preview", type=positive, metavar="N",
        help="no video: N frames spread over it as one picture, <outfile>.png")
    add("--manifest", metavar="JOBS.csv",
        help="many jobs: columns face, audio, outfile and any of the flags below")
    add("--workers", type=positive, default=1, help="of --manifest, each with its own network")
    add("--log_dir", metavar="DIR", help="add a line a job to DIR/inference/processing.log")
    # fmt: on
    add_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    options = options_from(args) | {"progress": True}
    if args.manifest:
        from lipsync.jobs import run_manifest
        from models.shipped import generator_path

        args.checkpoint_path = generator_path(args.checkpoint_path)  # of all jobs and workers
        return run_manifest(args, options)
    if not args.face or not args.audio:
        raise InputError("give --face and --audio, or --manifest")
    require_file(args.face, "face")  # before torch and the weights take their time
    require_file(args.audio, "audio")
    if args.reference not in REFERENCES and not args.faithful:
        require_file(args.reference, "reference")
    lipsync = create_lipsync(args)
    if args.preview:
        from lipsync.preview import write_preview

        path = write_preview(lipsync, args.face, args.audio, args.outfile, args.preview, options)
        print(path)
        return None
    began, stages = time.perf_counter(), {}

    def note(stage: str, *_: int) -> None:
        stages.setdefault(stage, time.perf_counter())

    summary = lipsync.run(args.face, args.audio, args.outfile, note, **options)
    if args.log_dir:
        lips, ended = stages["lips"], time.perf_counter()
        log_job(
            args.log_dir, "inference/processing.log", face=args.face, audio=args.audio,
            outfile=summary.outfile, frames=summary.frames, seconds_faces=round(lips - began, 2),
            seconds_lips=round(ended - lips, 2),
            frames_per_second=round(summary.frames / (ended - began), 1),
        )  # fmt: skip
    print(f"{summary.outfile}: {summary.frames} frames at {summary.fps:g} fps")
    return None


if __name__ == "__main__":
    run_cli(main, get_args_parser())
