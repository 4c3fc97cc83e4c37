"""Seconds that each evaluation metric takes for a minute of video: `python benchmark.py eval`."""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import tempfile
from collections.abc import Callable

from benchmarks.common import (
    CYCLE,
    best_times,
    circumstances,
    headline,
    number,
    print_table,
    random_checkpoint,
    require_writable,
    write_report,
)
from errors import InputError, require_file
from face_detection.arguments import add_detector_arguments, detector_options
from lipsync.options import positive

# torch, OpenCV and the networks are imported inside the functions, so that --help answers at once

FLAGS = {
    "syncnet": "--syncnet_weights",
    "expert": "--expert",
    "inception": "--inception_weights",
    "lpips": "--lpips_weights",
    "sface": "--sface_weights",
    "generator": "--checkpoint_path",
}
FID, FID_DISTANCE = "FID", "FID, distance"
QUALITY = "PSNR, SSIM, mouth, temporal"
Step = Callable[[], object]
Key = tuple[str, str | None]  # metric, its network


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    # fmt: off
    add = parser.add_argument
    add("--videos", nargs="+", metavar="PATH",
        help="videos with sound, folders of them, .txt lists; default: synthetic, 8 s each")
    add("--clips", type=positive, default=2, help="synthetic videos; default %(default)s")
    add("--random_weights", action="store_true",
        help="random weights where no file is named: for the time, the scores mean nothing")
    add("--syncnet_weights", metavar="FILE", help="SyncNet v2, for LSE")
    add("--expert", metavar="FILE", help="a SyncNet_color, for its sync scores and LSD")
    add("--inception_weights", metavar="FILE", help="pytorch-fid's Inception, for FID")
    add("--lpips_weights", metavar="FILE", help="torchvision's AlexNet, for LPIPS")
    add("--sface_weights", metavar="FILE", help="SFace, for identity; never random")
    add("--checkpoint_path", metavar="FILE", help="generator, for the generation of the test set")
    add_detector_arguments(parser)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    add("--repeats", type=positive, default=1, help="the best one counts; default %(default)s")
    add("--json", metavar="FILE", help="write the figures there too")
    # fmt: on


def eval_benchmark(args: argparse.Namespace) -> None:
    """Print the table: a row for each metric whose network is there."""
    require_writable(args.json)
    with tempfile.TemporaryDirectory() as folder:
        files, drawn = find_files(args, folder)
        if not files:
            raise InputError("no weights: name some, or give --random_weights")
        videos = find_clips(args, folder)
        minutes = sum(map(length, videos)) / 60
        facts = circumstances()
        took, missing = measure(videos, files, args, folder)
    rows = as_rows(took, minutes, drawn)
    what = f"evaluation, {len(videos)} videos, {60 * minutes:.1f} s, {args.detector}"
    print(headline(what, facts))
    table = [(r["metric"], r["weights"], number(r["seconds_per_minute"])) for r in rows]
    print_table(("metric", "weights", "s a minute"), table)
    print(
        "s a minute: seconds of work for a minute of video, decoding included. Random weights: the "
        "time is the same, the scores mean nothing."
    )
    distance = took.get((FID_DISTANCE, "inception"))
    if distance is not None:
        print(
            f"FID: of one side; the distance takes {number(distance)} s more, whatever the length."
        )
    for reason in missing:
        print(f"left out: {reason}")
    settings = {"videos": len(videos), "video_seconds": 60 * minutes, "detector": args.detector}
    content = {"settings": settings, "metrics": rows, "fid_distance_seconds": distance}
    write_report(args.json, facts, content | {"left_out": missing})


def as_rows(took: dict[Key, float], minutes: float, drawn: set[str]) -> list[dict]:
    """drawn: the networks whose weights are random."""
    rows = []
    for (metric, network), seconds in took.items():
        if metric == FID_DISTANCE:
            continue
        if metric == FID:  # of both sides, and the distance
            seconds = max(0.0, seconds - took[FID_DISTANCE, network]) / 2
        weights = "none needed" if network is None else "random" if network in drawn else "given"
        row = {"metric": metric, "weights": weights, "seconds": seconds}
        rows.append(row | {"seconds_per_minute": seconds / minutes})
    return rows


