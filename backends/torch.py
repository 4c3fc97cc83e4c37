"""The generator with its picture handling, as one network from bytes to bytes, and the PyTorch back
end. The other back ends convert the same networks (backends/api.py).
"""

from __future__ import annotations

import copy
import functools
import logging
from collections import Counter
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from backends.base import Backend
from models.face_compositor import compose

MAX_GRAPHS = 4  # CUDA graphs kept, one for each batch size; each holds its own activations

logger = logging.getLogger(__name__)


class Whole(nn.Module):
    """Faces uint8 BGR (N, H, W, 3), mel windows (N, 80, 16) and references, as the faces, -> frames
    uint8 (N, H, W, 3), and whether all of their numbers were finite, a bool; of a model with a mask
    the generated face, to be pasted by the mask, its fourth channel.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(
        self, faces: torch.Tensor, mels: torch.Tensor, references: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        audio, pictures = _audio(mels, self.dtype), _pictures(faces, references, self.dtype)
        if hasattr(self.model, "draw"):
            return _drawn(self.model, audio, self.model.encode_face(pictures))
        return _bytes(self.model(audio, pictures))


class Encode(nn.Module):
    """One face and its reference, uint8 BGR (1, H, W, 3) -> the model's features of them, each
    (1, C, h, w).
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, face: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.model.encode_face(_pictures(face, reference, self.dtype)))


