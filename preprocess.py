"""Turn talking-face videos into training clips: face crops, 16 kHz audio, mel spectrogram.

    python preprocess.py --data_root mvlrs_v1/main --preprocessed_root lrs2_preprocessed --ngpu 4
    python preprocess.py --preprocessed_root lrs2_preprocessed --doctor

Every video becomes `<preprocessed_root>/<dir>/<video>/` with `<frame>.jpg`, `audio.wav`, `mel.npy`
and `clip.json`; one with several shots or people, or a long one, a folder of such pieces. A clip's
folder appears only when it is complete; run the command again after an interruption and it goes on
with what is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections import Counter

from errors import InputError, require_file, run_cli
from face_detection import DETECTORS
from face_detection.arguments import add_detector_arguments, detector_options

SHOWN = 10  # failures that are printed; the file has all

# OpenCV, torch and the detectors are imported inside the functions, so that --help answers at once


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Turn talking-face videos into training clips.")
    add = parser.add_argument
    add("--preprocessed_root", required=True, help="where the clips go, or are")
    add("--data_root", help="videos: a folder such as mvlrs_v1/main, a list of paths, or one file")
    add("--strict", action="store_true", help="exit with 1 if any video failed")
    _add_machine_arguments(parser.add_argument_group("machine"))
    _add_clip_arguments(parser.add_argument_group("clips"))
    _add_root_arguments(parser.add_argument_group("looking after a preprocessed root"))
    return parser


# fmt: off
def _add_machine_arguments(group) -> None:
    add = group.add_argument
    add("--ngpu", type=int, help="GPUs to use; 0 = CPU; default: all there are")
    add("--workers_per_gpu", type=int, default=6, metavar="N",
        help="videos decoded and written at a time for each GPU's detector; default %(default)s")
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N",
        help="videos at a time where there is no GPU; default %(default)s")
    add("--batch_size", type=int, default=32, metavar="N",
        help="frames in a detection batch; default %(default)s")
    add("--shard", metavar="I/N",
        help="do part I of N only; N machines that share the folders need nothing else")
    add("--ray", nargs="?", const="local", metavar="ADDRESS",
        help="run on a Ray cluster (pip install ray): its address, auto, or no value: local")


def _add_clip_arguments(group) -> None:
    add = group.add_argument
    add_detector_arguments(group, DETECTORS, help="boxes reads <video>.json")
    add("--float32", action="store_true", help="--detector sfd in full precision on a GPU too")
    add("--track", action="store_true",
        help="search only around a face that was found, which on a CPU takes a third of the time: "
        "boxes differ as much as by a little scaling of the frame")
    add("--split", choices=("auto", "on", "off"), default="auto",
        help="cut videos at shot cuts, lost faces and --max_seconds into pieces of one person; "
        "auto: unless all are named as in LRS2, <dir>/<five digits>")
    add("--min_seconds", type=float, default=1.0, metavar="S",
        help="shorter pieces are left out; default %(default)s")
    add("--max_seconds", type=float, default=10.0, metavar="S",
        help="longest piece; an epoch takes one window of each; default %(default)s")


def _add_root_arguments(group) -> None:
    add = group.add_argument
    add("--make_filelists", metavar="SHARES",
        help="e.g. train=0.9,val=0.05,test=0.05: write filelists, split by speaker or source")
    add("--speaker_pattern", metavar="REGEX",
        help="finds the speaker in a clip's name; default: the first folder, or the video")
    add("--filelists", metavar="DIR", help="filelists; default <preprocessed_root>/filelists")
    add("--seed", type=int, default=0, help="of --make_filelists; default %(default)s")
    add("--correct_sync", action="store_true",
        help="write filelists that shift the sound of clips that are out of sync, as lip landmarks "
        "or the --expert hear it, and leave out the hopeless; undone by training with the old ones")
    add("--expert", metavar="CHECKPOINT", help="lip-sync expert: ours, or syncnet_v2.model")
    add("--max_offset", type=int, default=15, metavar="FRAMES",
        help="clips that are further out of sync are dropped; default %(default)s")
    add("--min_confidence", type=float, metavar="C",
        help="clips the expert is less sure of are dropped; default 0.25, SyncNet v2: 3")
    add("--doctor", action="store_true", help="examine the clips: will an expert learn from them?")
    add("--doctor_out", metavar="DIR", help="default <preprocessed_root>/doctor")
    add("--max_clips", type=int, default=0, metavar="N",
        help="--doctor looks at N clips drawn by --seed; default: all")
    add("--device", default="auto", help="of the --expert; default %(default)s")
# fmt: on


def main(args: argparse.Namespace) -> int:
    """Everything asked for, in the order in which the steps build on each other."""
    if args.filelists is None:
        args.filelists = os.path.join(args.preprocessed_root, "filelists")
    elif not (args.make_filelists or os.path.isdir(args.filelists)):
        raise InputError(f"--filelists is not a folder: {args.filelists}")
    if args.expert:
        require_file(args.expert, "--expert")
    _check(args)
    failed = preprocess(args) if args.data_root else 0
    if args.make_filelists:
        make_filelists(args)
    if args.correct_sync:
        correct_sync(args)
    if args.doctor:
        examine(args)
    return 1 if failed and args.strict else 0


def _check(args: argparse.Namespace) -> None:
    from corpus.listing import parse_shard, parse_shares

    steps = ("data_root", "make_filelists", "correct_sync", "doctor")
    if not any(getattr(args, step) for step in steps):
        raise InputError(f"nothing to do: give one of {', '.join('--' + step for step in steps)}")
    if min(args.batch_size, args.workers, args.workers_per_gpu) < 1 or (args.ngpu or 0) < 0:
        raise InputError("--batch_size and --workers must be at least 1, --ngpu at least 0")
    if not 0 < args.min_seconds <= args.max_seconds:
        raise InputError("--min_seconds must be above 0 and at most --max_seconds")
    if min(args.seed, args.max_clips, args.max_offset) < 0:
        raise InputError("--seed, --max_clips and --max_offset must be at least 0")
    args.shard = parse_shard(args.shard) if args.shard else (1, 1)
    if args.make_filelists:
        args.make_filelists = parse_shares(args.make_filelists)


def preprocess(args: argparse.Namespace) -> int:
    """Videos to clips; returns the number of videos that failed."""

    from corpus.listing import find_videos, in_shard, is_lrs2

    everything = find_videos(args.data_root)
    videos = [video for video in everything if in_shard(video[0], args.shard)]
    if not videos:
        print(f"none of the {len(everything)} videos falls into this shard")
        return 0
    try:
        os.makedirs(args.preprocessed_root, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {args.preprocessed_root}: {error.strerror}") from error
    split = args.split == "on" or args.split == "auto" and not is_lrs2([v[0] for v in everything])
    start = time.monotonic()
    results = _run(videos, args, split)
    failed = _report(results, time.monotonic() - start, args)
    if failed == len(videos):
        reason = Counter(result.error for result in results).most_common(1)[0][0]
        raise InputError(f"all {failed} videos failed, most with: {reason}")
    return failed


def _run(videos: list[tuple[str, str]], args: argparse.Namespace, split: bool) -> list:
    from tqdm import tqdm

    from preparation.pieces import PieceRules
    from preparation.process import FPS, Settings
    from preparation.run import run, run_on_ray

    ngpu = args.ngpu
    if ngpu is None:
        import torch

        ngpu = torch.cuda.device_count()
    settings = Settings(
        preprocessed_root=os.path.abspath(args.preprocessed_root),
        detector=args.detector,
        detector_options={} if args.detector == "boxes" else detector_options(args),
        batch_size=args.batch_size,
        rules=PieceRules(split, round(args.min_seconds * FPS), round(args.max_seconds * FPS)),
        workers=min(args.workers_per_gpu if ngpu else args.workers, len(videos)),
        track=args.track and args.detector != "boxes",
        float32=args.float32,
    )
    if args.ray:
        stream = run_on_ray(videos, settings, args.ray, ngpu > 0)
    else:
        stream = run(videos, settings, [f"cuda:{gpu}" for gpu in range(ngpu)] or ["cpu"])
    results, failures = [], 0
    bar = tqdm(total=len(videos), unit="video", disable=not sys.stderr.isatty())
    # closed now, not when it is collected: its threads must end first
    with bar, contextlib.closing(stream):
        for result in stream:
            results.append(result)
            failures += result.error is not None
            bar.set_postfix(failed=failures, refresh=False)
            bar.update()
    return results


def _report(results: list, seconds: float, args: argparse.Namespace) -> int:
    """Print what was done, write the failures' file (each shard's its own), return their number."""
    from media.files import replacing

    names = ("skipped", "busy", "clips", "frames", "faces", "crowded", "short")
    skipped, busy, clips, frames, faces, crowded, short = (
        sum(getattr(result, name) for result in results) for name in names
    )
    failed = sorted((result for result in results if result.error), key=lambda result: result.name)
    done = len(results) - len(failed) - skipped - busy
    rate = f" ({clips / seconds:.2f} clips/s, {frames / seconds:.0f} frames/s)" if done else ""
    print(
        f"{done} videos done in {seconds:.0f} s: {clips} clips{rate}; {skipped} were finished "
        f"before, {len(failed)} failed" + (f", {busy} are another run's" if busy else "")
    )
    if frames:
        print(f"{frames} frames, a face in {faces} ({100 * faces / frames:.2f}%)")
    if crowded or short:
        print(f"{crowded} clips show other people too; {short} short pieces were left out")
    i, n = args.shard
    name = f"failures-{i}of{n}.tsv" if n > 1 else "failures.tsv"
    path = os.path.join(args.preprocessed_root, name)
    if failed:
        with replacing(path, "wb") as file:
            file.writelines(os.fsencode(f"{result.name}\t{result.error}\n") for result in failed)
    elif os.path.exists(path):
        os.remove(path)
    for result in failed[:SHOWN]:
        line = f"failed: {result.name}: {result.error}"
        print(line.encode(errors="backslashreplace").decode())  # names may not be UTF-8
    if len(failed) > SHOWN:
        print(f"... and {len(failed) - SHOWN} more: {path}")
    return len(failed)


def make_filelists(args: argparse.Namespace) -> None:
    """Filelists of the clips that are there, whole speakers or sources in one split."""
    from corpus.listing import clip_groups, find_clips, split_groups, write_filelists

    groups = clip_groups(find_clips(args.preprocessed_root), args.speaker_pattern)
    splits = split_groups(groups, args.make_filelists, args.seed)
    write_filelists(splits, args.filelists)
    for split, names in splits.items():
        print(
            f"{split}: {len(names)} clips of {len({groups[n] for n in names})} speakers or sources"
        )
    print(f"filelists written: train with --filelists {args.filelists}")


def correct_sync(args: argparse.Namespace) -> None:
    """Filelists of the clips that can be brought into sync, with the shift of each one's sound."""
    from hparams import HParams
    from models.device import select_device
    from preparation.sync import correct_root

    correct_root(
        args.preprocessed_root,
        args.expert,
        args.filelists if os.path.isdir(args.filelists) else None,
        os.path.normpath(args.filelists) + "_synced",
        args.max_offset,
        args.min_confidence,
        select_device(args.device),
        HParams(),
    )


def examine(args: argparse.Namespace) -> None:
    """The doctor's page, numbers and picture."""
    from models.device import select_device
    from preparation import doctor

    doctor.examine(
        args.preprocessed_root,
        args.doctor_out or os.path.join(args.preprocessed_root, "doctor"),
        filelists=args.filelists if os.path.isdir(args.filelists) else None,
        expert=args.expert,
        device=select_device(args.device) if args.expert else "cpu",
        workers=args.workers,
        max_clips=args.max_clips,
        seed=args.seed,
        speaker_pattern=args.speaker_pattern,
    )


if __name__ == "__main__":
    run_cli(main, get_args_parser())
