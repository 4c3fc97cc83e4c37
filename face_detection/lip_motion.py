"""Whether lips follow the sound or leak the video's own mouth: no sync loss fools these numbers.

A generator draws a face to *another* clip's sound. Of its lips' opening, frame by frame,
- follows: correlation with the lips of the clip that the sound is of (high is good),
- leak: correlation with the lips of the video that is redrawn (0 is good; KeySync 2025 calls the
  same LipLeak),
are partial correlations: what these two share, as all speech has pauses, is taken out.
"""

from __future__ import annotations

import numpy as np

STILL = 1e-4  # of the face's height: lips that move less do not move; landmarks jitter by 1e-3


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
    from face_detection.landmarks import CHIN, TOP

    height = np.linalg.norm(truth[:, TOP] - truth[:, CHIN], axis=1)
    if part is not None:
        made, truth = (p[:, part] - p[:, part].mean(1, keepdims=True) for p in (made, truth))
    distance = np.linalg.norm(made - truth, axis=2).mean(1)
    return float((100 * distance / height).mean())
