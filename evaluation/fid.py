"""Frechet Inception Distance between the frames of real and of generated videos.

    python -m evaluation.fid --real real_videos --generated results/lrs2 --out results/eval
    python -m evaluation.fid --real real.txt --generated a.mp4 b.mp4 --out eval --region face

FID (Heusel et al., 2017) as pytorch-fid computes it: its network, its weights, its resizing. The
frames come straight from the videos, and their features equal those that pytorch-fid finds for the
same frames saved as PNG. The paper's numbers are over all frames of both sides, the default here.
A killed run continues; each side's statistics are kept until its videos change. Writes
<out>/fid.json, <out>/fid_real.npz and <out>/fid_generated.npz.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from errors import InputError, require_file, run_cli
from evaluation.frechet import FeatureStatistics, frechet_distance
from evaluation.inception import FEATURES, INPUT_SIZE, InceptionFeatures
from face_detection import create_detector
from face_detection.arguments import add_detector_arguments, detector_options
from lipsync.options import positive
from media.files import replacing, stamp, write_json

# torch, pytorch-fid and scipy are imported inside the functions, so that --help answers at once

SAVE_SECONDS = 60  # between two saves of a side's statistics, at the end of a video
DETECTION_BATCH = 16


@dataclass
class Side:
    """What is known of one side: statistics of its frames, and what was left out.

    done: videos that were gone through; seconds: that they took; faceless: frames without a face,
    left out where the region is the face; skipped: videos that could not be read (to the end), with
    the reason.
    """

    statistics: FeatureStatistics = field(default_factory=lambda: FeatureStatistics(FEATURES))
    done: int = 0
    seconds: float = 0.0
    faceless: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)

    def save(self, path: str, key: str) -> None:
        """Write a file of 34 MB that `load` takes up for the same key."""
        names = ("done", "seconds", "faceless", "skipped")
        record = {name: getattr(self, name) for name in names}
        with replacing(path, "wb") as file:
            np.savez(
                file,
                key=key,
                record=json.dumps(record),
                count=self.statistics.count,
                mean=self.statistics.mean,
                scatter=self.statistics.scatter,
            )

    @classmethod
    def load(cls, path: str, key: str) -> Side:
        """What was saved under `path`; an empty side where that is of another key or damaged."""
        side = cls()
        try:
            with np.load(path, allow_pickle=False) as saved:
                if str(saved["key"]) != key:
                    return side
                record = json.loads(str(saved["record"]))
                side.statistics.count = int(saved["count"])
                side.statistics.mean, side.statistics.scatter = saved["mean"], saved["scatter"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return cls()
        for name, value in record.items():
            setattr(side, name, value)
        return side


def fid(
    real: Sequence[str | os.PathLike],
    generated: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    inception: InceptionFeatures,
    detector=None,
    every: int = 1,
    batch_size: int = 50,
    progress: bool = False,
) -> dict:
    """FID of two sets of videos, with the protocol and the counts; also in <out>/fid.json.

    detector: compares the best face's box of each frame instead of whole frames. every: takes each
    n-th frame of a video. A video that cannot be read is left out and named. InputError where fewer
    than two frames of a side are left.
    """
    protocol = {
        "features": f"pytorch-fid {importlib.metadata.version('pytorch-fid')}, pool {FEATURES}",
        "weights": inception.label,
        "resize": f"bilinear to {INPUT_SIZE}x{INPUT_SIZE} without antialiasing",
        "region": "frame" if detector is None else "face",
        "detector": None if detector is None else detector.name,
        "every": every,
    }
    os.makedirs(out, exist_ok=True)
    sides, result = [], {"fid": None, "protocol": protocol}
    for name, videos in (("real", real), ("generated", generated)):
        cache = os.path.join(out, f"fid_{name}.npz")
        side = _gather(name, videos, cache, protocol, inception, detector, batch_size, progress)
        if side.statistics.count < 2:
            reasons = [f" ({skipped['reason']})" for skipped in side.skipped[:1]]
            what = "frames" if detector is None else "faces"
            raise InputError(f"the {name} side has fewer than two {what}{''.join(reasons)}")
        sides.append(side.statistics)
        result[name] = {
            "videos": side.done - len(side.skipped),
            "frames": side.statistics.count,
            "seconds": side.seconds,
            "faceless": side.faceless,
            "skipped": side.skipped,
        }
    a, b = sides
    result["fid"] = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    result["warning"] = None
    if min(a.count, b.count) < FEATURES:
        result["warning"] = (
            f"fewer than {FEATURES} frames on a side: its covariance is singular and FID too high; "
            "compare only with numbers from as many frames"
        )
    write_json(os.path.join(out, "fid.json"), result, indent=2)
    return result


def _gather(
    name: str,
    videos: Sequence[str | os.PathLike],
    cache: str,
    protocol: dict,
    inception: InceptionFeatures,
    detector,
    batch_size: int,
    progress: bool,
) -> Side:
    """One side, from where a killed run left off."""
    from tqdm import tqdm

    from face_detection.track import batched

    stamps = [[os.path.abspath(video), *(stamp(video) or ())] for video in videos]
    key = json.dumps([protocol, stamps])
    side, saved = Side.load(cache, key), time.monotonic()
    waiting = tqdm(
        itertools.islice(videos, side.done, None),
        desc=name,
        unit="video",
        initial=side.done,
        total=len(videos),
        disable=not (progress and sys.stderr.isatty()),
    )
    for video in waiting:
        began = time.monotonic()
        try:
            for batch in batched(_pictures(video, protocol["every"], detector, side), batch_size):
                side.statistics.update(inception(batch))
        except InputError as error:
            side.skipped.append({"video": os.fspath(video), "reason": str(error)})
        side.done += 1
        side.seconds = round(side.seconds + time.monotonic() - began, 3)
        if side.done == len(videos) or time.monotonic() - saved > SAVE_SECONDS:
            side.save(cache, key)
            saved = time.monotonic()
    return side


def _pictures(video: str | os.PathLike, every: int, detector, side: Side) -> Iterator[np.ndarray]:
    """Each `every`-th frame of a video, or the face in it; counts those without one."""
    from face_detection.track import track_faces
    from media.read import iter_frames

    frames = (frame for _, frame in itertools.islice(iter_frames(video), 0, None, every))
    if detector is None:
        yield from frames
        return
    for frame, box in track_faces(frames, detector, DETECTION_BATCH):
        if box is None:
            side.faceless += 1
        else:
            x1, y1, x2, y2 = box
            yield frame[y1:y2, x1:x2]


def list_videos(paths: Sequence[str], flag: str) -> list[str]:
    """The videos that an option names: videos, folders of them, .txt files with a path a line."""
    from corpus.listing import find_videos

    videos = []
    for path in paths:
        if os.path.isdir(path) or path.lower().endswith(".txt"):
            videos += [video for _, video in find_videos(path)]
        else:
            videos.append(require_file(path, flag))
    return videos


def get_args_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Frechet Inception Distance between the frames of real and generated videos."
    )
    add = parser.add_argument
    # fmt: off
    add("--real", nargs="+", required=True,
        help="videos, folders of videos, .txt files with a path a line")
    add("--generated", nargs="+", required=True, help="the same for what was generated")
    add("--out", required=True, help="folder of fid.json and of the statistics")
    add("--inception_weights", help="pytorch-fid's weights; default: checkpoints/, else downloaded")
    add("--region", choices=("frame", "face"), default="frame",
        help="what of a frame is compared; the paper's numbers: %(default)s")
    add_detector_arguments(parser, help="of the faces, with --region face")
    add("--every", type=positive, default=1, help="take each n-th frame; default all")
    add("--batch_size", type=positive, default=50)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    # fmt: on
    return parser


def make_detector(args: argparse.Namespace):
    """The face detector that its flags and --device ask for."""
    from models.device import select_device

    return create_detector(args.detector, str(select_device(args.device)), **detector_options(args))


def main(args: argparse.Namespace) -> None:
    """Print the distance and say what it rests on."""
    real, generated = list_videos(args.real, "--real"), list_videos(args.generated, "--generated")
    detector = make_detector(args) if args.region == "face" else None
    inception = InceptionFeatures(args.inception_weights, args.device)
    result = fid(
        real, generated, args.out, inception, detector, args.every, args.batch_size, progress=True
    )
    for name in ("real", "generated"):
        for skipped in result[name]["skipped"]:
            print(f"left out: {skipped['video']}: {skipped['reason']}", file=sys.stderr)
    if result["warning"]:
        print(f"warning: {result['warning']}", file=sys.stderr)
    frames = f"{result['real']['frames']} real, {result['generated']['frames']} generated frames"
    print(f"FID {result['fid']:.4f} ({frames}; region: {args.region})")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
