"""S3FD, the paper's face detector: the face-alignment package's network and decoder, in batches.

Weights are looked for in this order: `weights` (--s3fd_weights), checkpoints/s3fd.pth of this
repository, torch hub's cache, face-alignment's download into that cache.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from errors import InputError
from face_detection.base import Box, Detector, as_batch, best_first, shrunk

if TYPE_CHECKING:
    import torch

CHANNEL_MEAN = (104.0, 117.0, 123.0)
NMS_THRESHOLD = 0.3
SMALLEST_SIDE = 32  # five halvings must leave a pixel
CPU_PIXELS = 2**21  # of all frames in one forward pass on a CPU: about 1.5 GB of activations
logger = logging.getLogger(__name__)


class SFDDetector(Detector):
    """S3FD on one device; not shared among threads (make one per worker).

    weights: path of the S3FD weights, else they are looked for as the module says. threshold: boxes
    with a score above it are kept. max_side: larger frames are searched scaled down to this longer
    side; released: none is. half: run the network in float16, which pays on a GPU; boxes are
    decoded in float32 either way. InputError where no usable weights or no such device are there.
    """

    name = "sfd"
    about = "the paper's, needs weights, searches frames as they are"
    weights = ("s3fd_weights", "checkpoints/s3fd.pth")

    def __init__(
        self,
        device: str = "cpu",
        weights: str | None = None,
        threshold: float = 0.5,
        half: bool = False,
        max_side: int | None = None,
    ):
        import torch

        self.device = _check_device(device)
        self.threshold, self.max_side = threshold, max_side
        self.network = load_network(find_weights(weights)).to(self.device)
        self.dtype = torch.float16 if half else torch.float32
        if half:
            _halve(self.network)

    def detect(self, frames) -> list[list[Box]]:
        """uint8 BGR frames (N, H, W, 3) -> per frame its boxes, best first.

        As released, boxes may reach over the frame's edge. All frames are one batch on a GPU,
        halved until it fits in memory; on a CPU, where batches gain nothing, memory bounds it.
        """
        import torch

        frames = as_batch(frames)
        if self.max_side is not None and max(frames.shape[1:3]) > self.max_side:
            small, (x, *_), (y, *_) = zip(*(shrunk(f, self.max_side) for f in frames), strict=True)
            found = self.detect(np.stack(small))
            return [[Box(*np.divide(b, (x, y, x, y, 1)).tolist()) for b in f] for f in found]
        step = len(frames)
        if self.device.type == "cpu" and len(frames):
            step = max(1, CPU_PIXELS // (frames.shape[1] * frames.shape[2]))
        boxes = []
        while len(boxes) < len(frames):
            try:
                boxes += self._detect_batch(frames[len(boxes) : len(boxes) + step])
            except torch.cuda.OutOfMemoryError as error:
                if step == 1:
                    height, width = frames.shape[1:3]
                    raise InputError(
                        f"a {width}x{height} frame is too big for S3FD on this GPU: "
                        "use --resize_factor"
                    ) from error
                step = min(step, len(frames) - len(boxes)) // 2 or 1
                torch.cuda.empty_cache()
        return boxes

    def _detect_batch(self, frames: np.ndarray) -> list[list[Box]]:
        import torch
        from face_alignment.detection.sfd.bbox import nms
        from face_alignment.detection.sfd.detect import get_predictions

        outputs = self.network_outputs(prepare(frames, self.device))
        maps = []
        for conf, loc in zip(outputs[::2], outputs[1::2], strict=True):
            score = conf.softmax(dim=1)
            # The decoder walks through every cell above 0.05 of any frame. A box is never removed
            # by one that scores lower, so dropping those before NMS gives the released boxes too.
            maps += [torch.where(score > self.threshold, score, 0.0), loc]
        rows = get_predictions([m.cpu().numpy() for m in maps], len(frames))  # (N, K, 5)
        boxes = []
        for found in rows.reshape(len(frames), -1, 5):
            found = found[found[:, 4] > self.threshold]
            boxes.append(best_first(found[nms(found, NMS_THRESHOLD)]))
        return boxes

    def network_outputs(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Prepared images (N, 3, H, W) -> 12 float32 maps, as the network gives them.

        Per stride 4, 8, 16, 32, 64, 128: class scores before the softmax (N, 2, h, w), background
        first, and box offsets (N, 4, h, w).
        """
        import torch

        with torch.no_grad():
            outputs = [out.float() for out in self.network(images.to(self.device, self.dtype))]
        if self.dtype == torch.float16 and not all(bool(out.isfinite().all()) for out in outputs):
            logger.warning("S3FD overflows in half precision with these weights: float32 from here")
            self.dtype = torch.float32
            self.network.float()
            return self.network_outputs(images)
        return outputs


def _halve(network: torch.nn.Module) -> None:
    """float16 but for the layers that square and add up activations, which overflow in it."""
    from face_alignment.detection.sfd.net_s3fd import L2Norm

    network.half()
    for layer in network.modules():
        if isinstance(layer, L2Norm):
            layer.float()
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
            layer.register_forward_hook(
                lambda _, inputs, output: output.to(network.conv1_1.weight.dtype)
            )


def prepare(frames: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 BGR frames (N, H, W, 3) -> what S3FD sees: float32 RGB (N, 3, H, W) less the mean.

    The mean is that of BGR channels, but the released detector subtracts it from RGB in this order.
    """
    import torch

    images = torch.from_numpy(np.array(frames, order="C")).to(device)  # copied: may be read-only
    images = images.permute(0, 3, 1, 2).flip(1).float()  # (N, 3, H, W), RGB
    images -= torch.tensor(CHANNEL_MEAN, device=device).view(1, 3, 1, 1)
    short_y, short_x = (max(0, SMALLEST_SIDE - side) for side in images.shape[2:])
    if short_x or short_y:
        images = torch.nn.functional.pad(images, (0, short_x, 0, short_y))
    return images


def find_weights(weights: str | None = None) -> str:
    """The S3FD weights file; InputError saying what to put where if none can be had."""
    from face_alignment.detection.sfd.sfd_detector import models_urls

    from models.pretrained import Weights

    flag, place = SFDDetector.weights
    return Weights(
        "S3FD", models_urls["s3fd"], f"--{flag}", local=Path(place).name,
        instead="use --detector centerface, which needs no download",
    ).find(weights)  # fmt: skip


def load_network(path: str | Path) -> torch.nn.Module:
    """face-alignment's S3FD network with the weights of `path`, in eval mode on the CPU.

    InputError, in one line, for a file that is damaged, of another model or would run code.
    """
    from face_alignment.detection.sfd.net_s3fd import s3fd

    from models.checkpoint import load_weights, read_checkpoint

    network = s3fd()
    try:
        load_weights(network, read_checkpoint(path), path)
    except InputError as error:
        raise InputError(
            f"{error}; S3FD's weights are face-alignment's s3fd-619a316812.pth"
        ) from error
    return network.eval()


def _check_device(device: str | torch.device) -> torch.device:
    import torch

    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"unknown device {device!r}: cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"no such GPU: {device} ({torch.cuda.device_count()} found); use --device cpu"
        )
    return device
