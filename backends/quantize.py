"""int8 on OpenVINO: made once for a generator's weights, checked on every new face."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Backend, references_of
from backends.openvino import OpenVINOBackend, WholeBackend
from models.openvino_core import require_openvino

if TYPE_CHECKING:
    import openvino

NETWORK = "whole-int8"  # its name in the cache
MAX_CHECKED = 32  # frames
MIN_SSIM = 0.98  # int8 against float32
MAX_NOTED = 200  # faces whose check is remembered

FINDING = threading.Lock()

Batch = tuple[np.ndarray, ...]  # faces, mels and perhaps references, as for Backend.generate

logger = logging.getLogger(__name__)


def quantized(
    backend: OpenVINOBackend, own: Iterable[Batch], more: Callable[[], Iterable[Batch]] = tuple
) -> Backend:
    """`backend` in int8 (NNCF, post-training: weights a channel each, activations by their range),
    or itself, with a warning, where int8 does not show this face as float32 does: mean SSIM below
    MIN_SSIM.

    own: batches of the user's frames. Every second one, MAX_CHECKED at most, is for the check; the
    others, with those that `more` gives, calibrate a network where the cache has none.
    """
    own = list(own)
    if not own:  # nothing will be drawn, either
        return backend
    inputs = _joined(own)
    checked = [x[1::2][:MAX_CHECKED] if len(x) > 1 else x for x in inputs]
    if not find_int8(backend):
        others = (_joined([batch]) for batch in more())
        network = _calibrated(backend, [[x[::2] for x in inputs], *others])
        if backend.cache:
            network = backend.cache.write(NETWORK, network)
        backend.int8 = WholeBackend(network, backend.img_size, "int8")
    score = _score(backend, checked)
    if score >= MIN_SSIM:
        return backend.int8
    logger.warning(
        "int8 is not used: its pictures have SSIM %.4f with those of float32 on %d of your frames, "
        "below %s", score, len(checked[0]), MIN_SSIM,
    )  # fmt: skip
    return backend


def has_int8(backend: Backend) -> bool:
    """Whether an int8 network of `backend` is in memory or in its cache."""
    if backend.name != "openvino":
        return False
    return bool(backend.int8 or (backend.cache and backend.cache.has(NETWORK)))


def find_int8(backend: OpenVINOBackend) -> bool:
    """Takes it into memory; whether there is one that can be read."""
    with FINDING:
        if not backend.int8 and backend.cache and (found := backend.cache.read(NETWORK)):
            backend.int8 = WholeBackend(found, backend.img_size, "int8")
            backend.int8.warm_up(False)
        return backend.int8 is not None


def _calibrated(backend: OpenVINOBackend, batches: list[Batch]) -> openvino.Model:
    # NNCF imports a part of torch that warns of a missing CUDA
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    nncf = require_openvino("int8", "nncf")
    model = backend.whole()
    frames = [tuple(x[i : i + 1] for x in batch) for batch in batches for i in range(len(batch[0]))]
    nncf.set_log_level(logging.WARNING)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(frames, list),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(frames),
        )


def _score(backend: OpenVINOBackend, inputs: Batch) -> float:
    """Mean SSIM of both on these frames; once for each face, where there is a cache to note it."""
    face = hashlib.sha256(b"".join(x.tobytes() for x in inputs)).hexdigest()[:24]
    noted = backend.cache.notes().get("checked", {}) if backend.cache else {}
    if face not in noted:
        truth, made = (engine.generate(*inputs)[..., :3] for engine in (backend, backend.int8))
        noted = dict([*noted.items(), (face, mean_ssim(truth, made))][-MAX_NOTED:])
        if backend.cache:
            backend.cache.note(checked=noted)
    return noted[face]


def _joined(batches: Iterable[Batch]) -> Batch:
    """Faces, mels and references of all batches."""
    parts = [
        (faces, mels, references_of(faces, *given or [None])) for faces, mels, *given in batches
    ]
    faces, mels, references = map(np.concatenate, zip(*parts, strict=True))
    return faces, mels.astype(np.float32), references


def mean_ssim(truth: np.ndarray, generated: np.ndarray) -> float:
    """Of frames uint8 BGR (N, H, W, 3), as media/difference.py has it, without torch."""
    import cv2

    def blurred(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x, (11, 11), 1.5)[5:-5, 5:-5]

    scores = []
    for x, y in zip(truth.astype(np.float32), generated.astype(np.float32), strict=True):
        mx, my = blurred(x), blurred(y)
        vx, vy, cov = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        both = (2 * mx * my + c1) * (2 * cov + c2)
        scores.append((both / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean())
    return float(np.mean(scores))
