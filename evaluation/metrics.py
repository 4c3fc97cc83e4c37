"""What is measured of generated frames against the true ones: one class a metric.

A metric says all about itself: its columns, their titles, which way is better, the weights of its
network. METRICS lists them; flags, tables and the notes on weights that are not there follow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from audio import TRAINING_FPS
from errors import InputError
from media.difference import PSNR_LIMIT, picture_tensor, psnr, ssim
from media.files import file_label
from models.pretrained import Weights

if TYPE_CHECKING:
    import torch


MIN_REGION = 12  # px: SSIM's window is 11
STEPS = 5  # frames in a window of the expert
FACE_SIZE = 112  # px: the side of SFace's input

Scores = dict[str, list[float]]  # one number a frame


class Column(NamedTuple):
    """A score's title; better: 1 where higher is, -1 where lower is, 0 where that says nothing."""

    title: str
    better: int = 0

    def __str__(self) -> str:
        way = {1: ", higher is better", -1: ", lower is better", 0: ""}[self.better]
        return self.title + way


@dataclass(frozen=True)
class Batch:
    """Consecutive frames of both videos: uint8 BGR (N, H, W, 3) each, the true face's box
    (x1, y1, x2, y2) or None in each, and the number of the first frame.
    """

    truth: np.ndarray
    generated: np.ndarray
    boxes: Sequence[tuple[int, int, int, int] | None]
    first: int = 0

    def tensors(self, device: torch.device | str) -> list[torch.Tensor]:
        """Of both videos, float RGB (N, 3, H, W) in 0..255."""
        return [picture_tensor(frames, device) for frames in (self.truth, self.generated)]

    def faces(self) -> Iterator[tuple]:
        """(number of the frame, true frame, generated frame, box) where there is a face."""
        frames = zip(self.truth, self.generated, self.boxes, strict=True)
        for number, (truth, generated, box) in enumerate(frames, self.first):
            if box is not None:
                yield number, truth, generated, box


class Metric:
    """Gives every Batch of a pair of videos {column: [a number a frame]}. A frame that has none (no
    face, a region too small) is left out of the list: one inf or nan refuses the pair.

    weights: of its network, where it has one; `load` reads their file into `network` before the
    first pair. `start` begins every pair, so that nothing is left of the one before. settings: what
    the scores depend on, for the record.
    """

    columns: ClassVar[dict[str, Column]]
    weights: ClassVar[Weights | None] = None
    settings: ClassVar[dict] = {}
    network = label = None  # and what tells its file from others

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device

    def load(self, path: str) -> None:
        """Read the network's file; InputError where it is another's."""

    def start(self, sound: np.ndarray | None, fps: float) -> None:
        """The generated video's sound at 16 kHz (n,), and the frames' rate."""

    def __call__(self, batch: Batch) -> Scores:
        raise NotImplementedError


class Picture(Metric):
    """Whole frames. Most of a pasted frame is the true frame, so these flatter."""

    columns: ClassVar = {"psnr": Column("PSNR, dB", 1), "ssim": Column("SSIM", 1)}
    settings: ClassVar = {"psnr_limit": PSNR_LIMIT}

    def __call__(self, batch: Batch) -> Scores:
        pair = batch.tensors(self.device)
        return {"psnr": psnr(*pair), "ssim": ssim(*pair)}


