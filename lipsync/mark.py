"""A small text in a corner of every frame that says what the video is: `--mark "AI generated"`."""

from __future__ import annotations

import functools
import os

import numpy as np

from errors import InputError

SHARE = 0.04  # size of the letters as a share of the frame's height
SMALLEST = 9  # px; below, nobody reads them
GAP = 0.02  # to the frame's edges, as a share of its height


def draw_mark(frame: np.ndarray, text: str) -> None:
    """Write `text`, white with a dark rim, into the lower right corner of a uint8 BGR frame
    (H, W, 3), in place. It shrinks where the frame is too narrow. InputError: see check_mark.
    """
    rows, columns, cover, light = _stamp(text, *frame.shape[:2])
    region = frame[rows, columns]
    region[:] = np.rint(region * (1 - cover) + 255 * light).astype(np.uint8)


def check_mark(text: str) -> str:
    """The text; InputError where it has nothing to see, or signs that the font does not have."""
    from matplotlib.ft2font import FT2Font

    if not text.strip():
        raise InputError("the mark has no letters")
    known = FT2Font(_font_path()).get_charmap()
    missing = "".join(dict.fromkeys(sign for sign in text if ord(sign) not in known))
    if missing:
        raise InputError(f"the mark's font, DejaVu Sans, has no {missing!r}: use other letters")
    return text


def _font_path() -> str:
    """The font that comes with matplotlib: Latin, Greek, Cyrillic, Arabic and more."""
    import matplotlib

    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@functools.lru_cache(maxsize=8)
def _stamp(text: str, height: int, width: int) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    """Rows and columns of a frame that the text takes; how much it covers them and how bright it
    is there, both (h, w, 1), 0..1.
    """
    from PIL import Image, ImageDraw, ImageFont

    check_mark(text)
    wanted, gap, path = max(SMALLEST, round(SHARE * height)), round(GAP * height), _font_path()
    for size in range(wanted, 0, -1):
        font, rim = ImageFont.truetype(path, size), max(1, round(size / 10))
        left, top, right, bottom = font.getbbox(text, stroke_width=rim)
        if right - left <= width - 2 * gap and bottom - top <= height - 2 * gap:
            break
    layers = []
    for stroke in (rim, 0):
        layer = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(layer).text((-left, -top), text, 255, font, stroke_width=stroke)
        layers.append(np.asarray(layer, np.float32)[-height:, :width, None] / 255)
    h, w = layers[0].shape[:2]
    y, x = max(0, height - gap - h), max(0, width - gap - w)
    return slice(y, y + h), slice(x, x + w), *layers
