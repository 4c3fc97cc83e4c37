"""A preprocessed clip on disk: which windows it holds, its face crops (JPEG, or packed), its mel.

A packed clip has `frames_<img_size>.npy` beside or instead of its JPEGs (preparation/pack.py): the
same pixels, already decoded and resized.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import mmap
import os
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from audio import MEL_RATE
from hparams import HParams

MIN_CROPS = 3  # a clip needs more than this many times syncnet_T crops
CROP_NAME = re.compile(r"(0|[1-9][0-9]{0,8})\.jpg")
# JPEG decoders shrink by these at a fraction of the cost of the whole picture
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}

logger = logging.getLogger(__name__)


class UnreadableFrame(ValueError):
    """A face crop is missing or is no picture."""


def get_frame_id(path: str) -> int:
    """Frame number of a crop: 12 for `.../12.jpg`."""
    return int(os.path.splitext(os.path.basename(path))[0])


def get_window(start_path: str, length: int = 5) -> list[str]:
    """Paths of the `length` crops that begin with `start_path`, existing or not."""
    folder, first = os.path.dirname(start_path), get_frame_id(start_path)
    return [os.path.join(folder, f"{frame}.jpg") for frame in range(first, first + length)]


def read_window(paths: Sequence[str], img_size: int = 96, reduction: int = 1) -> np.ndarray:
    """The crops as uint8 BGR (T, img_size, img_size, 3); UnreadableFrame names a bad one.

    reduction: 1, 2, 4 or 8, by which a crop is shrunk in decoding before it is resized; a crop
    that would be left with a side below twice img_size is decoded in full all the same.
    """
    window = np.empty((len(paths), img_size, img_size, 3), np.uint8)
    for path, place in zip(paths, window, strict=True):
        image = _decode(path, reduction)
        if reduction > 1 and min(image.shape[:2]) < 2 * img_size:
            image = _decode(path, 1)
        cv2.resize(image, (img_size, img_size), dst=place)
    return window


def _decode(path: str, reduction: int) -> np.ndarray:
    try:
        image = cv2.imread(path, REDUCED[reduction])
    except cv2.error as error:  # e.g. a header that claims more pixels than OpenCV accepts
        raise UnreadableFrame(f"cannot read {path} ({error.err})") from error
    if image is None:
        raise UnreadableFrame(f"cannot read {path}")
    return image


def choose_reduction(path: str, img_size: int) -> int:
    """The largest of 8, 4, 2 that leaves the crop's shorter side at twice img_size or more, else 1.

    From the file's header alone. A clip's crops are alike in size, so its first one speaks for it.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            side = min(picture.size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return 1  # whoever reads the crop will say what is wrong with it
    return next((factor for factor in (8, 4, 2) if side // factor >= 2 * img_size), 1)


def map_array(path: str) -> np.ndarray:
    """The array of an .npy file, mapped read-only; OSError or ValueError where it is damaged.

    As np.load(path, mmap_mode="r"), at a quarter of the time: a header met before is not parsed
    again. The file's size is checked each time, as touching a mapping past its end is fatal.
    """
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = 10 + int.from_bytes(data[8:10], "little")  # magic, version and this number: 10
        dtype, shape, order, offset = _parse_header(data[:length])
    except ValueError as error:
        raise ValueError(f"{path} is no array file ({error})") from error
    if offset + dtype.itemsize * math.prod(shape) != len(data):
        raise ValueError(f"{path} is damaged: {len(data)} bytes do not hold {shape} {dtype}")
    return np.ndarray(shape, dtype, data, offset, order=order)


@functools.lru_cache(maxsize=4096)
def _parse_header(header: bytes) -> tuple[np.dtype, tuple[int, ...], str, int]:
    """(dtype, shape, memory order, where the data begin) of an .npy header, format 1.0."""
    file = io.BytesIO(header)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"its format is {version}, expected (1, 0)")
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError("its header is damaged") from error
    if dtype.hasobject or min(shape, default=0) < 0:
        raise ValueError("it does not hold plain numbers")
    return dtype, shape, "F" if fortran else "C", file.tell()


def open_mel(folder: str, num_mels: int = 80) -> np.ndarray:
    """A clip's mel spectrogram (T, num_mels), mapped; OSError or ValueError where it is damaged."""
    mel = map_array(os.path.join(folder, "mel.npy"))
    if mel.ndim != 2 or mel.shape[1] != num_mels or mel.dtype.kind != "f":
        raise ValueError(
            f"{folder}/mel.npy holds {mel.shape} {mel.dtype}, expected floats (T, {num_mels})"
        )
    return mel


def pack_path(folder: str, img_size: int) -> str:
    return os.path.join(folder, f"frames_{img_size}.npy")


def pack_dtype(img_size: int) -> np.dtype:
    """One crop in a packed clip: its frame number and its uint8 BGR pixels."""
    return np.dtype([("frame", "<i4"), ("image", "u1", (img_size, img_size, 3))])


def open_pack(folder: str, img_size: int) -> np.ndarray:
    """A clip's packed crops, (N,) of pack_dtype, mapped; OSError or ValueError where damaged."""
    path = pack_path(folder, img_size)
    pack = map_array(path)
    if pack.dtype != pack_dtype(img_size) or pack.ndim != 1 or not len(pack):
        raise ValueError(f"{path} is no pack of {img_size} x {img_size} crops")
    return pack


def packed_frames(folder: str, img_size: int, jpegs: np.ndarray) -> np.ndarray:
    """Frame numbers (N,) of a clip's pack; ValueError where it is damaged or does not belong to the
    clip's JPEGs, whose frame numbers (possibly none) are `jpegs`.
    """
    pack = open_pack(folder, img_size)
    # the first and the last tell enough here: reading all would fetch every page of the file
    first, last = int(pack["frame"][0]), int(pack["frame"][-1])
    if len(jpegs):
        if (len(pack), first, last) != (len(jpegs), jpegs[0], jpegs[-1]):
            raise ValueError(f"{pack_path(folder, img_size)} holds other frames than the JPEGs")
        return jpegs
    if last - first + 1 == len(pack):
        return np.arange(first, last + 1, dtype=np.int32)
    frames = np.array(pack["frame"])
    if first < 0 or (np.diff(frames) <= 0).any():
        raise ValueError(f"{pack_path(folder, img_size)} is damaged: its frames are not in order")
    return frames


@dataclass(slots=True)
class Clip:
    """A preprocessed clip: its folder, its crops, the frames at which a complete window of crops
    begins, and which of those may serve as the sample's own window because their audio is complete
    too.
    """

    folder: str
    frames: np.ndarray  # (N,) frame numbers of the crops
    starts: np.ndarray  # (S,) frame numbers, a subset
    usable: np.ndarray  # (U,) frame numbers, a subset of those
    img_size: int
    packed: bool  # whether the crops are read from the pack
    reduction: int | None = None  # of its JPEGs in decoding; None: not looked up yet

    def frame_path(self, frame: int) -> str:
        return os.path.join(self.folder, f"{frame}.jpg")

    def read(self, start: int, length: int, top: int = 0) -> np.ndarray:
        """Crops of the frames start, start + 1 ..., uint8 BGR (length, img_size - top, img_size,
        3), from pixel row `top` down.

        A pack that turns out damaged is reported once and the JPEGs are read from then on;
        ValueError or OSError where there are none.
        """
        fault = None
        if self.packed:
            try:
                return self._read_packed(start, length, top)
            except (OSError, ValueError) as error:
                fault = error
        if self.reduction is None:
            self.reduction = choose_reduction(self.frame_path(self.frames[0]), self.img_size)
        try:
            paths = [self.frame_path(frame) for frame in range(start, start + length)]
            window = read_window(paths, self.img_size, self.reduction)
        except UnreadableFrame:
            if fault is not None:
                raise fault from None
            raise
        if fault is not None:
            logger.warning("%s; the JPEGs are read instead", fault)
            self.packed = False
        return np.ascontiguousarray(window[:, top:])

    def _read_packed(self, start: int, length: int, top: int) -> np.ndarray:
        pack = open_pack(self.folder, self.img_size)
        first = int(np.searchsorted(self.frames, start))
        window = pack[first : first + length]
        if window["frame"].tolist() != list(range(start, start + length)):
            raise ValueError(f"{pack_path(self.folder, self.img_size)} is damaged: frame {start}")
        return window["image"][:, top:].copy()


def index_clip(folder: str, hp: HParams, individual_mels: bool) -> Clip | str:
    """The clip in `folder`, or the reason why it holds no window. `individual_mels`: the
    generator's stricter rule.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return "folder missing"
    frames, packed = list_crops(names), False
    if os.path.basename(pack_path(folder, hp.img_size)) in names:
        try:
            frames, packed = packed_frames(folder, hp.img_size, frames), True
        except (OSError, ValueError) as error:
            if not len(frames):
                return "no face crops but a damaged pack"
            logger.warning("%s; the JPEGs are read instead", error)
    if len(frames) <= MIN_CROPS * hp.syncnet_T:
        return f"{MIN_CROPS * hp.syncnet_T} face crops or fewer"
    try:
        rows = len(open_mel(folder, hp.num_mels))
    except (OSError, ValueError):
        return "mel.npy missing or damaged"
    starts, usable = _windows(frames, rows, hp, individual_mels)
    if len(starts) < 2 or not len(usable):
        return "no five consecutive crops with complete audio"
    clip = Clip(folder, frames, starts, usable, hp.img_size, packed)
    if not packed:
        clip.reduction = choose_reduction(clip.frame_path(frames[0]), hp.img_size)
    return clip


def list_crops(names: Sequence[str]) -> np.ndarray:
    """The frame numbers, in order, of the crops among a folder's file names."""
    return np.array(sorted(int(name[:-4]) for name in names if CROP_NAME.fullmatch(name)), np.int32)


def _windows(
    frames: np.ndarray, rows: int, hp: HParams, individual_mels: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The starts and the usable starts of a clip with these crops and so many mel rows."""
    reach = hp.syncnet_T - 1
    starts = frames[: -reach or None][frames[reach:] - frames[: len(frames) - reach] == reach]
    needed = _rows_needed(starts, hp)
    if individual_mels:  # the last frame's own window begins one frame before it
        needed = np.maximum(needed, _rows_needed(starts + reach - 1, hp))
        needed = np.where(starts == 0, np.inf, needed)
    return starts, starts[needed <= rows]


def _rows_needed(starts: np.ndarray, hp: HParams) -> np.ndarray:
    return np.floor(MEL_RATE * starts / hp.fps) + hp.syncnet_mel_step_size