def length(video: str) -> float:
    """Seconds of a video; InputError where it cannot be read."""
    from media.read import count_frames, probe

    fps = probe(video).fps
    return count_frames(video, fps) / fps


def find_clips(args: argparse.Namespace, folder: str) -> list[str]:
    """The user's videos, or synthetic ones."""
    from evaluation.fid import list_videos
    from synthetic.corpus import VIDEO_DIR, clip_name, write_clip

    if args.videos:
        return list(dict.fromkeys(list_videos(args.videos, "--videos")))
    for speaker in range(args.clips):
        write_clip(folder, 0, speaker, 1, CYCLE, (256,))
    names = (f"{clip_name(speaker, 1)}.mp4" for speaker in range(args.clips))
    return [os.path.join(folder, VIDEO_DIR, name) for name in names]


def find_files(args: argparse.Namespace, folder: str) -> tuple[dict[str, str], set[str]]:
    """(network -> its file, networks with random weights): the file that is named, else the one
    in checkpoints/, else with --random_weights a made one. Nothing is downloaded.
    """
    from evaluation.identity import SFACE
    from evaluation.inception import INCEPTION
    from evaluation.quality_networks import ALEXNET
    from models.pretrained import CHECKPOINTS

    names = {
        "syncnet": "syncnet_v2.model",
        "inception": INCEPTION.name,
        "lpips": ALEXNET.name,
        "sface": SFACE.name,
    }
    make: dict[str, Callable[[str], object]] = {
        "syncnet": functools.partial(random_checkpoint, name="SyncNet_v2"),
        "expert": functools.partial(random_checkpoint, name="SyncNet_color"),
        "generator": functools.partial(random_checkpoint, name="Wav2Lip"),
        "inception": random_inception,
        "lpips": random_alexnet,
    }
    files, drawn = {}, set()
    for network, flag in FLAGS.items():
        named, usual = getattr(args, flag.lstrip("-")), CHECKPOINTS / names.get(network, "")
        if named:
            files[network] = require_file(named, flag)
        elif usual.is_file():
            files[network] = str(usual)
        elif args.random_weights and network in make:
            files[network] = os.path.join(folder, f"random_{network}.pth")
            make[network](files[network])
            drawn.add(network)
    return files, drawn


def random_inception(path: str) -> None:
    """pytorch-fid's network as a file, with random weights: its own constructor downloads them."""
    import torch
    from pytorch_fid import inception as package
    from torchvision.models import inception_v3

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = inception_v3(num_classes=1008, aux_logits=False, init_weights=False)
        network.Mixed_5b = package.FIDInceptionA(192, pool_features=32)
        network.Mixed_5c = package.FIDInceptionA(256, pool_features=64)
        network.Mixed_5d = package.FIDInceptionA(288, pool_features=64)
        for place, channels in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            setattr(network, f"Mixed_{place}", package.FIDInceptionC(768, channels_7x7=channels))
        network.Mixed_7b = package.FIDInceptionE_1(1280)
        network.Mixed_7c = package.FIDInceptionE_2(2048)
    torch.save(network.state_dict(), path)


def random_alexnet(path: str) -> None:
    """torchvision's AlexNet as a file, with random weights."""
    import torch
    from torchvision.models import alexnet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(alexnet().state_dict(), path)


