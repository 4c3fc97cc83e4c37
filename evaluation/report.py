"""The paper's table for one generator: generate, score everything, write it down. One command.

    python -m evaluation.report --checkpoint checkpoints/wav2lip.pth --detector sfd \\
        --filelist evaluation/test_filelists/lrs2.txt --data_root mvlrs_v1/main --out results/eval

Makes the videos of the list by the paper's protocol, and each of its clips once more with its own
sound, to be compared with the truth. Scores those, the real clips as they are, and the real clips
with the wrong sound, which a metric must tell from the right one. Writes report.md (beside the
published numbers), report.json, and pictures. Metrics whose weights are not there are named with
the file to get. The same command again continues where it was stopped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from errors import InputError, require_file, run_cli
from evaluation.fid import fid, make_detector
from evaluation.gen_videos_from_filelist import FPS, MODES, generate_pairs
from evaluation.pairs import Pair, read_pairs, require_some, resolve
from face_detection.arguments import (
    add_detector_arguments,
    detector_options,
    detector_record,
)
from lipsync.options import SIDES, positive
from media.files import file_label, log_job

# torch, OpenCV and the networks are imported inside the functions, so that --help answers at once

# Frames by which a video with its own sound ends early: the last mel windows are incomplete, and a
# container's sound may be some milliseconds shorter than its picture
SHORTER = 8
GROUPS = ("generated", "real", "wrong sound")


@dataclass
class Videos:
    """What is scored. Each list holds (name, path), or (name, path, path of another's sound)."""

    generated: list[tuple] = field(default_factory=list)
    real: list[tuple] = field(default_factory=list)
    wrong: list[tuple] = field(default_factory=list)
    pairs: list[tuple] = field(default_factory=list)  # name, truth, made with its own sound
    truth: dict[str, str] = field(default_factory=dict)  # of a generated one's name: the real clip

    def group(self, name: str) -> list[tuple]:
        return {"generated": self.generated, "real": self.real, "wrong sound": self.wrong}[name]


def generate(
    args: argparse.Namespace, pairs: Sequence[Pair], settings: dict, lipsync
) -> tuple[Videos, dict]:
    """All the videos, and the summaries of their making by the names of their folders."""
    options = {
        "faithful": MODES[args.mode], "drop_last": True, "video_fps": FPS, "pad": "trim",
        "pads": tuple(args.pads), "wav2lip_batch_size": args.wav2lip_batch_size,
    }  # fmt: skip
    folder = os.path.join(args.out, "generated")
    made = generate_pairs(lipsync, pairs, args.data_root, folder, settings, **options)
    skipped = {entry["video"] for entry in made["skipped"]}
    videos, summaries = Videos(), {"generated": made}
    found = {name: resolve(args.data_root, name) for p in pairs for name in (p.audio, p.video)}
    names = list(dict.fromkeys(pair.video for pair in pairs if found[pair.video]))
    videos.real = [(name, found[name]) for name in names]
    for pair in pairs:
        if str(pair) not in skipped:
            videos.generated.append((str(pair), os.path.join(folder, f"{pair.index}.mp4")))
            videos.truth[str(pair)] = found[pair.video]
        sound = wrong_sound(pair, pairs)
        if found[pair.video] and found[sound]:
            videos.wrong.append(
                (f"{pair.index} {sound} {pair.video}", found[pair.video], found[sound])
            )
    folder = os.path.join(args.out, "own_sound")
    own = [Pair(index, name, name) for index, name in enumerate(names)]
    if own:
        # lossless, so that the generator is measured and not H.264
        summary = generate_pairs(
            lipsync, own, args.data_root, folder, settings, suffix=".mkv", **options
        )
        summaries["own_sound"] = summary
        skipped = {entry["video"] for entry in summary["skipped"]}
        videos.pairs = [
            (pair.video, found[pair.video], os.path.join(folder, f"{pair.index}.mkv"))
            for pair in own if str(pair) not in skipped
        ]  # fmt: skip
    return videos, summaries


def wrong_sound(pair: Pair, pairs: Sequence[Pair]) -> str:
    """The clip whose sound the pair's video must not fit: the pair's own, or, in a list that joins
    clips with themselves, that of the pair half a list further on.
    """
    if pair.audio != pair.video:
        return pair.audio
    place = pairs.index(pair)
    return pairs[(place + max(1, len(pairs) // 2)) % len(pairs)].audio


def score_sync(args: argparse.Namespace, videos: Videos, missing: list) -> dict[str, dict]:
    """{"lse" or "sync": {group: summary}} of SyncNet v2 and our own expert, as far as there."""
    from evaluation.scores_LSE import SyncScorer, needs_detector, score_videos
    from experts.offset import load_expert

    scores = {}
    for name, path in (("lse", args.syncnet_weights), ("sync", args.expert)):
        if path is None or not os.path.exists(path):
            missing.append(MISSING[name] | {"where": MISSING[name]["where"].format(path=path)})
            continue
        expert = load_expert(path, args.device)
        if (expert.kind == "SyncNet_v2") != (name == "lse"):
            raise InputError(f"{path} is a {expert.kind}: LSE needs a SyncNet_v2, --expert another")
        detector = make_detector(args) if needs_detector(expert, args.protocol) else None
        scorer = SyncScorer(expert, args.protocol, detector, batch_size=args.batch_size)
        scores[name] = {}
        for group in GROUPS:
            folder = os.path.join(args.out, "scores", group.replace(" ", "_"))
            table = scorer.table(folder, "another clip's" if group == "wrong sound" else "own")
            summary = score_videos(videos.group(group), scorer, table)
            rows = {key: table.rows(key) for key, *_ in videos.group(group)}
            scores[name][group] = summary | {"by_video": rows}
    return scores


MISSING = {
    "lse": {
        "metric": "LSE-D, LSE-C",
        "file": "syncnet_v2.model",
        "where": "{path}, or --syncnet_weights; SyncNet's authors publish it (syncnet_python)",
    },
    "sync": {
        "metric": "sync_distance, sync_confidence",
        "file": "a SyncNet_color checkpoint",
        "where": "--expert; color_syncnet_train.py makes one",
    },
}


def score_fid(args: argparse.Namespace, videos: Videos, missing: list) -> dict | None:
    """FID of the generated against the real clips; None where the weights are not there."""
    from evaluation.inception import INCEPTION, InceptionFeatures

    try:
        weights = INCEPTION.find(args.inception_weights)
    except InputError:
        if args.inception_weights:
            raise
        where = f"{INCEPTION.url} into checkpoints/, or --inception_weights"
        missing.append({"metric": "FID", "file": INCEPTION.name, "where": where})
        return None
    inception = InceptionFeatures(weights, args.device)
    real, made = ([path for _, path in group] for group in (videos.real, videos.generated))
    folder = os.path.join(args.out, "scores")
    return fid(real, made, folder, inception, batch_size=args.batch_size, progress=True)


def score_quality(args: argparse.Namespace, videos: Videos, missing: list) -> dict:
    """{"own_sound": summary, "truth": summary of one true clip against itself}."""
    from evaluation.quality import QualityMeter, available_metrics, score_pairs
    from evaluation.score_table import ScoreTable

    weights = (args.lpips_weights, args.sface_weights, args.expert)
    networks, absent = available_metrics(*weights, args.device)
    missing += absent
    meter = QualityMeter(make_detector(args), networks, shorter=SHORTER, device=args.device)
    folder, scores = os.path.join(args.out, "scores"), {}
    truth = [(name, path, path) for name, path, _ in videos.pairs[:1]]
    for name, pairs in (("own_sound", videos.pairs), ("truth", truth)):
        table = ScoreTable(folder, f"quality_{name}", meter.columns, meter.settings)
        scores[name] = score_pairs(pairs, meter, table, progress=True)
    return scores


def score_lips(
    args: argparse.Namespace, lipsync, pairs: Sequence[Pair], settings: dict, missing: list
) -> dict:
    """Of each pair, whether the lips follow the sound or leak the video's own: evaluation/lips.py.
    {} where no landmark package is installed.
    """
    from evaluation import lips
    from face_detection.landmarks import REMEDY, MissingLandmarks, model_path

    try:
        model_path()
    except MissingLandmarks:
        where = {"metric": "follows, leak, LMD", "file": "face_landmark.tflite", "where": REMEDY}
        missing.append(where)
        return {}
    judge = lips.LipJudge(lipsync, faithful=MODES[args.mode], pads=tuple(args.pads))
    name = args.name or os.path.basename(args.checkpoint)
    folder = os.path.join(args.out, "scores")
    settings = {**settings, "mode": args.mode, "pads": list(args.pads)}
    return lips.score_lips(
        judge, {name: lipsync}, pairs, args.data_root, folder, settings, progress=True
    )


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The paper's table for one generator.")
    add = parser.add_argument
    # fmt: off
    add("--checkpoint", "--checkpoint_path", metavar="FILE",
        help="generator weights; default: those that ship, checkpoints/open.pth")
    add("--filelist", required=True, help="lines `audio_clip video_clip`, below DATA_ROOT")
    add("--data_root", required=True, help="folder of the clips")
    add("--out", default="results/eval", help="default %(default)s")
    add("--name", help="of our row in the table; default: the checkpoint's file name")
    add("--limit", type=positive, help="only the first so many pairs")
    add("--mode", choices=tuple(MODES), default="faithful",
        help="frames of the released script, or of inference.py's defaults; default %(default)s")
    add("--protocol", choices=("lrs", "real"), default="lrs", help="of LSE; default %(default)s")
    add_detector_arguments(parser, default="sfd", help="sfd is the paper's; default %(default)s")
    add("--syncnet_weights", default="checkpoints/syncnet_v2.model", help="default %(default)s")
    add("--expert", help="a SyncNet_color: sync_distance and sync_confidence, lsd; default: the "
        "one that ships, checkpoints/open_expert.pth")
    add("--inception_weights", help="of FID; default: checkpoints/, else downloaded")
    add("--lpips_weights", help="of LPIPS; default: checkpoints/, else downloaded")
    add("--sface_weights", help="of identity; default: checkpoints/")
    add("--pads", nargs=4, type=int, default=[0, 0, 0, 0], metavar=SIDES)
    add("--wav2lip_batch_size", type=positive, default=128)
    add("--batch_size", type=positive, default=32, help="of the metrics' networks")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    add("--log_dir", metavar="DIR", help="add a line to DIR/evaluation/eval_results.log")
    # fmt: on
    return parser


def main(args: argparse.Namespace) -> None:
    from evaluation.report_plots import plot_report
    from evaluation.report_text import write_report
    from lipsync.engine import LipSync
    from models.shipped import expert_path, generator_path

    args.checkpoint = generator_path(args.checkpoint, "--checkpoint")
    args.expert = expert_path(args.expert)
    pairs = read_pairs(args.filelist)[: args.limit]
    require_some(pairs, args.data_root, args.data_root)
    for path in (args.expert, args.inception_weights, args.lpips_weights, args.sface_weights):
        if path is not None:
            require_file(path, "weights")  # before hours of generating
    settings = {"generator": file_label(args.checkpoint), **detector_record(args)}
    lipsync = LipSync(args.checkpoint, args.device, args.detector, detector_options(args))
    videos, generation = generate(args, pairs, settings, lipsync)
    if not videos.generated:
        raise InputError(f"no pair of {args.filelist} gave a video; see {args.out}/generated")
    missing: list[dict] = []
    report = {
        "name": args.name or os.path.basename(args.checkpoint),
        "filelist": os.path.basename(args.filelist),
        "pairs": len(pairs),
        "mode": args.mode,
        "generation": generation,
        "sync": score_sync(args, videos, missing),
        "fid": score_fid(args, videos, missing),
        "quality": score_quality(args, videos, missing),
        "lips": score_lips(args, lipsync, pairs, settings, missing),
    }
    report["missing"] = missing
    report["pictures"] = plot_report(report["sync"], videos, args.out)
    path = write_report(report, args.out)
    if args.log_dir:
        made = {"generator": report["name"], "pairs": len(videos.generated), "report": str(path)}
        log_job(args.log_dir, "evaluation/eval_results.log", **made, fid=report["fid"])
    print(path)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
