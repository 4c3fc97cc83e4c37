"""Whether two pictures show the same person: cosine of SFace embeddings.

SFace (Zhong et al., 2021) through OpenCV's own FaceRecognizerSF: maintained with OpenCV, which is
needed here anyway, on the CPU, and its one file of weights (37 MB, Apache 2.0) can be handed over.
insightface, deepface and facenet-pytorch fetch theirs from the net as well, and bring more packages
along; face_recognition's lie on the package index, but are dlib's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from errors import InputError
from media.files import file_label
from models.pretrained import Weights

INPUT_SIZE = 112  # px: the side of SFace's input
SFACE = Weights(
    "SFace",
    "https://github.com/opencv/opencv_zoo/raw/main/models/face_recognition_sface/"
    "face_recognition_sface_2021dec.onnx",
    "--sface_weights",
    fetched=False,
)


class FaceRecognizer:
    """SFace. weights: path of its ONNX file; by default see Weights.find. InputError where there is
    none, or another network's.
    """

    def __init__(self, weights: str | os.PathLike | None = None) -> None:
        import cv2

        path = SFACE.find(weights)
        self.label = file_label(path)
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(
            cv2.utils.logging.LOG_LEVEL_SILENT
        )  # it warns of its own doing
        try:
            self._network = cv2.FaceRecognizerSF.create(path, "")
            embedding = self.embed(np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.uint8))
        except cv2.error as error:
            raise InputError(
                f"SFace weights {path} cannot be used ({error.err}); they are {SFACE.url}"
            ) from error
        finally:
            cv2.utils.logging.setLogLevel(level)
        if embedding.ndim != 1 or not np.isfinite(embedding).all():
            raise InputError(f"SFace weights {path} give no embedding; they are {SFACE.url}")

    def embed(self, face: np.ndarray) -> np.ndarray:
        """uint8 BGR face (112, 112, 3) -> (D,) float32."""
        return self._network.feature(face)[0].copy()  # its buffer is used again

    def similarity(self, a: np.ndarray, b: np.ndarray, box: Sequence[int]) -> float:
        """Cosine (-1..1) of the faces that two frames show at one place, x1, y1, x2, y2."""
        one, other = (self.embed(square_face(frame, box)) for frame in (a, b))
        norms = float(np.linalg.norm(one) * np.linalg.norm(other))
        return float(one @ other) / norms if norms else 0.0


def square_face(frame: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """The square around a box's centre, as high as the box, as (112, 112, 3).

    That is about the extent of the crop that SFace was trained on. It is not turned by landmarks:
    the two frames that are compared show one head at one place, so that would turn both alike.
    Beyond the frame its edge is repeated.
    """
    import cv2

    x1, y1, x2, y2 = box
    side = y2 - y1
    scale = INPUT_SIZE / side
    left = (x1 + x2 - side) / 2
    # pixel centres: output 0 is at half a pixel of the output's size
    place = np.array([[scale, 0, -left * scale], [0, scale, -y1 * scale]]) + [
        [0, 0, (scale - 1) / 2],
        [0, 0, (scale - 1) / 2],
    ]
    return cv2.warpAffine(
        frame, place, (INPUT_SIZE, INPUT_SIZE), flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