class Perceptual(Metric):
    """LPIPS of whole frames: version 0.1, AlexNet. The linear layers come with the package."""

    columns: ClassVar = {"lpips": Column("LPIPS, 0 = equal", -1)}
    weights: ClassVar = Weights(
        "AlexNet", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "--lpips_weights"
    )

    def load(self, path: str) -> None:
        from lpips import LPIPS

        from models.checkpoint import read_checkpoint

        state = read_checkpoint(path)["state_dict"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how the package calls torchvision
            model = LPIPS(net="alex", pnet_rand=True, verbose=False)
        try:  # slice2.3.weight is features.3.weight
            names = {name: f"features.{name.partition('.')[2]}" for name in model.net.state_dict()}
            model.net.load_state_dict({name: state[place] for name, place in names.items()})
        except (KeyError, RuntimeError) as error:
            url = self.weights.url
            raise InputError(f"{path} is not torchvision's AlexNet; that is {url}") from error
        self.network = model.to(self.device)

    def __call__(self, batch: Batch) -> Scores:
        distance = self.network(*(pictures / 127.5 - 1 for pictures in batch.tensors(self.device)))
        return {"lpips": distance.flatten().tolist()}


class Mouth(Metric):
    """The lower half of the true video's face box."""

    columns: ClassVar = {
        "psnr_mouth": Column("PSNR of the mouth region", 1),
        "ssim_mouth": Column("SSIM of the mouth region", 1),
        "l1_mouth": Column("mean error of the mouth region, grey levels", -1),
    }

    def __call__(self, batch: Batch) -> Scores:
        scores: Scores = {name: [] for name in self.columns}
        for _, *frames, (x1, y1, x2, y2) in batch.faces():
            mouths = [frame[None, (y1 + y2) // 2 : y2, x1:x2] for frame in frames]
            if min(mouths[0].shape[1:3]) >= MIN_REGION:
                a, b = (picture_tensor(mouth, self.device) for mouth in mouths)
                scores["psnr_mouth"] += psnr(a, b)
                scores["ssim_mouth"] += ssim(a, b)
                scores["l1_mouth"].append(float((a - b).abs().mean()))
        return scores


class Outside(Metric):
    """All of the picture but the mouth region, which was to stay as it is."""

    columns: ClassVar = {"l1_outside": Column("mean error outside the mouth, grey levels", -1)}

    def __call__(self, batch: Batch) -> Scores:
        values = []
        for _, truth, generated, (x1, y1, x2, y2) in batch.faces():
            outside = np.ones(truth.shape[:2], bool)
            outside[(y1 + y2) // 2 : y2, x1:x2] = False
            error = np.abs(generated.astype(np.int16) - truth)[outside]
            values += [float(error.mean())] if error.size else []
        return {"l1_outside": values}


class Temporal(Metric):
    """|(g' - g) - (y' - y)| of two frames in a row, a mean over the face box: flicker is seen, an
    error that stays is not.
    """

    columns: ClassVar = {
        "temporal": Column("change of the error from frame to frame, grey levels", -1)
    }

    def start(self, sound: np.ndarray | None, fps: float) -> None:
        self._error = None  # of the frame before

    def __call__(self, batch: Batch) -> Scores:
        values = []
        for truth, generated, box in zip(batch.truth, batch.generated, batch.boxes, strict=True):
            before, self._error = self._error, generated.astype(np.int16) - truth
            if before is not None and box is not None:
                x1, y1, x2, y2 = box
                values.append(float(np.abs(self._error - before)[y1:y2, x1:x2].mean()))
        return {"temporal": values}


class Identity(Metric):
    """Whether both show one person: cosine of SFace's embeddings (Zhong et al., 2021), by OpenCV's
    own FaceRecognizerSF: maintained, on the CPU, and its weights (37 MB, Apache 2.0) are one file.
    """

    columns: ClassVar = {"identity": Column("cosine of face embeddings", 1)}
    weights: ClassVar = Weights(
        "SFace",
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_recognition_sface/"
        "face_recognition_sface_2021dec.onnx",
        "--sface_weights",
        fetched=False,
    )
    settings: ClassVar = {"identity_every": 5}  # frames between two looks at it

    def load(self, path: str) -> None:
        import cv2

        logs = cv2.utils.logging
        level = logs.getLogLevel()
        logs.setLogLevel(logs.LOG_LEVEL_SILENT)  # it warns of its own doing
        try:
            self.network = cv2.FaceRecognizerSF.create(path, "")
            embedding = self.embed(np.zeros((FACE_SIZE, FACE_SIZE, 3), np.uint8))
            if embedding.ndim != 1 or not np.isfinite(embedding).all():
                raise InputError(f"SFace weights {path} give no embedding")
        except cv2.error as error:
            text = f"SFace weights {path} cannot be used ({error.err}); they are {self.weights.url}"
            raise InputError(text) from error
        finally:
            logs.setLogLevel(level)

    def embed(self, face: np.ndarray) -> np.ndarray:
        """uint8 BGR face (112, 112, 3) -> (D,) float32."""
        return self.network.feature(face)[0].copy()  # its buffer is used again

    def __call__(self, batch: Batch) -> Scores:
        values = []
        for number, *frames, box in batch.faces():
            if number % self.settings["identity_every"] == 0:
                one, other = (self.embed(square_face(frame, box)) for frame in frames)
                norms = np.linalg.norm(one) * np.linalg.norm(other)
                values.append(float(one @ other / norms) if norms else 0.0)
        return {"identity": values}


def square_face(frame: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """The square around a box's centre, as high as the box, as (112, 112, 3): about the crop that
    SFace was trained on. Not turned by landmarks, which would turn both frames' heads alike. Beyond
    the frame its edge is repeated.
    """
    import cv2

    x1, y1, x2, y2 = box
    side, centre = y2 - y1, ((x1 + x2 - 1) / 2, (y1 + y2 - 1) / 2)
    return cv2.resize(cv2.getRectSubPix(frame, (side, side), centre), (FACE_SIZE, FACE_SIZE))


class SyncDistance(Metric):
    """1 - cosine of a SyncNet_color's embeddings of five generated frames and of their sound; at
    25 fps, all that the expert knows.
    """

    columns: ClassVar = {"lsd": Column("LSD with the expert, 0..1", -1)}
    weights: ClassVar = Weights(
        "SyncNet_color", "made by color_syncnet_train.py", "--expert",
        fetched=False, local="open_expert.pth",
    )  # fmt: skip

    def load(self, path: str) -> None:
        from models.checkpoint import load_model

        self.network = load_model(path, "SyncNet_color").to(self.device)

    def start(self, sound: np.ndarray | None, fps: float) -> None:
        from audio import melspectrogram

        heard = sound is not None and abs(fps - TRAINING_FPS) < 0.01
        self.mel = melspectrogram(sound).T if heard else None  # (T, 80)
        self._window: list[tuple[int, np.ndarray]] = []  # the last frames: number, lower half

    def __call__(self, batch: Batch) -> Scores:
        import torch

        from audio import ShortWindow, crop_audio_window
        from face_detection.track import crop_face

        size = self.network.img_size
        faces, mels = [], []
        for number, _, frame, box in batch.faces() if self.mel is not None else ():
            self._window = [(n, half) for n, half in self._window if number - n < STEPS]
            half = crop_face(frame, box, size)[size // 2 :].transpose(2, 0, 1)
            self._window.append((number, half))
            if len(self._window) == STEPS:
                with contextlib.suppress(ShortWindow):  # the sound ends before the picture does
                    mel = crop_audio_window(self.mel, number - STEPS + 1)  # (16, 80)
                    mels.append(mel.T[None])
                    faces.append(np.concatenate([half for _, half in self._window]))
        if not faces:
            return {"lsd": []}
        face = torch.from_numpy(np.stack(faces)).to(self.device).float() / 255  # (B, 15, H/2, W)
        mel = torch.from_numpy(np.stack(mels)).to(self.device)  # (B, 1, 80, 16)
        cosine = (self.network.embed_face(face) * self.network.embed_audio(mel)).sum(dim=1)
        return {"lsd": (1 - cosine).tolist()}


METRICS = (Picture, Perceptual, Mouth, Outside, SyncDistance, Identity, Temporal)
COLUMNS = {name: column for kind in METRICS for name, column in kind.columns.items()}


def add_metric_arguments(parser: argparse.ArgumentParser) -> None:
    """A flag for the weights of every metric that has a network."""
    for kind in METRICS:
        if kind.weights:
            text = f"{kind.weights.what}, of {', '.join(kind.columns)}; default: checkpoints/"
            text += kind.weights.local or kind.weights.name
            text += ", else downloaded" if kind.weights.fetched else ""
            parser.add_argument(kind.weights.flag, metavar="FILE", help=text)


def load_metrics(
    paths: Mapping[str, str | os.PathLike | None], device: str = "auto"
) -> tuple[list[Metric], list[dict[str, str]]]:
    """The metrics whose weights are there, and what is left out as {"metric", "file", "where"}.

    paths: by the flags' names, as a parser of add_metric_arguments gives them. A file that is named
    must be good (InputError); one that is not named may be absent.
    """
    from models.device import select_device

    metrics, missing, selected = [], [], select_device(device)
    for metric in (kind(selected) for kind in METRICS):
        if weights := metric.weights:
            path = find_weights(weights, paths.get(weights.flag[2:]), metric.columns, missing)
            if path is None:
                continue
            metric.load(path)
            metric.label = file_label(path)
        metrics.append(metric)
    return metrics, missing


def find_weights(
    weights: Weights, path: str | os.PathLike | None, columns: Iterable[str], missing: list[dict]
) -> str | None:
    """The file; None, with a note in `missing`, where none is named and none is there."""
    try:
        return weights.find(path)
    except InputError:
        if path is not None:
            raise
    where = f"{weights.url}; into checkpoints/, or {weights.flag}"
    file = weights.local or weights.name
    missing.append({"metric": ", ".join(columns), "file": file, "where": where})
    return None
