"""Frames of a synthetic talking face: a warp of the portrait, a drawn mouth, light and noise."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from synthetic.face import BASE_SCALE, GRID, Identity

SUPERSAMPLE = 4  # mouth shapes are filled at 4 x resolution, which antialiases them
JAW_SHARE = 0.62  # the chin drops by this share of the inner-lip height
UPPER_SHARE = 0.2  # of the opening lifts the upper lip; the rest lowers the lower lip
CORNER_SHARE = 0.12  # of the opening is how far the jaw pulls the corners down
INSIDE_BGR, TONGUE_BGR, TEETH_BGR = (24, 16, 42), (62, 54, 128), (188, 202, 210)
U = np.linspace(-1, 1, 41)  # along the lips, corner to corner
ARCH = (1 - U**2) ** 0.75  # height profile of the opening
CUPID = (1 - U**2) ** 0.9 * (1 - 0.28 * np.exp(-((U / 0.13) ** 2)))
FULL = (1 - U**2) ** 0.6


def _drift(rng: np.random.Generator, frames: int, seconds_per_wave: float = 3.0) -> np.ndarray:
    """(frames,) smooth random curve of about unit size: a few slow sines."""
    time = np.arange(frames) / 25.0
    speeds = 2 * np.pi / (seconds_per_wave * rng.uniform(0.5, 2.0, 4))
    return np.sin(speeds[:, None] * time + rng.uniform(0, 2 * np.pi, (4, 1))).sum(axis=0) / 2


def _blinks(rng: np.random.Generator, frames: int) -> np.ndarray:
    """(frames,) 0 = open, 1 = shut."""
    time, shut, moment = np.arange(frames) / 25.0, np.zeros(frames), rng.uniform(0, 3)
    while moment < frames / 25.0:
        shut = np.maximum(shut, np.clip(1.6 - np.abs(time - moment) / 0.07, 0, 1))
        moment += rng.uniform(1.5, 4.5)
    return shut


def head_poses(rng: np.random.Generator, identity: Identity, frames: int) -> np.ndarray:
    """(frames, 2, 3) affine matrices from head space to frame px: slow shift, turn and scale."""
    size, energy = identity.size, rng.uniform(0.4, 1.0)
    angle = np.deg2rad(identity.tilt + 2.5 * energy * _drift(rng, frames))
    scale = identity.scale * (1 + 0.02 * energy * _drift(rng, frames, 5))
    sway = np.stack([_drift(rng, frames), _drift(rng, frames)], axis=1)
    target = size * (np.array([0.5, 0.49]) + rng.uniform(-0.02, 0.02, 2) + 0.018 * energy * sway)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], axis=1)  # (frames, 2, 2)
    centre = (identity.box[:2] + identity.box[2:]) / 2
    return np.concatenate([linear, (target - linear @ centre)[..., None]], axis=2)


def corner_distance(width: np.ndarray | float) -> np.ndarray | float:
    """Corner-to-corner distance / the identity's widest, for a width of 0 (round) .. 1 (spread)."""
    return 0.62 + 0.38 * np.asarray(width)


def mouth_shapes(identity: Identity, opening: float, width: float) -> dict[str, np.ndarray]:
    """Closed outlines in head space, each (N, 2): outer lips, shine, inner edge, teeth, tongue."""
    half, height = identity.mouth_half * corner_distance(width), identity.mouth_max * opening
    plump = (1 + 0.3 * (1 - width)) * (1 - 0.15 * opening)
    rest = 0.7 * ARCH + CORNER_SHARE * height  # the line of the shut lips
    lift = UPPER_SHARE + CORNER_SHARE
    top, bottom = rest - lift * height * ARCH, rest + (1 - lift) * height * ARCH
    over, under = top - plump * identity.lips[0] * CUPID, bottom + plump * identity.lips[1] * FULL
    bite = top + min(0.42 * height, 1.5 + 3.5 * identity.teeth) * ARCH
    tongue = bottom - 0.34 * height * np.clip(1 - (U / 0.7) ** 2, 0, 1)
    shine = 0.55 * bottom + 0.45 * under

    def outline(upper: np.ndarray, lower: np.ndarray, part: float = 1.0) -> np.ndarray:
        keep = np.abs(U) <= part
        x = half * U[keep]
        line = np.concatenate([np.stack([x, upper[keep]], 1), np.stack([x, lower[keep]], 1)[::-1]])
        return line + identity.mouth

    return {
        "outer": outline(over, under),
        "shine": outline(shine - 0.4, shine + 0.5, 0.5),
        "inner": outline(top, bottom),
        "teeth": outline(top, bite, 0.85),
        "tongue": outline(tongue, bottom, 0.7),
    }


