"""Generated videos against the true ones, frame by frame.

    python -m evaluation.quality --real videos --generated results/videos --out results/eval \\
        --expert checkpoints/lipsync_expert.pth
    python -m evaluation.quality --real true.mp4 --generated made.mp4 --out results/eval

Files are paired by their place and name (without the ending) below the two folders, their frames by
time, at the generated video's rate. Writes <out>/quality.csv (a row a video), quality.json (means
over the videos) and quality.jsonl; a killed run continues. Most of a pasted frame is the true
frame, so the numbers of whole frames flatter; those of the mouth do not. A metric whose weights are
not there is left out and named. The metrics are those of evaluation/metrics.py.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from errors import InputError, require_file, run_cli
from evaluation.fid import list_videos, make_detector, same_size
from evaluation.metrics import (
    COLUMNS,
    Batch,
    Column,
    Identity,
    Metric,
    add_metric_arguments,
    load_metrics,
)
from evaluation.score_table import ScoreTable, format_scores
from face_detection.arguments import add_detector_arguments
from lipsync.options import natural, positive

BATCH_SIZE = 16
BATCH_PIXELS = 2**22  # of a batch's frames: SSIM holds some 200 bytes for each
MIN_SIDE = 32  # px: AlexNet halves a picture four times
COUNTED = {  # of every pair, without a metric
    "av_length_difference": Column("sound minus picture of the generated file, seconds"),
    "frames": Column("frames compared"),
    "faces": Column("of those, frames with a face"),
}


class QualityMeter:
    """Scores one pair of videos at a time with some metrics.

    detector: finds the faces in the true videos. shorter: frames by which a generated video may
    end early (the paper's test-set script drops the last mel window).
    """

    def __init__(self, detector, metrics: Sequence[Metric], shorter: int = 0) -> None:
        self.detector, self.metrics, self.shorter = detector, metrics, shorter
        self.columns = {n: c for metric in metrics for n, c in metric.columns.items()} | COUNTED

    @property
    def settings(self) -> dict:
        networks = {next(iter(m.columns)): m.label for m in self.metrics if m.label}
        settings = {"faces": self.detector.name, "shorter": self.shorter, "pairs": "by time"}
        own = {name: x for metric in self.metrics for name, x in metric.settings.items()}
        return settings | own | {"networks": networks}

    def score(self, truth: str, generated: str) -> dict[str, float | None]:
        """The row of one pair, None where nothing could be measured. InputError where the videos do
        not fit each other.
        """
        import torch

        from audio import load_wav
        from media.read import probe

        a, b = probe(truth), probe(generated)
        if (a.width, a.height) != (b.width, b.height):
            raise InputError(
                f"the true video has {a.width}x{a.height} pixels, the generated one "
                f"{b.width}x{b.height}"
            )
        if min(a.width, a.height) < MIN_SIDE:
            raise InputError(f"frames of {a.width}x{a.height} pixels are too small to judge")
        wav = None
        with contextlib.suppress(InputError):  # it has none
            wav = load_wav(generated)
        for metric in self.metrics:
            metric.start(wav, b.fps)
        found: dict[str, list[float]] = {name: [] for name in self.columns}
        frames = faces = 0
        size = max(1, min(BATCH_SIZE, BATCH_PIXELS // (a.width * a.height)))
        for batch in self._batches(truth, generated, b.fps, size):
            with torch.inference_mode():
                for metric in self.metrics:
                    for name, values in metric(batch).items():
                        found[name] += values
            frames += len(batch.truth)
            faces += sum(box is not None for box in batch.boxes)
        for name, values in found.items():
            if not np.isfinite(values).all():
                raise InputError(f"{name} is not a number; are its weights damaged?")
        row = {name: sum(x) / len(x) if x else None for name, x in found.items()}
        if wav is not None:
            row["av_length_difference"] = len(wav) / 16000 - frames / b.fps
        return row | {"frames": frames, "faces": faces}

    def _batches(self, truth: str, generated: str, fps: float, size: int) -> Iterator[Batch]:
        """Both videos in step. At one rate, by timestamp: that is what the generator was shown of a
        video whose frames come at uneven times. InputError where one video ends too early.
        """
        from face_detection.track import batched, track_faces
        from media.read import iter_frames

        true, made = (
            same_size(frame for _, frame in iter_frames(path, fps)) for path in (truth, generated)
        )
        both = itertools.zip_longest(track_faces(true, self.detector, size), made)
        done = 0
        for batch in batched(self._in_step(both), size):
            originals, boxes, pictures = zip(*batch, strict=True)
            yield Batch(np.stack(originals), np.stack(pictures), boxes, done)
            done += len(batch)

    def _in_step(self, both: Iterator[tuple]) -> Iterator[tuple]:
        """(true frame, box, generated frame) of ((true frame, box), generated frame)."""
        early = 0
        for count, (tracked, frame) in enumerate(both):
            if tracked is None:
                raise InputError(f"the generated video goes on after the true one's {count} frames")
            if frame is not None:
                yield *tracked, frame
                continue
            early += 1
            if early > self.shorter:
                allowed = f" (--shorter {self.shorter})" if self.shorter else ""
                raise InputError(
                    f"the generated video has {count + 1 - early} frames, the true one more than "
                    f"{count}{allowed}"
                )


def find_pairs(real: str, generated: str) -> list[tuple[str, tuple[str, str]]]:
    """(name, (true video, generated video)) of two files, or of the files of two folders that have
    one place and name without the ending.

    Generated files without a true one keep their place in the list, with a true video that does not
    exist, so that they show as skipped.
    """
    if not os.path.isdir(generated):
        key = os.path.splitext(os.path.basename(generated))[0]
        return [(key, (require_file(real, "--real"), require_file(generated, "--generated")))]
    if not os.path.isdir(real):
        raise InputError(f"--generated is a folder, and --real is not: {real}")

    def by_place(folder: str, flag: str) -> dict[str, str]:
        places: dict[str, str] = {}
        for path in list_videos([folder], flag):
            place = os.path.splitext(os.path.relpath(path, folder))[0]
            if places.setdefault(place, path) != path:
                raise InputError(f"{flag}: {places[place]} and {path} have one name; remove one")
        return places

    truths = by_place(real, "--real")
    return [
        (key, (truths.get(key, os.path.join(real, key)), path))
        for key, path in sorted(by_place(generated, "--generated").items())
    ]


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Generated videos against the true ones.",
        epilog="columns:\n" + "\n".join(f"  {n:21} {c}" for n, c in (COLUMNS | COUNTED).items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add("--real", required=True, help="true video, or a folder of them")
    add("--generated", required=True, help="generated video, or a folder with the same names")
    add("--out", required=True, help="folder of quality.csv, .json and .jsonl")
    add("--shorter", type=natural, default=0,
        help="frames by which a generated video may end early; default %(default)s")
    add_detector_arguments(parser, help="of the faces in the true videos")
    add_metric_arguments(parser)
    add("--identity_every", type=positive, default=Identity.settings["identity_every"], metavar="N",
        help="compare the identity of each N-th frame; default %(default)s")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    # fmt: on
    return parser


def main(args: argparse.Namespace) -> None:
    from models.shipped import expert_path

    pairs = find_pairs(args.real, args.generated)
    args.expert = expert_path(args.expert)
    metrics, missing = load_metrics(vars(args), args.device)
    for metric in metrics:
        if isinstance(metric, Identity):
            metric.settings = {"identity_every": args.identity_every}
    meter = QualityMeter(make_detector(args), metrics, args.shorter)
    table = ScoreTable(args.out, "quality", tuple(meter.columns), meter.settings)
    summary = table.run(pairs, meter.score)
    for left_out in missing:
        print("left out: {metric}: no {file} ({where})".format(**left_out), file=sys.stderr)
    for skipped in summary["skipped"]:
        print(f"skipped: {skipped['video']}: {skipped['reason']}", file=sys.stderr)
    if not summary["videos"]:
        raise InputError("no pair of videos could be compared; see the reasons above")
    print(*format_scores(summary, meter.columns), sep="\n")
    print(f"{summary['videos']} videos: {os.path.join(args.out, 'quality.csv')}")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