class Metrics:
    """The steps to be timed: each makes its networks at once and is then called for the videos.

    files: see find_files. folder: for what is written.
    """

    def __init__(
        self, videos: list[str], files: dict[str, str], args: argparse.Namespace, folder: str
    ) -> None:
        self.videos, self.files, self.args = videos, files, args
        self.folders = (os.path.join(folder, f"out{index}") for index in itertools.count())
        self.fid_folder = ""

    def detector(self):
        from evaluation.fid import make_detector

        return make_detector(self.args)

    def sync(self, file: str, protocol: str) -> Step:
        """Scores of evaluation/scores_LSE.py."""
        from evaluation.scores_LSE import SyncScorer, needs_detector
        from experts.offset import load_expert

        expert = load_expert(self.files[file], self.args.device)
        detector = self.detector() if needs_detector(expert, protocol) else None
        scorer = SyncScorer(expert, protocol, detector)
        return lambda: [scorer.score_video(video) for video in self.videos]

    def quality(self, metric: str | None = None) -> Step:
        """What evaluation/quality.py measures without a network, and one metric with one. Each
        video is compared with itself: the time is that of any pair.
        """
        from evaluation.identity import FaceRecognizer
        from evaluation.quality import QualityMeter
        from evaluation.quality_networks import load_lpips, load_sync_expert

        device, networks = self.args.device, {}
        if metric == "lpips":
            networks = {metric: load_lpips(self.files["lpips"], device)}
        elif metric == "identity":
            networks = {metric: FaceRecognizer(self.files["sface"])}
        elif metric == "lsd":
            networks = {metric: load_sync_expert(self.files["expert"], device)}
        meter = QualityMeter(self.detector(), networks, device=device)
        return lambda: [meter.score(video, video) for video in self.videos]

    def fid(self, known: bool) -> Step:
        """FID of the videos and themselves. known: in the folder of the step before, which holds
        both sides' features, so that the distance remains.
        """
        from evaluation.fid import fid
        from evaluation.inception import InceptionFeatures

        inception = InceptionFeatures(self.files["inception"], self.args.device)

        def measure_fid() -> None:
            self.fid_folder = self.fid_folder if known else next(self.folders)
            fid(self.videos, self.videos, self.fid_folder, inception)

        return measure_fid

    def generation(self) -> Step:
        """The unpaired test set's protocol, each video with its own sound."""
        from evaluation.gen_videos_from_filelist import FPS, generate_pairs
        from evaluation.pairs import Pair
        from lipsync.engine import LipSync

        args, options = self.args, detector_options(self.args)
        lipsync = LipSync(self.files["generator"], args.device, args.detector, options)
        paths = [os.path.abspath(video) for video in self.videos]
        pairs = [Pair(index, path, path) for index, path in enumerate(paths)]
        protocol = {"faithful": True, "drop_last": True, "video_fps": FPS, "pads": (0, 0, 0, 0)}

        def generate() -> None:
            made = generate_pairs(lipsync, pairs, "/", next(self.folders), {}, **protocol)
            for skipped in made["skipped"]:
                raise InputError(f"{skipped['video']}: {skipped['reason']}")

        return generate


def measure(
    videos: list[str], files: dict[str, str], args: argparse.Namespace, folder: str
) -> tuple[dict[Key, float], list[str]]:
    """(metric -> seconds for all videos, what is left out and why)."""
    metrics, steps, missing = Metrics(videos, files, args, folder), {}, []
    wanted: tuple[tuple[str, str | None, Callable[[], Step]], ...] = (
        ("LSE, protocol lrs", "syncnet", lambda: metrics.sync("syncnet", "lrs")),
        ("LSE, protocol real", "syncnet", lambda: metrics.sync("syncnet", "real")),
        ("sync by expert, lrs", "expert", lambda: metrics.sync("expert", "lrs")),
        (FID, "inception", lambda: metrics.fid(known=False)),
        (FID_DISTANCE, "inception", lambda: metrics.fid(known=True)),
        (QUALITY, None, metrics.quality),
        (f"{QUALITY}; LPIPS", "lpips", lambda: metrics.quality("lpips")),
        (f"{QUALITY}; identity", "sface", lambda: metrics.quality("identity")),
        (f"{QUALITY}; LSD", "expert", lambda: metrics.quality("lsd")),
        ("generation", "generator", metrics.generation),
    )
    for name, file, make in wanted:
        if file is None or file in files:
            steps[name, file] = make()
        elif name != FID_DISTANCE:
            never = ", never random" if file == "sface" else ""
            missing.append(f"{name}: no weights ({FLAGS[file]}{never})")
    return best_times(steps, args.repeats, "metrics"), missing