def draw_mouth(
    frame: np.ndarray, identity: Identity, pose: np.ndarray, opening: float, width: float
) -> np.ndarray:
    """Draw the mouth into a uint8 (H, W, 3) frame, in place; returns its box (4,) in px."""
    shapes = {
        name: line @ pose[:, :2].T + pose[:, 2]
        for name, line in mouth_shapes(identity, opening, width).items()
    }
    box = np.concatenate([shapes["outer"].min(axis=0), shapes["outer"].max(axis=0)])
    left, top = np.maximum(np.floor(box[:2]) - 3, 0).astype(int)
    right, bottom = np.minimum(np.ceil(box[2:]) + 4, frame.shape[0]).astype(int)
    shape = ((bottom - top) * SUPERSAMPLE, (right - left) * SUPERSAMPLE)
    points = {
        name: np.round(((line - (left, top) + 0.5) * SUPERSAMPLE - 0.5) * 8).astype(np.int32)
        for name, line in shapes.items()
    }
    paint = np.full((*shape, 3), identity.lip_bgr.astype(np.uint8))
    mask = cv2.fillPoly(np.zeros(shape, np.uint8), [points["outer"]], 255, shift=3)
    upper = np.concatenate([points["outer"][: len(U)], points["inner"][len(U) :]])
    cv2.fillPoly(paint, [upper], (0.86 * identity.lip_bgr).tolist(), shift=3)
    bright = np.minimum(1.12 * identity.lip_bgr + 6, 255).tolist()
    cv2.fillPoly(paint, [points["shine"]], bright, shift=3)
    paint = cv2.blur(paint, (5, 5))
    line = points["inner"][: len(U)].reshape(-1, 1, 2)
    cv2.polylines(paint, [line], False, (0.42 * identity.lip_bgr).tolist(), SUPERSAMPLE, shift=3)
    if opening > 0:
        cv2.fillPoly(paint, [points["inner"]], INSIDE_BGR, shift=3)
        cv2.fillPoly(paint, [points["tongue"]], TONGUE_BGR, shift=3)
        cv2.fillPoly(paint, [points["teeth"]], TEETH_BGR, shift=3)
        paint = cv2.blur(paint, (3, 3))
    size = (right - left, bottom - top)
    paint = cv2.resize(paint, size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(cv2.blur(mask, (5, 5)), size, interpolation=cv2.INTER_AREA)
    alpha, patch = mask[..., None] / np.float32(255), frame[top:bottom, left:right]
    patch[:] = patch * (1 - alpha) + paint * alpha + 0.5
    return box


def warp_head(identity: Identity, pose: np.ndarray, jaw: float, lid: float) -> np.ndarray:
    """The portrait in one frame, uint8 (size, size, 3), by one interpolation.

    `jaw` and `lid` are drops in head-space px: content moves down where the looked-up row moves up.
    """
    field = identity.field.copy()  # (150, 150, 2)
    field[..., 1] -= jaw * identity.jaw + lid * identity.lid
    field = BASE_SCALE * field + (BASE_SCALE - 1) / 2  # px of the enlarged portrait
    grid_pose = pose.copy()
    grid_pose[:, :2] *= GRID
    size, mirror = (identity.size, identity.size), cv2.BORDER_REFLECT_101  # beyond the picture
    lookup = cv2.warpAffine(field, grid_pose, size, borderMode=mirror)
    return cv2.remap(identity.base, lookup, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _light(
    rng: np.random.Generator, identity: Identity, frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Slow light: (frames, 3) gain, slopes over x and y; (size, size, 2) x and y in -0.5..0.5."""
    gain = rng.uniform(0.9, 1.08) + 0.035 * _drift(rng, frames, 4)
    sway = np.stack([_drift(rng, frames), _drift(rng, frames)])
    slope = rng.normal(0, 0.14, 2)[:, None] + 0.04 * sway
    axis = np.linspace(-0.5, 0.5, identity.size, dtype=np.float32)
    xy = np.stack(np.meshgrid(axis, axis), axis=-1)
    return np.stack([gain, *slope], axis=1).astype(np.float32), xy


def render_frames(
    rng: np.random.Generator, identity: Identity, opening: np.ndarray, width: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (frame uint8 BGR (size, size, 3), face box (4,), mouth box (4,)) per mouth state."""
    frames = len(opening)
    poses, shut = head_poses(rng, identity, frames), _blinks(rng, frames)
    (light, xy), level = _light(rng, identity, frames), rng.uniform(0.8, 3.0)
    noise = rng.normal(0, level, (5, identity.size, identity.size, 3)).astype(np.float32)
    for index in range(frames):
        jaw = JAW_SHARE * identity.mouth_max * opening[index]
        frame = warp_head(identity, poses[index], jaw, 6.0 * shut[index])
        mouth_box = draw_mouth(frame, identity, poses[index], opening[index], width[index])
        gain, slope_x, slope_y = light[index]
        shade = cv2.merge([gain + slope_x * xy[..., 0] + slope_y * xy[..., 1]] * 3)
        lit = cv2.multiply(frame, shade, dtype=cv2.CV_32F) + noise[rng.integers(len(noise))]
        frame = np.clip(lit + 0.5, 0, 255).astype(np.uint8)
        yield frame, face_box(identity, poses[index], jaw), mouth_box


def face_box(identity: Identity, pose: np.ndarray, jaw: float) -> np.ndarray:
    """(x1, y1, x2, y2) in px, forehead to chin, upright around the turned head; follows the jaw."""
    x1, y1, x2, y2 = identity.box
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    middles = np.array([[x1, y], [x2, y], [x, y1], [x, y2 + 0.8 * jaw]])  # of the four sides
    left, right, top, bottom = middles @ pose[:, :2].T + pose[:, 2]
    return np.clip([left[0], top[1], right[0], bottom[1]], 0, identity.size)
