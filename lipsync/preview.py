"""A few frames of the video that would be made, as one picture: `inference.py --preview N`."""

from __future__ import annotations

import math
import os

import numpy as np

from errors import InputError
from face_detection.track import batched
from media.files import replacing

SHEET_WIDTH = 1920  # pixels, at most


def write_preview(lipsync, face: str, audio: str, outfile: str, count: int, options: dict) -> str:
    """Write `count` frames spread over the whole video, fewer where it is shorter, row by row into
    one sheet: `outfile` with the ending .png. Returns its path.

    lipsync: a LipSync. options: of Options. Only these frames go through the network, though the
    face is looked for in all. Raises InputError, leaving nothing, where an input cannot be used.
    """
    import cv2

    path = os.path.splitext(outfile)[0] + ".png"
    opts, _, chunks = lipsync.listen(face, audio, path, options)
    source = lipsync.find(face, opts, len(chunks))
    last = len(source.order(len(chunks))) - 1
    picks = np.unique(np.linspace(0, last, count).round().astype(int))
    columns = math.ceil(math.sqrt(len(picks)))

    def scaled(frame: np.ndarray) -> np.ndarray:
        width = min(frame.shape[1], SHEET_WIDTH // columns)
        height = max(1, round(frame.shape[0] * width / frame.shape[1]))
        return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)

    shown = [scaled(frame) for frame in lipsync.frames(source, chunks, picks)]
    shown += [np.zeros_like(shown[0])] * (-len(shown) % columns)
    sheet = np.vstack([np.hstack(row) for row in batched(shown, columns)])
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with replacing(path, "wb") as file:
            file.write(cv2.imencode(".png", sheet)[1])
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path
