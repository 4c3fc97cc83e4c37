"""Generated videos against the true ones, frame by frame.

    python -m evaluation.quality --real videos --generated results/videos --out results/eval \\
        --expert checkpoints/lipsync_expert.pth
    python -m evaluation.quality --real true.mp4 --generated made.mp4 --out results/eval

Files are paired by their place and name (without the ending) below the two folders. Writes
<out>/quality.csv (a row a video), quality.json (means over the videos) and quality.jsonl; a killed
run continues.

    psnr, ssim, lpips                    whole frames; dB (at most 100), 0..1, 0 = equal
    psnr_mouth, ssim_mouth, l1_mouth     lower half of the true video's face box; l1 in grey levels
    temporal       change of the error from frame to frame in the face box, in grey levels
    identity       cosine of face embeddings (SFace) of true and generated faces
    lsd            1 - cosine of a lip-sync expert's embeddings of generated lips and sound (0..1)
    av_length_difference                 sound minus picture of the generated file, seconds

Most of a pasted frame is the true frame, so the numbers of whole frames flatter; those of the mouth
do not. A metric whose weights are not there is left out and named.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from errors import InputError, require_file, run_cli
from evaluation.fid import list_videos, make_detector
from evaluation.quality_networks import available_metrics
from evaluation.score_table import ScoreTable
from face_detection.arguments import add_detector_arguments
from lipsync.options import natural, positive

# torch, lpips and torchmetrics are imported inside the functions, so that --help answers at once

BATCH_SIZE = 16
BATCH_PIXELS = 2**22  # of a batch's frames: SSIM holds some 200 bytes for each
MIN_SIDE = 32  # px: AlexNet halves a picture four times
EXPERT_FPS = 25.0
ALWAYS = (
    *("psnr", "ssim", "psnr_mouth", "ssim_mouth", "l1_mouth", "temporal"),
    *("av_length_difference", "frames", "faces"),
)

Pair = tuple[str, str, str]  # key, true video, generated video


class QualityMeter:
    """All metrics of one pair of videos at a time.

    detector: finds the faces in the true videos. networks: see available_metrics. shorter: frames
    by which a generated video may end early (the paper's test-set script drops the last mel
    window); those that both have are compared. identity_every: frames between two looks at it.
    """

    def __init__(
        self,
        detector,
        networks: Mapping[str, object] | None = None,
        shorter: int = 0,
        identity_every: int = 5,
        device: str = "auto",
    ) -> None:
        from models.device import select_device

        self.device, self.detector = select_device(device), detector
        self.networks, self.shorter = dict(networks or {}), shorter
        self.identity_every = identity_every

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the scores, those of networks that are there included."""
        return (*ALWAYS, *(name for name in ("lpips", "identity", "lsd") if name in self.networks))

    @property
    def settings(self) -> dict:
        """What the scores depend on, for a ScoreTable."""
        from media.difference import PSNR_LIMIT

        return {
            "faces": self.detector.name,
            "shorter": self.shorter,
            "identity_every": self.identity_every,
            "psnr_limit": PSNR_LIMIT,
            "networks": {name: network.label for name, network in self.networks.items()},
        }

    def score(self, truth: str, generated: str) -> dict[str, float | None]:
        """The row of one pair, None where nothing could be measured. `frames` are those compared,
        `faces` those with a face. InputError where the videos do not fit each other.
        """
        from media.read import probe

        a, b = probe(truth), probe(generated)
        if (a.width, a.height) != (b.width, b.height):
            raise InputError(
                f"the true video has {a.width}x{a.height} pixels, the generated one "
                f"{b.width}x{b.height}"
            )
        if abs(a.fps - b.fps) > 0.01 * a.fps:
            raise InputError(f"the true video has {a.fps:g} fps, the generated one {b.fps:g}")
        if min(a.width, a.height) < MIN_SIDE:
            raise InputError(f"frames of {a.width}x{a.height} pixels are too small to judge")
        wav = _sound(generated)
        metrics = self._metrics(wav, b.fps)
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        row: dict[str, float | None] = dict.fromkeys(self.columns)
        frames = faces = 0
        for batch in self._batches(truth, generated):
            for metric in metrics:
                for name, values in metric(batch).items():
                    sums[name][0] += sum(values)
                    sums[name][1] += len(values)
            frames += len(batch.truth)
            faces += sum(box is not None for box in batch.boxes)
        for name, (total, count) in sums.items():
            if not math.isfinite(total):
                raise InputError(f"{name} is not a number; are its weights damaged?")
            row[name] = total / count if count else None
        if wav is not None:
            row["av_length_difference"] = len(wav) / 16000 - frames / b.fps
        return row | {"frames": frames, "faces": faces}

    def _metrics(self, wav: np.ndarray | None, fps: float) -> list:
        from audio import melspectrogram
        from evaluation.quality_metrics import Identity, Mouth, Picture, SyncDistance, Temporal

        lpips, recognizer, expert = (self.networks.get(n) for n in ("lpips", "identity", "lsd"))
        metrics = [Picture(self.device, lpips), Mouth(self.device), Temporal()]
        if recognizer is not None:
            metrics.append(Identity(recognizer, self.identity_every))
        # the expert knows windows of five frames at 25 fps and nothing else
        if expert is not None and wav is not None and abs(fps - EXPERT_FPS) < 0.01:
            metrics.append(SyncDistance(expert.model, melspectrogram(wav).T))
        return metrics

    def _batches(self, truth: str, generated: str) -> Iterator:
        """Both videos in step; InputError at their ends where their lengths differ too much."""
        from evaluation.quality_metrics import Batch
        from face_detection.track import batched, track_faces
        from media.read import iter_frames, probe

        info = probe(truth)
        size = max(1, min(BATCH_SIZE, BATCH_PIXELS // (info.width * info.height)))
        frames = (frame for _, frame in iter_frames(truth))
        true = track_faces(frames, self.detector, size)
        made = (frame for _, frame in iter_frames(generated))
        done = 0
        for batch in batched(self._in_step(true, made), size):
            tracked, pictures = zip(*batch, strict=True)
            originals, boxes = zip(*tracked, strict=True)
            yield Batch(np.stack(originals), np.stack(pictures), boxes, done)
            done += len(batch)

    def _in_step(self, true: Iterator, made: Iterator[np.ndarray]) -> Iterator[tuple]:
        """((true frame, box), generated frame); InputError where one video ends too early."""
        early = 0
        for count, (tracked, frame) in enumerate(itertools.zip_longest(true, made)):
            if tracked is None:
                raise InputError(f"the generated video goes on after the true one's {count} frames")
            early += frame is None
            if early > self.shorter:
                raise InputError(
                    f"the generated video has {count + 1 - early} frames, the true one more than "
                    f"{count}" + (f" (--shorter {self.shorter})" if self.shorter else "")
                )
            if frame is not None:
                yield tracked, frame


def _sound(path: str) -> np.ndarray | None:
    """A video's sound at 16 kHz, from its first frame on; None where it has none."""
    from audio import load_wav

    try:
        return load_wav(path)
    except InputError:
        return None


def score_pairs(
    pairs: Sequence[Pair], meter: QualityMeter, table: ScoreTable, progress: bool = False
) -> dict:
    """Score what `table` does not have yet and return its summary over `pairs`.

    table: of meter.columns and meter.settings. Pairs that do not fit are skipped with the reason.
    """
    from tqdm import tqdm

    quiet = not (progress and sys.stderr.isatty())
    for key, truth, generated in tqdm(pairs, unit="video", disable=quiet):
        files = [truth, generated]
        if table.has(key, files):
            continue
        try:
            row = meter.score(truth, generated)
        except InputError as error:
            table.skip(key, files, str(error))
        else:
            table.add(key, files, row)
    return table.finish([key for key, _, _ in pairs])


def find_pairs(real: str, generated: str) -> list[Pair]:
    """Two files, or the files of two folders that have one place and name without the ending.

    Generated files without a true one keep their place in the list, with a true video that does not
    exist, so that they show as skipped.
    """
    if not os.path.isdir(generated):
        key = os.path.splitext(os.path.basename(generated))[0]
        return [(key, require_file(real, "--real"), require_file(generated, "--generated"))]
    if not os.path.isdir(real):
        raise InputError(f"--generated is a folder, and --real is not: {real}")

    def by_place(folder: str, flag: str) -> dict[str, str]:
        return {
            os.path.splitext(os.path.relpath(path, folder))[0]: path
            for path in list_videos([folder], flag)
        }

    truths = by_place(real, "--real")
    return [
        (key, truths.get(key, os.path.join(real, key)), path)
        for key, path in sorted(by_place(generated, "--generated").items())
    ]


def get_args_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Generated videos against the true ones.")
    add = parser.add_argument
    # fmt: off
    add("--real", required=True, help="true video, or a folder of them")
    add("--generated", required=True, help="generated video, or a folder with the same names")
    add("--out", required=True, help="folder of quality.csv, .json and .jsonl")
    add("--shorter", type=natural, default=0,
        help="frames by which a generated video may end early; default %(default)s")
    add_detector_arguments(parser, help="of the faces in the true videos")
    add("--expert", help="SyncNet_color checkpoint, for lsd")
    add("--lpips_weights", help="torchvision's AlexNet; default: checkpoints/, else downloaded")
    add("--sface_weights", help="SFace of the OpenCV zoo, for identity; default: checkpoints/")
    add("--identity_every", type=positive, default=5, metavar="N",
        help="compare the identity of each N-th frame; default %(default)s")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    # fmt: on
    return parser


def main(args: argparse.Namespace) -> None:
    """Print the means, what was skipped and what was left out."""
    pairs = find_pairs(args.real, args.generated)
    networks, missing = available_metrics(
        args.lpips_weights, args.sface_weights, args.expert, args.device
    )
    meter = QualityMeter(
        make_detector(args), networks, args.shorter, args.identity_every, args.device
    )
    table = ScoreTable(args.out, "quality", meter.columns, meter.settings)
    summary = score_pairs(pairs, meter, table, progress=True)
    for left_out in missing:
        print("left out: {metric}: no {file} ({where})".format(**left_out), file=sys.stderr)
    for skipped in summary["skipped"]:
        print(f"skipped: {skipped['video']}: {skipped['reason']}", file=sys.stderr)
    if not summary["videos"]:
        raise InputError("no pair of videos could be compared; see the reasons above")
    for name, score in summary["scores"].items():
        print(f"{name:22} {'-' if score is None else format(score['mean'], '.4f')}")
    print(f"{summary['videos']} videos: {os.path.join(args.out, 'quality.csv')}")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
