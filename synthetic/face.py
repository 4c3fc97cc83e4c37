"""Identities for the synthetic corpus: one portrait, reshaped, recoloured and freed of its smile.

The base is NASA's public-domain portrait that ships inside scikit-image. synthetic/render.py makes
each frame by one warp of it and draws the mouth.

Coordinates: "head" space is the 300 x 300 crop of the portrait, where a face is about 113 px high;
an identity's field maps head space to the portrait's pixels, an affine matrix per frame maps head
space to the frame.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import cv2
import numpy as np

SIZES = (160, 176, 192, 208, 224, 240, 256)  # frame sides in px, one per speaker
CROP_X, SIDE = 75, 300  # columns 75..374 and rows 0..299 of the portrait hold the head
GRID = 2  # head-space px between two samples of the warp fields
BASE_SCALE = 2  # the portrait is enlarged once, so that the warp does not soften it

# Landmarks in head space, read off the portrait; the face box is where CenterFace and S3FD put it.
FACE_BOX = np.array([104.0, 63.0, 196.0, 176.5])
FACE_CENTRE = np.array([149.5, 119.0])
EYES = np.array([[128.3, 101.5], [172.0, 103.5]])
NOSE, MOUTH, CHIN = np.array([149.0, 124.0]), np.array([148.5, 145.5]), np.array([147.0, 177.0])
SMILE_X = (121, 135, 149, 162, 176, 177, 166, 149, 132, 121)  # the portrait's own mouth,
SMILE_Y = (137, 135, 135, 136, 139, 146, 154, 158, 155, 146)  # with a margin
TILT = 2.0  # degrees by which the portrait's head leans


@dataclass(frozen=True)
class Identity:
    """Everything about a speaker's looks; arrays are in head space unless said otherwise."""

    size: int  # frame side, px
    base: np.ndarray  # (600, 600, 3) uint8 BGR portrait, enlarged
    field: np.ndarray  # (150, 150, 2) float32: portrait coordinate of each head-space sample
    jaw: np.ndarray  # (150, 150) float32: share of the jaw's drop
    lid: np.ndarray  # (150, 150) float32: share of the eyelid's drop
    mouth: np.ndarray  # (2,) centre of the closed mouth
    mouth_half: float  # half of the widest corner-to-corner distance
    mouth_max: float  # inner-lip height at opening 1
    lips: tuple[float, float]  # thickness of the upper and lower lip
    lip_bgr: np.ndarray  # (3,)
    teeth: float  # 0..1, how much of the upper teeth shows
    box: np.ndarray  # (4,) face box
    scale: float  # frame px per head-space px
    tilt: float  # resting head angle, degrees


def _blob(centre: np.ndarray, sigma_x: float, sigma_y: float, step: int = GRID) -> np.ndarray:
    """Gaussian bump of height 1 over head space, sampled every `step` px."""
    axis = np.arange(0, SIDE, step, dtype=np.float32)
    column = np.exp(-0.5 * ((axis - centre[1]) / sigma_y) ** 2)
    return column[:, None] * np.exp(-0.5 * ((axis - centre[0]) / sigma_x) ** 2)


def _ease(x: np.ndarray) -> np.ndarray:
    """Smooth step from 0 at x = 0 to 1 at x = 1."""
    x = np.clip(x, 0, 1)
    return (3 - 2 * x) * x**2


