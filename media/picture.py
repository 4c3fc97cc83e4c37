"""Pictures, told by their content and shown as a screen shows them: still ones, and those that move
(GIF, WebP, PNG, AVIF), which count as videos whatever their names say.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from errors import InputError, require_file

if TYPE_CHECKING:
    import av
    from PIL import Image

# Pillow's names. The first of a phone's several pictures (MPO) and of a document's pages is shown.
MOVING = ("GIF", "WEBP", "PNG", "AVIF")
STILL = ("JPEG", "MPO", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "ICO", "HEIF")
# Pillow's
FAULTS = (OSError, EOFError, SyntaxError, ValueError, LookupError, TypeError, struct.error)
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands


def is_image(path: str | os.PathLike) -> bool:
    """Whether the content is one still picture."""
    from PIL import Image

    try:
        with _opened(require_file(path, "face")) as picture:
            return not _moves(picture)
    except FAULTS:
        return False
    except Image.DecompressionBombError:  # read_image refuses it
        return True


def read_image(path: str | os.PathLike) -> np.ndarray:
    """A picture as uint8 BGR (H, W, 3): upright, in sRGB, over white where it is transparent."""
    from PIL import Image

    path = require_file(path, "picture")
    try:
        with _opened(path) as picture:
            return _shown(picture)
    except (*FAULTS, Image.DecompressionBombError) as error:
        reason = "no picture" if isinstance(error, Image.UnidentifiedImageError) else error
        raise InputError(f"picture cannot be decoded: {path} ({reason})") from error


def moving_picture(path: str | os.PathLike) -> Iterator[av.VideoFrame] | None:
    """The frames of a picture that moves, with their times; None for all other files."""
    from PIL import Image

    with contextlib.suppress(*FAULTS, Image.DecompressionBombError), _opened(path) as picture:
        if _moves(picture):
            return _frames(path)
    return None


def refuse_heic(path: str | os.PathLike) -> None:
    """InputError for a photo that neither Pillow nor, as more than its tiles, FFmpeg reads."""
    with open(path, "rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:] in HEIC:
        raise InputError(
            f"{path} is a HEIC photo: pip install pillow-heif, or convert it to JPEG first, e.g. "
            "heif-convert photo.heic photo.jpg"
        )


def _opened(path: str | os.PathLike) -> Image.Image:
    from PIL import Image

    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return Image.open(path, formats=[name for name in MOVING + STILL if name in Image.OPEN])


def _moves(picture: Image.Image) -> bool:
    return picture.format in MOVING and getattr(picture, "is_animated", False)


def _frames(path: str | os.PathLike) -> Iterator[av.VideoFrame]:
    """Up to where the file is damaged, if it is."""
    import av

    time = 0.0  # milliseconds
    with contextlib.suppress(*FAULTS), _opened(path) as picture:
        for number in itertools.count():  # up to the end, which is an EOFError
            picture.seek(number)
            frame = av.VideoFrame.from_ndarray(_shown(picture), format="bgr24")
            frame.pts, frame.time_base = round(time), Fraction(1, 1000)
            yield frame
            lasts = picture.info.get("duration") or 0
            time += lasts if lasts > 10 else 100  # as browsers do


def _shown(picture: Image.Image) -> np.ndarray:
    from PIL import Image, ImageCms, ImageOps

    picture.load()
    profile = picture.info.get("icc_profile")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode[0] in "IF":  # grey, more than 8 bits
        values = np.asarray(picture, np.float32)
        unit = 1 / 257 if picture.mode != "F" else 255 if values.max() <= 1 else 1
        picture = Image.fromarray(np.clip(values * unit, 0, 255).astype(np.uint8))
    alpha = None
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        alpha, picture = picture.getchannel("A"), picture.convert("RGB")
    elif picture.mode not in ("RGB", "CMYK", "L"):
        picture = picture.convert("RGB")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):  # of other colours, or damaged
            given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            picture = ImageCms.profileToProfile(
                picture, given, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
    picture = picture.convert("RGB")
    if alpha is not None:
        picture = Image.composite(picture, Image.new("RGB", picture.size, "white"), alpha)
    return np.ascontiguousarray(np.asarray(picture)[..., ::-1])
