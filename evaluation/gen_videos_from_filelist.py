"""Generate the videos of an unpaired test set, on which the paper's numbers are measured.

    python -m evaluation.gen_videos_from_filelist --checkpoint_path checkpoints/wav2lip.pth \\
        --filelist evaluation/test_filelists/lrs2.txt --data_root mvlrs_v1/main --out results/gen

Each line `audio_clip video_clip` (see evaluation/pairs.py) becomes OUT/<line number from 0>.mp4 by
the released protocol: 25 fps, pads 0, hard paste, released mel windows without the last, incomplete
one. Pairs that the protocol skips (a video with fewer frames than windows, a face missing in a
frame, sound or picture that cannot be used) are counted by reason and listed with it in
OUT/pairs.json; the ones made are in OUT/pairs.csv. The same command again continues.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from audio import TRAINING_FPS as FPS
from corpus.listing import in_shard, parse_shard
from errors import InputError, run_cli
from evaluation.pairs import Pair, read_pairs, require_some, resolve
from evaluation.score_table import ScoreTable
from face_detection.arguments import add_detector_arguments, detector_options, detector_record
from face_detection.track import NoFace
from media.files import file_label
from media.write import remove_leftovers

if TYPE_CHECKING:
    from lipsync.engine import LipSync

MODES = {"faithful": True, "default": False}
# in the default mode the speech may outlast its whole windows, and the video
TEST_SET = {"drop_last": True, "video_fps": FPS, "pad": "trim"}  # options of the unpaired protocol
SPEED_OPTIONS = ("wav2lip_batch_size", "face_det_batch_size")  # the frames do not depend on them


def generate_pairs(
    lipsync: LipSync, pairs: Sequence[Pair], data_root: str, out: str, settings: dict, *,
    audio_root: str | None = None, suffix: str = ".mp4", skip_short: bool = True,
    shard: tuple[int, int] = (1, 1), **options,
) -> dict:  # fmt: skip
    """Make `out/<index><suffix>` of every pair, except those that are there already.

    settings: what the frames depend on beside the options, i.e. the generator's and the detector's
    names (JSON values); with other ones everything is made again. audio_root: data_root by default.
    skip_short: skip videos with fewer frames than whole mel windows. options: those of LipSync.run;
    a frame without a face skips the pair. Returns ScoreTable.finish's summary, where the "video" of
    a row is `index audio video`, and "reasons", the number of skipped pairs by reason. InputError
    where no pair's files are there, or a result cannot be written.
    """
    audio_root = audio_root or data_root
    require_some(pairs, data_root, audio_root)
    options["no_face"] = "error"
    kept = {name: value for name, value in options.items() if name not in SPEED_OPTIONS}
    settings = {**settings, **kept, "suffix": suffix, "skip_short": skip_short}
    name = "pairs" if shard[1] == 1 else f"pairs-{shard[0]}of{shard[1]}"
    try:
        table = ScoreTable(out, name, ("file", "frames"), settings)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}") from error

    def make(audio: str, video: str, outfile: str, pair: Pair) -> dict:
        remove_leftovers(outfile)
        if os.path.exists(outfile):  # of other settings or another list
            os.remove(outfile)
        _check(pair, audio, video, options, skip_short)
        try:
            frames = lipsync.run(video, audio, outfile, **options).frames
        except NoFace as error:
            raise Skipped(f"no face: {str(error).partition(';')[0]}") from error  # without remedy
        return {"file": os.path.basename(outfile), "frames": frames}

    items = [
        (str(pair), [resolve(audio_root, pair.audio) or "", resolve(data_root, pair.video) or "",
                     os.path.join(out, f"{pair.index}{suffix}")], pair)
        for pair in pairs if in_shard(str(pair.index), shard)
    ]  # fmt: skip
    summary = table.run(items, make, skip=Skipped)
    counts = Counter(skipped["reason"].partition(":")[0] for skipped in summary["skipped"])
    return {**summary, "reasons": dict(counts.most_common())}


class Skipped(InputError):
    """A pair that the protocol skips: `class: details`."""


def _check(pair: Pair, audio: str, video: str, options: dict, skip_short: bool) -> None:
    """Skipped where the protocol skips a pair. Faces are left to the generation.

    Frames are counted by decoding, at most as many as needed: headers may be wrong, and a video
    that ends early would silently start again.
    """
    from audio import speech_chunks
    from media.read import iter_frames, load_audio, probe

    if not (audio and video):
        raise Skipped(f"file missing: {pair.video if audio else pair.audio}")
    kind = "video"
    try:
        fps = options.get("video_fps") or probe(video).fps
        kind = "audio"
        # whole windows count, however the frames are made: every mode skips the same pairs
        chunks = len(speech_chunks(load_audio(audio), fps, faithful=True, drop_last=True))
        kind = "video"
        frames = itertools.islice(iter_frames(video, fps), chunks)
        shapes = Counter(frame.shape for _, frame in frames)
    except InputError as error:
        raise Skipped(f"{kind} unusable: {error}") from error
    if len(shapes) > 1:
        raise Skipped(f"video unusable: the size of its frames changes in {video}")
    if skip_short and shapes.total() < chunks:
        raise Skipped(f"fewer frames than mel windows: {shapes.total()} for {chunks}")


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Generate the videos of an unpaired test set.")
    add = parser.add_argument
    add("--filelist", required=True, help="lines `audio_clip video_clip`, below DATA_ROOT")
    add("--data_root", required=True, help="folder of the clips")
    add("--mode", choices=tuple(MODES), default="faithful",
        help="frames of the released script, or of inference.py's defaults (feathered edge, mel "
        "windows as in training, as long as the speech); default %(default)s")  # fmt: skip
    add_generation_arguments(parser, out="results/gen", pads=(0, 0, 0, 0))
    return parser


def add_generation_arguments(
    parser: argparse.ArgumentParser, out: str, pads: Sequence[int]
) -> None:
    """What both generation scripts take."""
    from lipsync.options import SIDES, positive

    add = parser.add_argument
    add("--checkpoint_path", required=True, help="generator weights")
    add("--out", "--results_dir", default=out, help="folder of the results; default %(default)s")
    add("--pads", nargs=4, type=int, default=list(pads), metavar=SIDES,
        help=f"grow the detected face; default {' '.join(map(str, pads))}")  # fmt: skip
    add_detector_arguments(parser, default="sfd")
    add("--face_det_batch_size", type=positive, default=64)
    add("--wav2lip_batch_size", type=positive, default=128)
    add("--lossless", action="store_true",
        help="write .mkv: PSNR and SSIM then see the generator, not H.264")  # fmt: skip
    add("--shard", metavar="I/N", default="1/1", help="only the I-th of N parts of the list")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")


def generate_from_args(args: argparse.Namespace, pairs: Sequence[Pair], **options) -> None:
    """generate_pairs with the arguments of add_generation_arguments; prints what was made."""
    from lipsync.engine import LipSync

    shard = parse_shard(args.shard)
    audio_root = options.pop("audio_root", None) or args.data_root
    require_some(pairs, args.data_root, audio_root)  # before the weights take their time
    lipsync = LipSync(args.checkpoint_path, args.device, args.detector, detector_options(args))
    settings = {"generator": file_label(args.checkpoint_path), **detector_record(args)}
    summary = generate_pairs(
        lipsync, pairs, args.data_root, args.out, settings, audio_root=audio_root, shard=shard,
        suffix=".mkv" if args.lossless else ".mp4", pads=tuple(args.pads),
        **{name: getattr(args, name) for name in SPEED_OPTIONS}, **options,
    )  # fmt: skip
    skipped = ", ".join(f"{count} {reason}" for reason, count in summary["reasons"].items())
    made, total = summary["videos"], summary["videos"] + len(summary["skipped"])
    if total and not made:
        raise InputError(f"none of the {total} pairs gave a video: {skipped}; see {args.out}")
    print(f"{args.out}: {made} of {total} pairs made; skipped: {skipped or 'none'}")


def main(args: argparse.Namespace) -> None:
    pairs = read_pairs(args.filelist)
    generate_from_args(args, pairs, faithful=MODES[args.mode], **TEST_SET)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