def _segment(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """GrabCut from a hand-drawn guess -> soft (300, 300) float32 alpha."""
    cv2.setRNGSeed(0)
    cv2.grabCut(image, mask, None, np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    inside = cv2.morphologyEx(mask & 1, cv2.MORPH_CLOSE, np.ones((11, 11)))  # no holes in the hair
    inside = cv2.erode(inside.astype(np.float32), np.ones((3, 3)))
    return cv2.GaussianBlur(inside, (0, 0), 1.2)


def _fill(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Replace the pixels in `hole` (H, W) by the membrane its rim spans (Laplace)."""
    filled, inside = image.astype(np.float32), hole[..., None]
    filled[hole] = filled[cv2.dilate(hole.astype(np.uint8), np.ones((5, 5))) > hole].mean(axis=0)
    x, y, width, height = cv2.boundingRect(hole.astype(np.uint8))
    part = (slice(y - 4, y + height + 4), slice(x - 4, x + width + 4))
    for _ in range(600):
        filled[part] = np.where(inside[part], cv2.blur(filled[part], (3, 3)), filled[part])
    return filled


@functools.lru_cache(maxsize=1)
def _portrait() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(BGR (300, 300, 3) without the mouth, person alpha, skin alpha (300, 300, 1)), float32."""
    from skimage import data

    image = np.ascontiguousarray(data.astronaut()[:SIDE, CROP_X : CROP_X + SIDE, ::-1])
    guess = np.full((SIDE, SIDE), cv2.GC_PR_BGD, np.uint8)
    cv2.ellipse(guess, (147, 78), (78, 72), 0, 0, 360, cv2.GC_PR_FGD, -1)
    guess[185:, 20:290] = cv2.GC_PR_FGD
    cv2.ellipse(guess, (150, 105), (50, 70), 0, 0, 360, cv2.GC_FGD, -1)
    guess[230:, 60:250] = cv2.GC_FGD
    guess[:10] = guess[:130, :60] = guess[:130, 235:] = guess[215:240, 245:270] = cv2.GC_BGD
    person = _segment(image, guess)
    guess[:] = cv2.GC_BGD
    guess[72:192, 94:204] = cv2.GC_PR_FGD
    cv2.ellipse(guess, (148, 126), (34, 42), 0, 0, 360, cv2.GC_FGD, -1)
    skin = _segment(image, guess) * person
    smile = np.array([SMILE_X, SMILE_Y], np.int32).T
    hole = cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [smile], 255)
    clean = _fill(image, hole > 0)
    grain = np.random.default_rng(0).normal(0, 2.0, (SIDE, SIDE, 1))
    soft = cv2.GaussianBlur(hole.astype(np.float32) / 255, (0, 0), 1.5)[..., None]
    image = image * (1 - soft) + (clean + cv2.GaussianBlur(grain, (0, 0), 0.7)[..., None]) * soft
    return np.clip(image, 0, 255).astype(np.float32), person[..., None], skin[..., None]


def _background(rng: np.random.Generator) -> np.ndarray:
    """A blurred room: two colours, a gradient, some soft rectangles; (300, 300, 3) float32."""
    first, second = rng.uniform(30, 215, (2, 3)) * 0.5 + rng.uniform(20, 110)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE - 0.5
    ramp = np.clip(x * np.cos(angle) + y * np.sin(angle) + 0.5, 0, 1)[..., None]
    room = (first * ramp + second * (1 - ramp)).astype(np.float32)
    for _ in range(rng.integers(0, 7)):
        x1, y1 = rng.integers(-60, SIDE, 2)
        width, height = rng.integers(20, 130, 2)
        colour = room[np.clip(y1, 0, SIDE - 1), np.clip(x1, 0, SIDE - 1)] + rng.normal(0, 40, 3)
        cv2.rectangle(room, [int(x1), int(y1), int(width), int(height)], colour.tolist(), -1)
    cloud = cv2.resize(rng.normal(0, 6, (12, 12, 3)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    return cv2.GaussianBlur(room, (0, 0), rng.uniform(1.5, 6)) + cloud.astype(np.float32)


def _recolour(
    image: np.ndarray, lightness: float, gamma: float, chroma: float, hue: float
) -> np.ndarray:
    """Change float BGR in Lab: L (0..1) to lightness * L^gamma, chroma times, hue + degrees."""
    lab = cv2.cvtColor(np.clip(image, 0, 255).astype(np.float32) / 255, cv2.COLOR_BGR2LAB)
    lab[..., 0] = 100 * np.clip(lightness * (lab[..., 0] / 100) ** gamma, 0, 1)
    turn, (a, b) = np.deg2rad(hue), (lab[..., 1].copy(), lab[..., 2].copy())
    lab[..., 1] = chroma * (a * np.cos(turn) - b * np.sin(turn))
    lab[..., 2] = chroma * (a * np.sin(turn) + b * np.cos(turn))
    return cv2.cvtColor(lab, cv2.COLOR_LAB2BGR) * 255


def _paint(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A speaker's colours: ((300, 300, 3) float32 portrait, (3,) lip colour)."""
    image, person, skin = _portrait()
    tone = rng.uniform(0, 1)  # 0 light .. 1 dark
    chroma, hue = rng.uniform(0.85, 1.2) + 0.15 * tone, rng.uniform(-9, 9)
    face = _recolour(image, 1.02 - 0.3 * tone, 1 + 0.45 * tone, chroma, hue)
    hair = _recolour(image, *rng.uniform((0.35, 0.9, 0.2, -25), (1.15, 1.4, 1.2, 12)))
    cloth = _recolour(image, *rng.uniform((0.5, 1, 0.2, -180), (1.05, 1, 1, 180)))
    if rng.random() < 0.3:  # a shaved beard
        beard = _blob(CHIN + [1, -10], 34, 22, 1) * (1 - _blob(MOUTH - [0, 16], 24, 12, 1))
        face = face * (1 - rng.uniform(0.1, 0.28) * beard[..., None] * np.array([0.8, 1, 1]))
    rows = np.arange(SIDE, dtype=np.float32)[:, None, None]
    is_cloth = np.clip((rows - 148) / 6, 0, 1)  # below the ears all that is not skin is clothing
    body = hair * (1 - is_cloth) + cloth * is_cloth
    picture = (face * skin + body * (1 - skin)) * person + _background(rng) * (1 - person)
    patch = face[162:170, 138:158].mean(axis=(0, 1))
    lips = patch * rng.uniform(0.88, 1.05) * np.array([0.66, 0.60, 0.86])
    lips += [8, 0, rng.uniform(0, 18)]
    return np.clip(picture, 0, 255).astype(np.float32), np.clip(lips, 0, 255)


def _shape(rng: np.random.Generator) -> np.ndarray:
    """A speaker's geometry: (150, 150, 2) float32, the portrait coordinate at each sample."""
    axis = np.arange(0, SIDE, GRID, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    field = np.stack([x, y], axis=-1)

    def stretch(centre: np.ndarray, sigma: tuple, x_factor: float, y_factor: float) -> None:
        bump = _blob(centre, *sigma)
        field[..., 0] += (x - centre[0]) * (1 / x_factor - 1) * bump
        field[..., 1] += (y - centre[1]) * (1 / y_factor - 1) * bump

    stretch(FACE_CENTRE, (60, 75), rng.uniform(0.88, 1.13), rng.uniform(0.93, 1.07))
    jaw = CHIN - [0, 12]
    stretch(jaw, (42, 24), rng.uniform(0.88, 1.14), rng.uniform(0.94, 1.1))
    stretch(EYES.mean(axis=0), (30, 11), rng.uniform(0.93, 1.08), 1.0)  # distance of the eyes
    stretch(NOSE, (11, 14), rng.uniform(0.82, 1.25), rng.uniform(0.9, 1.12))
    size = rng.uniform(0.9, 1.2)
    for eye in EYES:
        stretch(eye, (9, 6), size, size)
    field[..., 1] += rng.uniform(-2.5, 2.5) * _blob(EYES.mean(axis=0) - [0, 11], 34, 7)  # brows
    return field


def _locate(field: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Head-space position of a portrait point: the fixed point of p = point - (field(p) - p)."""
    place = np.asarray(point, float)
    for _ in range(20):
        sample = (place / GRID).astype(np.float32)[None, None]
        place = place + (point - cv2.remap(field, sample, None, cv2.INTER_LINEAR)[0, 0])
    return place


def make_identity(rng: np.random.Generator, sizes: tuple[int, ...] = SIZES) -> Identity:
    """Draw a speaker's looks; the frame side is one of `sizes`."""
    size, (picture, lip_bgr), field = int(rng.choice(sizes)), _paint(rng), _shape(rng)
    marks = (MOUTH, CHIN, *EYES, FACE_BOX[:2], FACE_BOX[2:])
    mouth, chin, *eyes, corner, other = (_locate(field, mark) for mark in marks)
    mouth = mouth + [0, rng.uniform(-1.5, 1.5)]
    rows = np.arange(0, SIDE, GRID, dtype=np.float32)[:, None]
    reach = _ease((rows - mouth[1]) / (chin[1] - 8 - mouth[1]))  # from the mouth to the chin
    back = _ease((chin[1] + 34 - rows) / 32)  # the collar stays where it is
    jaw = reach * back * _blob(np.array([mouth[0], 0]), 30, 1e6)
    lid = sum(_blob(eye + [0, 1], 10, 4.2) for eye in eyes)
    base = cv2.resize(picture, None, fx=BASE_SCALE, fy=BASE_SCALE, interpolation=cv2.INTER_CUBIC)
    base, box = np.clip(base, 0, 255).astype(np.uint8), np.concatenate([corner, other])
    identity = Identity(
        size=size,
        base=base,
        field=field,
        jaw=jaw.astype(np.float32),
        lid=lid.astype(np.float32),
        mouth=mouth,
        mouth_half=rng.uniform(16.5, 20.0),
        mouth_max=rng.uniform(14.0, 17.5),
        lips=(rng.uniform(2.6, 4.2), rng.uniform(3.4, 5.6)),
        lip_bgr=lip_bgr,
        teeth=rng.uniform(0.2, 1.0),
        box=box,
        scale=rng.uniform(0.46, 0.57) * size / (box[3] - box[1]),
        tilt=rng.uniform(-3, 3) - TILT,
    )
    return _mirrored(identity) if rng.random() < 0.5 else identity


def _mirrored(identity: Identity) -> Identity:
    """The identity in a mirror. Only the grid's columns turn; `field` reads the same portrait."""
    last, (x1, y1, x2, y2) = SIDE - GRID, identity.box
    grids = {name: getattr(identity, name)[:, ::-1].copy() for name in ("field", "jaw", "lid")}
    return replace(
        identity,
        **grids,
        mouth=np.array([last - identity.mouth[0], identity.mouth[1]]),
        box=np.array([last - x2, y1, last - x1, y2]),
        tilt=-identity.tilt,
    )
