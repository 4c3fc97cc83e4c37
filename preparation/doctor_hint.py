"""A hint, without any expert, whether a corpus as a whole is in sync: lips move when sound does.

How much the mouth's picture changes from frame to frame is correlated with the sound's level and
with how fast that changes, at shifts of -15..15 frames, over all clips together. One clip says
little (the correlation is about 0.1); a few dozen agree on the shift. Whether they do is asked of
the clips themselves, drawn anew with replacement (a bootstrap).

Tried on random sets of 24 to 200 out of 306 real clips (GRID, news, VoxCeleb2, HDTF) and of 80
synthetic ones, with the sound as it is and moved by 5 or 10 frames: whatever was called reliable
was right to a frame on all of them, and to two on the 31 that are neither GRID nor news. With the
sound of other clips 1 set in 40 was called so, near 0, as GRID's speakers keep time. Clips of 1.2 s
tell nothing. It is blind to clips that are off by different amounts: there, ask an expert.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corpus.clips import Clip

MAX_SHIFT = 15  # frames
LONGEST = 250  # frames of a clip that are read
SMOOTH = 21  # frames; slower changes (light, loudness of a sentence) say nothing about the shift
MOUTH = (slice(29, 45), slice(12, 36))  # rows, columns of a face crop at 48 x 48
ROWS_PER_FRAME = 3.2  # of a mel: 80 rows a second at 25 fps
MIN_CLIPS = 24  # of 12, 1 reliable answer in 20 was two frames off
DRAWS = 200
MIN_AGREEMENT = 0.9  # share of the draws that peak within a frame of the whole's peak
MIN_CORRELATION = 0.07  # at the peak: real clips have 0.07 to 0.16, with others' sound 0.04 to 0.09


def mouth_motion(clip: Clip) -> np.ndarray:
    """(F,) log of the mouth's mean change, grey levels, from frame i to i + 1: while the sound of
    frame i is heard. NaN where one of them has no crop. F: up to the last crop, at most LONGEST.

    ValueError or OSError where a crop cannot be read.
    """
    import cv2

    frames = clip.frames[clip.frames < LONGEST]
    motion = np.full(int(frames[-1]) + 1 if len(frames) else 0, np.nan)
    before, last = None, -2
    for frame in map(int, frames):
        grey = cv2.cvtColor(clip.read(frame, 1)[0], cv2.COLOR_BGR2GRAY)
        mouth = cv2.resize(grey, (48, 48), interpolation=cv2.INTER_AREA)[MOUTH].astype(np.float32)
        if frame == last + 1:
            motion[last] = math.log(np.abs(mouth - before).mean() + 0.5)
        before, last = mouth, frame
    return motion


def sound_level(mel: np.ndarray, frames: int) -> np.ndarray:
    """(frames,) mean of a mel (T, 80) while each frame is shown; NaN past its end."""
    loudness = mel.mean(1)
    level = np.full(frames, np.nan)
    for i in range(frames):
        heard = loudness[round(i * ROWS_PER_FRAME) : round((i + 1) * ROWS_PER_FRAME)]
        if len(heard):
            level[i] = heard.mean()
    return level


def hint_sums(motion: np.ndarray, level: np.ndarray) -> np.ndarray:
    """A clip's part in the correlations: (2, 3, 2 MAX_SHIFT + 1) sums of xy, xx, yy per shift.

    motion, level: (F,) of mouth_motion and sound_level. The first set is with the level, the second
    with its change around the frame.
    """
    change = np.abs(np.diff(level, prepend=np.nan))
    around = np.sqrt((change**2 + np.append(change[1:], np.nan) ** 2) / 2)
    x = _flatten(motion)
    return np.stack([_correlate(x, _flatten(level)), _correlate(x, _flatten(around))])


def _flatten(series: np.ndarray) -> np.ndarray:
    """The series (F,) less its moving mean over SMOOTH, scaled to deviation 1; NaNs stay."""
    there = np.isfinite(series)
    if there.sum() < 2:
        return np.full(len(series), np.nan)
    kernel = np.ones(SMOOTH)
    # "same" would give SMOOTH values for a series shorter than that
    total = np.convolve(np.where(there, series, 0), kernel)[SMOOTH // 2 :][: len(series)]
    count = np.convolve(there.astype(float), kernel)[SMOOTH // 2 :][: len(series)]
    flat = series - total / np.maximum(count, 1)
    return (flat - np.nanmean(flat)) / (np.nanstd(flat) + 1e-6)


def _correlate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(3, 2 MAX_SHIFT + 1): sums of x[i] y[i + s], their squares, over the i where both are."""
    sums = np.zeros((3, 2 * MAX_SHIFT + 1))
    for column, shift in enumerate(range(-MAX_SHIFT, MAX_SHIFT + 1)):
        a = x[max(0, -shift) : len(x) - max(0, shift)]
        b = y[max(0, shift) : len(y) - max(0, -shift)]
        both = np.isfinite(a) & np.isfinite(b)
        a, b = a[both], b[both]
        sums[:, column] = a @ b, a @ a, b @ b
    return sums


def pool_hint(sums: Sequence[np.ndarray], seed: int) -> dict | None:
    """What the clips' hint_sums say together: offset (frames by which the sound is early), the
    share of draws that agree, the curve (2 MAX_SHIFT + 1,) of mean correlations at the offsets
    -MAX_SHIFT..MAX_SHIFT, and whether all that is `reliable`. None below MIN_CLIPS clips.
    """
    if len(sums) < MIN_CLIPS:
        return None
    stack, rng = np.stack(sums), np.random.default_rng(seed)
    curve = _curve(stack)
    peak = int(curve.argmax())
    draws = [_curve(stack[rng.integers(len(stack), size=len(stack))]) for _ in range(DRAWS)]
    agreement = float(np.mean([abs(int(draw.argmax()) - peak) <= 1 for draw in draws]))
    inside = 1 < peak < len(curve) - 2  # a peak at the edge may be the slope of one beyond it
    return {
        "clips": len(sums),
        "offset": peak - MAX_SHIFT,
        "agreement": agreement,
        "reliable": bool(inside and agreement >= MIN_AGREEMENT and curve[peak] >= MIN_CORRELATION),
        "curve": [round(float(value), 4) for value in curve],
    }


def _curve(stack: np.ndarray) -> np.ndarray:
    """Mean of both correlations over clips (N, 2, 3, S), by rising offset: sound that is late by s
    frames has the offset -s.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        xy, xx, yy = stack.sum(0).swapaxes(0, 1)  # (2, S) each
        return np.nan_to_num(xy / np.sqrt(xx * yy)).mean(0)[::-1]