class Decode(nn.Module):
    """Mel windows (N, 80, 16) and Encode's features -> as Whole."""

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(
        self, mels: torch.Tensor, *features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        count = mels.shape[0]
        repeated = tuple(x.to(self.dtype).expand(count, -1, -1, -1) for x in features)
        audio = _audio(mels, self.dtype)
        if hasattr(self.model, "draw"):
            return _drawn(self.model, audio, repeated)
        return _bytes(self.model.decode(audio, repeated))


class Masked(nn.Module):
    """A model with a mask as ONNX has it: its forward's frames, and (B, 4, H, W) to paste."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, audio: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, ...]:
        face, mask = self.model.draw(audio, self.model.encode_face(faces))
        return compose(faces, face, mask), torch.cat((face, mask), dim=1)


NETWORKS = {"whole": Whole, "encode": Encode, "decode": Decode}


def example(part: str, inputs: tuple) -> tuple[tuple[torch.Tensor, ...], tuple[bool, ...]]:
    """Zeros like the inputs of a network, and which of these have any number of frames: here 2,
    since exporters take a 1 for a constant.
    """
    free = {"whole": (True, True, True), "encode": (False, False), "decode": (True,)}[part]
    free += (False,) * (len(inputs) - len(free))
    zeros = (np.zeros_like(x[:1]) for x in inputs)
    counts = (2 if any_number else 1 for any_number in free)
    repeated = (np.repeat(x, count, axis=0) for x, count in zip(zeros, counts, strict=True))
    return tuple(map(torch.from_numpy, repeated)), free


def on_cpu(model: nn.Module) -> nn.Module:
    """`model`, or a copy where it is on another device."""
    away = any(p.device.type != "cpu" for p in model.parameters())
    return copy.deepcopy(model).cpu() if away else model


def _audio(mels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return mels.to(dtype)[:, None]  # (N, 1, 80, 16)


def _pictures(faces: torch.Tensor, references: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The model's input (N, 6, H, W): the face with its lower half zeroed, and its reference."""
    face, reference = (x.permute(0, 3, 1, 2).float() / 255 for x in (faces, references))
    half = face.shape[2] // 2
    masked = torch.cat((face[:, :, :half], torch.zeros_like(face[:, :, half:])), dim=2)
    return torch.cat((masked, reference), dim=1).to(dtype)


def _drawn(model: nn.Module, audio: torch.Tensor, features: tuple) -> tuple:
    """Face and mask, uint8 (N, H, W, 4), and whether all is finite. Not blended yet: the frame they
    go into is sharper than the face that the model saw.
    """
    return _bytes(torch.cat(model.draw(audio, features), dim=1))


def _bytes(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    # truncated, not rounded, as in the released program; floor, since engines convert differently
    pictures = (frames.float() * 255).floor().to(torch.uint8).permute(0, 2, 3, 1)
    return pictures, frames.isfinite().all()


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """`model`, in eval mode, with each batch norm multiplied into the convolution that its module
    names just before it, as nn.Sequential and torchvision's blocks do.
    """
    for block in model.modules():
        for (name, conv), (norm_name, norm) in pairwise(list(block.named_children())):
            if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(
                norm, nn.BatchNorm2d
            ):
                transposed = isinstance(conv, nn.ConvTranspose2d)
                setattr(block, name, fuse_conv_bn_eval(conv, norm, transpose=transposed))
                setattr(block, norm_name, nn.Identity())
    return model


class TorchBackend(Backend):
    """PyTorch. On a GPU in float16, and a batch size that comes again is replayed as a CUDA graph.
    What is not finite in float16 is computed once more in float32.

    half: float16; None = on a GPU.
    """

    name = "torch"

    def __init__(
        self, model: nn.Module, device: torch.device | str = "cpu", half: bool | None = None
    ) -> None:
        super().__init__(model)
        self.device = torch.device(device)
        gpu = self.device.type == "cuda"
        self.dtype = torch.float16 if (gpu if half is None else half) else torch.float32
        self.chunk = None if gpu else self.chunk
        self._model = model
        folded = fold_batch_norm(copy.deepcopy(model).eval()).requires_grad_(False)
        folded = folded.to(self.device, self.dtype, memory_format=torch.channels_last)
        self._networks = {part: network(folded, self.dtype) for part, network in NETWORKS.items()}
        self._graphs: dict | None = {} if gpu else None  # None: no graphs
        self._seen: Counter = Counter()

    def describe(self) -> str:
        gpu = self.device.type == "cuda"
        where = torch.cuda.get_device_name(self.device) if gpu else self.device.type.upper()
        return f"torch {torch.__version__}, {str(self.dtype).removeprefix('torch.')}, {where}"

    @functools.cached_property
    def _exact(self) -> TorchBackend:
        logger.warning("the network overflows in float16: float32 where it does, slower")
        return TorchBackend(self._model, self.device, half=False)

    @torch.inference_mode()
    def _run(self, part: str, *inputs: object) -> tuple:
        tensors = [self._tensor(x) if isinstance(x, np.ndarray) else x for x in inputs]
        if part == "encode":  # once a picture: no graph
            outputs = self._networks[part](*tensors)
            finite = all(x.isfinite().all() for x in outputs)
        else:
            outputs = tuple(x.cpu().numpy() for x in self._computed(part, tensors))
            finite = outputs[1]
        if self.dtype == torch.float32 or finite:
            return outputs
        return self._exact._run(part, *inputs)

    def _computed(self, part: str, tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        if self._graphs is None:
            return self._networks[part](*tensors)
        with torch.cuda.device(self.device):  # of this thread
            return self._replayed(part, tensors)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        # torch wants arrays that it may write to
        return torch.from_numpy(np.require(array, requirements="CW")).to(self.device)

    def _replayed(self, part: str, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The network's outputs, valid until the next replay."""
        key = (part, len(inputs[0]))
        self._seen[key] += 1
        if key not in self._graphs and self._seen[key] > 1 and len(self._graphs) < MAX_GRAPHS:
            try:
                self._graphs[key] = self._capture(part, inputs)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                logger.warning("CUDA graphs are off, which is slower: %s", reason)
                self._graphs = None
        if not self._graphs or key not in self._graphs:
            return self._networks[part](*inputs)
        graph, places, outputs = self._graphs[key]
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return outputs

    def _capture(self, part: str, inputs: list[torch.Tensor]) -> tuple:
        """(graph, its input tensors, its output tensors), after the warm-up that capture needs."""
        network, places = self._networks[part], tuple(x.clone() for x in inputs)
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):  # fastest algorithms
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):  # algorithms are chosen here; nothing may be during capture
                    network(*places)
            torch.cuda.current_stream().wait_stream(stream)
            # thread_local: other threads may use the GPU meanwhile (a detector, say)
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = network(*places)
        return graph, places, outputs
