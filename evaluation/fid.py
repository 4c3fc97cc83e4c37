"""Frechet Inception Distance between the frames of real and of generated videos.

    python -m evaluation.fid --real real_videos --generated results/lrs2 --out results/eval
    python -m evaluation.fid --real real.txt --generated a.mp4 b.mp4 --out eval --region face

FID (Heusel et al., 2017) as pytorch-fid computes it: its network, its weights, its resizing; sums
in float64. The frames come straight from the videos, and their features equal those that
pytorch-fid finds for the same frames saved as PNG. The paper's numbers are over all frames of both
sides, the default here. A killed run continues; each side's sums are kept until its videos change.
Writes <out>/fid.json, <out>/fid_real.npz and <out>/fid_generated.npz.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import itertools
import json
import os
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from errors import InputError, require_file, run_cli
from face_detection import create_detector
from face_detection.arguments import add_detector_arguments, detector_options
from lipsync.options import positive
from media.files import file_label, replacing, stamp, write_json
from models.pretrained import Weights

FEATURES = 2048  # of the final average pooling
INPUT_SIZE = 299  # px: the side of the network's input
SAVE_SECONDS = 60  # between two saves of a side's sums, at the end of a video
DETECTION_BATCH = 16
INCEPTION = Weights(
    "Inception",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "--inception_weights",
)


class InceptionFeatures:
    """pytorch-fid's network. weights: path of its file; by default see Weights.find. InputError
    where there is none, or another model's.
    """

    def __init__(self, weights: str | os.PathLike | None = None, device: str = "auto") -> None:
        from models.device import select_device

        self.device = select_device(device)
        path = INCEPTION.find(weights)
        self.label = file_label(path)
        self.network = load_inception(path).to(self.device)

    def __call__(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 BGR frames (H, W, 3), of any sizes -> float64 (N, 2048)."""
        import torch

        from media.difference import picture_tensor

        size = {"size": (INPUT_SIZE, INPUT_SIZE), "mode": "bilinear", "align_corners": False}
        with torch.inference_mode():
            # resized one by one, so that sizes may differ; the network's own resizing of
            # 299 x 299 then changes nothing
            pictures = (picture_tensor(frame[None], self.device) / 255 for frame in frames)
            resized = [torch.nn.functional.interpolate(picture, **size) for picture in pictures]
            features = self.network(torch.cat(resized))[0].flatten(1).double().cpu()  # (N, 2048)
        if not features.isfinite().all():
            raise InputError(f"Inception's features are not numbers; {self.label} is damaged")
        return features.numpy()


def load_inception(path: str | os.PathLike):
    """pytorch-fid's InceptionV3 with the weights of `path`, in eval mode on the CPU."""
    from unittest.mock import patch

    from pytorch_fid import inception

    from models.checkpoint import read_checkpoint

    state = read_checkpoint(path)["state_dict"]  # tensors and nothing else
    try:  # the constructor downloads its weights, by a load that would run code
        with patch.object(inception, "load_state_dict_from_url", return_value=state):
            block = inception.InceptionV3.BLOCK_INDEX_BY_DIM[FEATURES]
            return inception.InceptionV3([block]).eval()
    except RuntimeError as error:
        url = INCEPTION.url
        raise InputError(f"{path} is not pytorch-fid's Inception; that is {url}") from error


def sums_of(rows: np.ndarray) -> dict[str, np.ndarray]:
    """What mean and covariance of feature rows (N, D) follow from; sums of parts can be `added`."""
    return {"count": np.array(len(rows)), "sum": rows.sum(0), "outer": rows.T @ rows}


def added(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: one[name] + other[name] for name in one}


def frechet_distance(*sides: dict[str, np.ndarray]) -> float:
    """Of the normal distributions with the means and covariances of two sides' sums."""
    means = [side["sum"] / side["count"] for side in sides]
    one, other = (
        (side["outer"] - side["count"] * np.outer(mean, mean)) / (side["count"] - 1)
        for side, mean in zip(sides, means, strict=True)
    )
    shift = means[0] - means[1]
    # the trace of the root of a product that need not be symmetric, nor of full rank
    root = np.sqrt(np.linalg.eigvals(one @ other).astype(complex)).real.sum()
    return max(0.0, float(shift @ shift + np.trace(one + other) - 2 * root))  # rounding goes below


