"""A preprocessed clip on disk: which windows it holds, its face crops, its mel."""

from __future__ import annotations

import os
import re
import threading
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from audio import MEL_RATE
from hparams import HParams
from media.files import read_object

# Python 3.11's parser, which reads an array file's header, counts its depth for all threads
# together and stops one of them by a SystemError now and then
_PARSER = threading.Lock()
MIN_CROPS = 3  # a clip needs more than this many times syncnet_T crops
CROP_NAME = re.compile(r"(0|[1-9][0-9]{0,8})\.jpg")
# JPEG decoders shrink by these at a fraction of the cost of the whole picture
REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


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


def open_mel(folder: str, num_mels: int = 80) -> np.ndarray:
    """A clip's mel spectrogram (T, num_mels), mapped; OSError or ValueError where it is damaged."""
    path = os.path.join(folder, "mel.npy")
    try:
        with _PARSER:
            mel = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, OverflowError, ValueError, tokenize.TokenError) as error:
        raise ValueError(f"{path} is no array file, or a damaged one ({error})") from error
    if not isinstance(mel, np.ndarray):  # a zip of arrays
        raise ValueError(f"{path} is no array file")
    if mel.ndim != 2 or mel.shape[1] != num_mels or mel.dtype.kind != "f":
        raise ValueError(f"{path} holds {mel.shape} {mel.dtype}, expected floats (T, {num_mels})")
    return np.asarray(mel)


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
    reduction: int  # of its JPEGs in decoding
    shift: int = 0  # frames by which its sound is delayed: frame f hears what mel.npy has at f - s

    def frame_path(self, frame: int) -> str:
        return os.path.join(self.folder, f"{frame}.jpg")

    def read(self, start: int, length: int, top: int = 0) -> np.ndarray:
        """Crops of the frames start, start + 1 ..., uint8 BGR (length, img_size - top, img_size,
        3), from pixel row `top` down. UnreadableFrame where one is missing or damaged.
        """
        paths = [self.frame_path(frame) for frame in range(start, start + length)]
        window = read_window(paths, self.img_size, self.reduction)
        return np.ascontiguousarray(window[:, top:])


def index_clip(folder: str, hp: HParams, individual_mels: bool, shift: int = 0) -> Clip | str:
    """The clip in `folder`, or the reason why it holds no window. `individual_mels`: the
    generator's stricter rule. shift: as its filelist has it.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        return "folder missing"
    frames = list_crops(names)
    if len(frames) <= MIN_CROPS * hp.syncnet_T:
        return f"{MIN_CROPS * hp.syncnet_T} face crops or fewer"
    try:
        rows = len(open_mel(folder, hp.num_mels))
    except (OSError, ValueError):
        return "mel.npy missing or damaged"
    reach = hp.syncnet_T - 1
    starts = frames[: len(frames) - reach]
    starts = starts[frames[reach:] - starts == reach]
    first = starts - shift  # in frames of its sound: negative before that begins
    last = first + max(0, reach - 1) if individual_mels else first  # whose window is heard
    heard = np.floor(MEL_RATE * last / hp.fps) + hp.syncnet_mel_step_size <= rows
    usable = starts[heard & (first >= individual_mels)]  # its own begins one frame before a frame
    if len(starts) < 2 or not len(usable):
        return "no five consecutive crops with complete audio"
    reduction = choose_reduction(os.path.join(folder, f"{frames[0]}.jpg"), hp.img_size)
    return Clip(folder, frames, starts, usable, hp.img_size, reduction, shift)


def read_record(folder: str | os.PathLike) -> dict:
    """What preprocess.py wrote about a clip: its clip.json; ValueError where that is none."""
    return read_object(os.path.join(folder, "clip.json"), "a clip's record")


def list_crops(names: Sequence[str]) -> np.ndarray:
    """The frame numbers, in order, of the crops among a folder's file names."""
    return np.array(sorted(int(name[:-4]) for name in names if CROP_NAME.fullmatch(name)), np.int32)
