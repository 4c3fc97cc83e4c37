"""The paper's table for one generator or several: generate, score everything, write it down.

    python -m evaluation.report --checkpoint checkpoints/wav2lip.pth --detector sfd \\
        --filelist evaluation/test_filelists/lrs2.txt --data_root mvlrs_v1/main --out results/eval

Makes the videos of the list by the paper's protocol, and each of its clips once more with its own
sound, to be compared with the truth. Scores those, the real clips as they are, and the real clips
with the wrong sound, which a metric must tell from the right one. Writes report.md (beside the
published numbers), report.json, and pictures. Several checkpoints stand side by side in one table;
each has its own report in <out>/<name> too. Metrics whose weights are not there are named with the
file to get; what is named and is not there is an error before the work begins. The same command
again continues where it was stopped.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from errors import InputError, run_cli
from evaluation.fid import INCEPTION, InceptionFeatures, fid, make_detector
from evaluation.gen_videos_from_filelist import MODES, TEST_SET, generate_pairs
from evaluation.metrics import SyncDistance, add_metric_arguments, find_weights, load_metrics
from evaluation.pairs import Pair, read_pairs, require_some, resolve
from evaluation.quality import QualityMeter
from evaluation.score_table import ScoreTable
from face_detection.arguments import add_detector_arguments, detector_options, detector_record
from lipsync.options import SIDES, positive
from media.files import file_label, log_job
from models.pretrained import Weights

# Frames by which a video with its own sound ends early: the last mel windows are incomplete, and a
# container's sound may be some milliseconds shorter than its picture
SHORTER = 8
SYNCNET = Weights(
    "SyncNet v2", "published by SyncNet's authors (syncnet_python)", "--syncnet_weights",
    fetched=False, local="syncnet_v2.model",
)  # fmt: skip


@dataclass
class Judges:
    """All that scores, loaded before the work begins. experts: {"lse" or "sync": expert}."""

    detector: object = None
    experts: dict = field(default_factory=dict)
    inception: InceptionFeatures | None = None
    metrics: list = field(default_factory=list)
    landmarks: bool = False
    missing: list[dict[str, str]] = field(default_factory=list)


def load_judges(args: argparse.Namespace) -> Judges:
    """What is there; the rest is `missing`. InputError where a named file cannot be used."""
    from experts.offset import load_expert
    from face_detection.landmarks import REMEDY, MissingLandmarks, model_path

    judges = Judges(make_detector(args))
    judges.metrics, judges.missing = load_metrics(vars(args), args.device)
    own = SyncDistance.weights
    for name, weights, path, columns in (
        ("lse", SYNCNET, args.syncnet_weights, ("LSE-D", "LSE-C")),
        ("sync", own, args.expert, ("sync_distance", "sync_confidence")),
    ):
        path = find_weights(weights, path, columns, judges.missing)
        if path is None:
            continue
        expert = load_expert(path, args.device)
        if expert.published != (name == "lse"):
            raise InputError(f"{path} is a {expert.kind}: LSE needs a SyncNet_v2, --expert another")
        judges.experts[name] = expert
    path = find_weights(INCEPTION, args.inception_weights, ["FID"], judges.missing)
    judges.inception = path and InceptionFeatures(path, args.device)
    try:
        judges.landmarks = bool(model_path())
    except MissingLandmarks:
        where = {"metric": "follows, leak, LMD", "file": "face_landmark.tflite", "where": REMEDY}
        judges.missing.append(where)
    return judges


@dataclass
class Videos:
    """What is scored, by group ("generated", "real", "wrong sound"): (name, [path]), or (name,
    [path, path of another's sound]).
    """

    groups: dict[str, list[tuple]]
    pairs: list[tuple] = field(default_factory=list)  # name, (truth, made with its own sound)
    truth: dict[str, str] = field(default_factory=dict)  # of a generated one's name: the real clip


def generate(
    args: argparse.Namespace, pairs: Sequence[Pair], out: str, settings: dict, lipsync
) -> tuple[Videos, dict]:
    """All the videos, and the summaries of their making by the names of their folders."""
    options = {
        "faithful": MODES[args.mode], "pads": tuple(args.pads),
        "wav2lip_batch_size": args.wav2lip_batch_size, **TEST_SET,
    }  # fmt: skip
    summaries: dict[str, dict] = {}

    def make(name: str, listed: Sequence[Pair], suffix: str) -> list[tuple[Pair, str]]:
        """Those that could be made in a folder, with their files."""
        folder = os.path.join(out, name)
        summaries[name] = generate_pairs(
            lipsync, listed, args.data_root, folder, settings, suffix=suffix, **options
        )
        skipped = {entry["video"] for entry in summaries[name]["skipped"]}
        made = (pair for pair in listed if str(pair) not in skipped)
        return [(pair, os.path.join(folder, f"{pair.index}{suffix}")) for pair in made]

    found = {name: resolve(args.data_root, name) for p in pairs for name in (p.audio, p.video)}
    names = list(dict.fromkeys(pair.video for pair in pairs if found[pair.video]))
    made = make("generated", pairs, ".mp4")
    groups = {
        "generated": [(str(pair), [path]) for pair, path in made],
        "real": [(name, [found[name]]) for name in names],
        "wrong sound": wrong_sounds(pairs, found),
    }
    videos = Videos(groups, truth={str(pair): found[pair.video] for pair, _ in made})
    if names:
        # lossless, so that the generator is measured and not H.264
        own = make("own_sound", [Pair(i, name, name) for i, name in enumerate(names)], ".mkv")
        videos.pairs = [(p.video, (found[p.video], path)) for p, path in own]
    return videos, summaries


def wrong_sounds(pairs: Sequence[Pair], found: dict[str, str | None]) -> list[tuple]:
    """(name, [video, sound that it must not fit]) of each pair, found: the files of their names.

    The sound is the pair's own, or, where that is the video's, the first other one from half a list
    further on. A video that there is no other sound for is left out.
    """
    wrong = []
    for place, pair in enumerate(pairs):
        video, start = found[pair.video], place + max(1, len(pairs) // 2)
        for other in (pair, *pairs[start % len(pairs) :], *pairs[: start % len(pairs)]):
            sound = found[other.audio]
            if video and sound and not os.path.samefile(sound, video):
                wrong.append((f"{pair.index} {other.audio} {pair.video}", [video, sound]))
                break
    return wrong


def score_sync(
    args: argparse.Namespace, groups: dict[str, list[tuple]], judges: Judges, out: str
) -> dict[str, dict[str, dict]]:
    """{"lse" or "sync": {group: summary}} of SyncNet v2 and our own expert, as far as there. The
    real clips' scores, which no generator changes, are kept in args.out.
    """
    from evaluation.scores_LSE import SyncScorer, needs_detector

    scores: dict[str, dict[str, dict]] = {}
    for name, expert in judges.experts.items():
        detector = judges.detector if needs_detector(expert, args.protocol) else None
        scorer = SyncScorer(expert, args.protocol, detector, batch_size=args.batch_size)
        scores[name] = {}
        for group, videos in groups.items():
            place = out if group == "generated" else args.out
            folder = os.path.join(place, "scores", group.replace(" ", "_"))
            table = scorer.table(folder, "another clip's" if group == "wrong sound" else "own")
            summary = table.run(videos, scorer.score_video)
            scores[name][group] = summary | {"by_video": {k: table.rows(k) for k, _ in videos}}
    return scores


def score_fid(
    args: argparse.Namespace, videos: Videos, inception: InceptionFeatures | None, out: str
) -> dict | None:
    """FID of the generated against the real clips; None where the weights are not there."""
    if inception is None:
        return None
    real, made = ([path for _, [path] in videos.groups[g]] for g in ("real", "generated"))
    folder, shared = (os.path.join(place, "scores") for place in (out, args.out))
    return fid(real, made, folder, inception, None, 1, args.batch_size, True, real_out=shared)


def score_quality(videos: Videos, judges: Judges, out: str) -> dict:
    """{"own_sound": summary, "truth": summary of one true clip against itself}."""
    meter = QualityMeter(judges.detector, judges.metrics, shorter=SHORTER)
    truth = [(name, (path, path)) for name, (path, _) in videos.pairs[:1]]
    scores = {}
    for name, pairs in (("own_sound", videos.pairs), ("truth", truth)):
        folder = os.path.join(out, "scores")
        table = ScoreTable(folder, f"quality_{name}", tuple(meter.columns), meter.settings)
        scores[name] = table.run(pairs, meter.score)
    return scores


def score_lips(
    args: argparse.Namespace, name: str, lipsync, pairs: Sequence[Pair], settings: dict, out: str
) -> dict:
    """Of each pair, whether the lips follow the sound or leak the video's own: evaluation/lips.py.
    The baselines' scores, which no generator changes, are kept in args.out.
    """
    from evaluation import lips

    judge = lips.LipJudge(lipsync, faithful=MODES[args.mode], pads=tuple(args.pads))
    settings = {**settings, "mode": args.mode, "pads": list(args.pads)}
    shared = {key: value for key, value in settings.items() if key != "generator"}
    results = {}
    for generators, place, kept, baselines in (
        ({name: lipsync}, out, settings, ()), ({}, args.out, shared, lips.BASELINES),
    ):  # fmt: skip
        folder = os.path.join(place, "scores")
        results |= lips.score_lips(
            judge, generators, pairs, args.data_root, folder, kept, True, baselines
        )
    return results


def evaluate(
    args: argparse.Namespace, name: str, checkpoint: str, pairs: Sequence[Pair], judges: Judges,
    lipsync, out: str,
) -> dict:  # fmt: skip
    """The report of one generator, its files in `out`."""
    from evaluation.report_plots import plot_report

    settings = {"generator": file_label(checkpoint), **detector_record(args)}
    videos, generation = generate(args, pairs, out, settings, lipsync)
    if not videos.groups["generated"]:
        raise InputError(f"no pair of {args.filelist} gave a video; see {out}/generated")
    lips = judges.landmarks and score_lips(args, name, lipsync, pairs, settings, out)
    sync = score_sync(args, videos.groups, judges, out)
    return {
        "name": name,
        "filelist": os.path.basename(args.filelist),
        "pairs": len(pairs),
        "mode": args.mode,
        "generation": generation,
        "sync": sync,
        "fid": score_fid(args, videos, judges.inception, out),
        "quality": score_quality(videos, judges, out),
        "lips": lips or {},
        "missing": judges.missing,
        "pictures": plot_report(sync, videos, out),
    }


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The paper's table for one generator or several.")
    add = parser.add_argument
    # fmt: off
    add("--checkpoint", "--checkpoint_path", metavar="FILE", nargs="+",
        help="generator weights, of several one table; default: those that ship, "
        "checkpoints/open.pth")
    add("--filelist", required=True, help="lines `audio_clip video_clip`, below DATA_ROOT")
    add("--data_root", required=True, help="folder of the clips")
    add("--out", default="results/eval", help="default %(default)s")
    add("--name", nargs="+", help="in the table, one for each checkpoint; default: its file's name")
    add("--limit", type=positive, help="only the first so many pairs")
    add("--mode", choices=tuple(MODES), default="faithful",
        help="frames of the released script, or of inference.py's defaults; default %(default)s")
    add("--protocol", choices=("lrs", "real"), default="lrs", help="of LSE; default %(default)s")
    add_detector_arguments(parser, default="sfd")
    add("--syncnet_weights", metavar="FILE", help=f"of LSE; default checkpoints/{SYNCNET.local}")
    add("--inception_weights", metavar="FILE",
        help="of FID; default: checkpoints/, else downloaded")
    add_metric_arguments(parser)
    add("--pads", nargs=4, type=int, default=[0, 0, 0, 0], metavar=SIDES)
    add("--wav2lip_batch_size", type=positive, default=128)
    add("--batch_size", type=positive, default=32, help="of the metrics' networks")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    add("--log_dir", metavar="DIR", help="add a line to DIR/evaluation/eval_results.log")
    # fmt: on
    return parser


def main(args: argparse.Namespace) -> None:
    from evaluation.report_text import write_report
    from lipsync.engine import LipSync
    from models.shipped import expert_path, generator_path

    checkpoints = [generator_path(path, "--checkpoint") for path in args.checkpoint or [None]]
    names = args.name or [os.path.basename(path) for path in checkpoints]
    if len(names) != len(checkpoints) or len(set(names)) < len(names):
        raise InputError(f"--name: {len(checkpoints)} checkpoints need a name of its own each")
    pairs = read_pairs(args.filelist)[: args.limit]
    require_some(pairs, args.data_root, args.data_root)
    args.expert = expert_path(args.expert)
    judges = load_judges(args)
    options = (args.device, args.detector, detector_options(args))
    generators = [LipSync(path, *options) for path in checkpoints]
    reports = []
    for name, path, lipsync in zip(names, checkpoints, generators, strict=True):
        one = len(names) == 1
        out = args.out if one else os.path.join(args.out, name.replace(os.sep, "_"))
        reports.append(evaluate(args, name, path, pairs, judges, lipsync, out))
        if not one:
            write_report(reports[-1:], out)
    print(write_report(reports, args.out))
    if args.log_dir:
        log_job(args.log_dir, "evaluation/eval_results.log", pairs=len(pairs), report=args.out)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