def fid(
    real: Sequence[str | os.PathLike],
    generated: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    inception: InceptionFeatures,
    detector=None,
    every: int = 1,
    batch_size: int = 50,
    progress: bool = False,
    real_out: str | os.PathLike | None = None,
) -> dict:
    """FID of two sets of videos, with the protocol and the counts; also in <out>/fid.json.

    detector: compares the best face's box of each frame instead of whole frames. every: takes each
    n-th frame of a video. real_out: folder of the real side's sums, which several generated sides
    may share. A video that cannot be read to its end is left out and named. InputError where fewer
    than two frames of a side are left.
    """
    from face_detection.track import batched

    protocol = {
        "features": f"pytorch-fid {importlib.metadata.version('pytorch-fid')}, pool {FEATURES}",
        "weights": inception.label,
        "resize": f"bilinear to {INPUT_SIZE}x{INPUT_SIZE} without antialiasing",
        "region": "frame" if detector is None else "face",
        "detector": None if detector is None else detector.name,
        "every": every,
    }
    sides, result = [], {"fid": None, "protocol": protocol}

    def features(video: str | os.PathLike) -> Iterator[tuple[np.ndarray, int]]:
        """Of a video's batches, with the number of frames that have no face."""
        for batch in batched(_pictures(video, every, detector), batch_size):
            shown = [picture for picture in batch if picture is not None]
            rows = inception(shown) if shown else np.zeros((0, FEATURES))
            yield rows, len(batch) - len(shown)

    for name, videos, folder in (("real", real, real_out or out), ("generated", generated, out)):
        os.makedirs(folder, exist_ok=True)
        cache = os.path.join(folder, f"fid_{name}.npz")
        sums, record = _gather(videos, cache, protocol, features, progress and name)
        frames, done = int(sums["count"]), record.pop("done")
        if frames < 2:
            reason = "".join(f" ({skipped['reason']})" for skipped in record["skipped"][:1])
            what = "frames" if detector is None else "faces"
            raise InputError(f"the {name} side has fewer than two {what}{reason}")
        result[name] = {"videos": done - len(record["skipped"]), "frames": frames, **record}
        sides.append(sums)
    result["fid"] = frechet_distance(*sides)
    result["warning"] = None if min(side["count"] for side in sides) >= FEATURES else (
        f"fewer than {FEATURES} frames on a side: its covariance is singular and FID too high; "
        "compare only with numbers from as many frames"
    )  # fmt: skip
    write_json(os.path.join(out, "fid.json"), result, indent=2)
    return result


def _gather(
    videos: Sequence[str | os.PathLike], cache: str, protocol: dict, features: Callable, bar: str
) -> tuple[dict, dict]:
    """The sums of one side's videos, and the record of it: the videos gone through ("done") and the
    "seconds" that they took; "faceless" frames; "skipped" videos with the reason. Both are kept in
    `cache` (34 MB), and gone on from. bar: its name, on a terminal; "": none.
    """
    from tqdm import tqdm

    stamps = [[os.path.abspath(video), *(stamp(video) or ())] for video in videos]
    key, saved = json.dumps([protocol, stamps]), time.monotonic()
    nothing = sums = sums_of(np.zeros((0, FEATURES)))
    record = {"done": 0, "seconds": 0.0, "faceless": 0, "skipped": []}
    with (
        contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),
        np.load(cache, allow_pickle=False) as file,  # there may be none, or a damaged one
    ):
        if str(file["key"]) == key:
            sums, record = {n: file[n] for n in sums}, json.loads(str(file["record"]))
    left, quiet = itertools.islice(videos, record["done"], None), None if bar else True
    for video in tqdm(left, bar, len(videos), unit="video", disable=quiet, initial=record["done"]):
        began, own, faceless = time.monotonic(), nothing, 0
        try:
            for rows, without in features(video):
                own, faceless = added(own, sums_of(rows)), faceless + without
            sums, record["faceless"] = added(sums, own), record["faceless"] + faceless
        except InputError as error:  # a video that is left out leaves nothing behind
            record["skipped"].append({"video": os.fspath(video), "reason": str(error)})
        record["done"] += 1
        record["seconds"] = round(record["seconds"] + time.monotonic() - began, 3)
        if record["done"] == len(videos) or time.monotonic() - saved > SAVE_SECONDS:
            with replacing(cache, "wb") as file:
                np.savez(file, key=key, record=json.dumps(record), **sums)
            saved = time.monotonic()
    return sums, record


def _pictures(video: str | os.PathLike, every: int, detector) -> Iterator[np.ndarray | None]:
    """Each `every`-th frame of a video, or the face in it; None where it has none."""
    from face_detection.track import track_faces
    from media.read import iter_frames

    frames = (frame for _, frame in itertools.islice(iter_frames(video), 0, None, every))
    if detector is None:
        yield from frames
        return
    for frame, box in track_faces(same_size(frames), detector, DETECTION_BATCH):
        yield None if box is None else frame[box[1] : box[3], box[0] : box[2]]


def same_size(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Frames (H, W, 3), scaled to the size of the first where a video changes it on its way."""
    import cv2

    size = None
    for frame in frames:
        size = size or frame.shape[1::-1]
        yield frame if frame.shape[1::-1] == size else cv2.resize(frame, size)


def list_videos(paths: Sequence[str], flag: str) -> list[str]:
    """The videos that an option names: videos, folders of them, .txt files with a path a line."""
    from corpus import listing

    videos = []
    for path in paths:
        folder = os.path.isdir(path) or not require_file(path, flag)
        listed = folder or path.lower().endswith(".txt")
        videos += sorted(listing.list_videos(path)[0]) if listed else [path]
    return videos


def get_args_parser() -> argparse.ArgumentParser:
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
    from models.device import select_device

    return create_detector(args.detector, str(select_device(args.device)), **detector_options(args))


def main(args: argparse.Namespace) -> None:
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
