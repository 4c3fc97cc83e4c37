"""The face that the network sees whole, mouth and all, beside the masked one: its reference.

The released program shows it the very frame that is redrawn. A network that has learnt to copy
follows that mouth instead of the speech; one face for the whole video cannot tell it anything.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from errors import InputError, require_file
from lipsync.options import REFERENCES, Options

LOOKED_AT = 250  # frames from the video's start in which a resting mouth is looked for
STRIDE = 2  # every so many of them; the lips of /p/ are closed for about two frames
AROUND = 2  # looks before and after in which a mouth at rest is closed, too

logger = logging.getLogger(__name__)


def find_reference(source, img_size: int, detector: Callable[[], object]) -> np.ndarray | None:
    """The reference (1, S, S, 3) that `source.opts.reference` means; None for the frame itself.

    source: a FaceSource. detector: makes the detector for a picture. Raises InputError where the
    picture cannot be used.
    """
    from face_detection.track import crop_face

    choice = source.opts.reference
    if choice not in REFERENCES:
        frame, box = _picture(choice, source.opts, detector)
    elif choice == "same" or source.still:
        return None
    else:
        seen = [index for index, box in enumerate(source.boxes) if box is not None]
        index = _resting(source, seen) if choice == "rest" else seen[0]
        ((frame, box),) = source.at([index])
    return crop_face(frame, box, img_size)[None]


def _picture(path: str, opts: Options, detector: Callable[[], object]) -> tuple:
    """A picture and its face's box. What the options say of the video's frames is not for it."""
    from face_detection.track import NoFace
    from lipsync.source import find_source
    from media.picture import is_image

    require_file(path, "reference")
    if not is_image(path):
        names = ", ".join(REFERENCES)
        raise InputError(f"reference is no picture: {path}; give a picture, or one of {names}")
    try:
        found = find_source(path, Options(pads=opts.pads), 1, detector, {"detector": "any"})
    except NoFace as error:  # whose advice is for the face that is driven
        raise InputError(f"no face found in the reference {path}: give another picture") from error
    return next(found.at([0]))


def _resting(source, seen: Sequence[int]) -> int:
    """Which of the frames `seen` shows the most closed mouth that stays closed for a moment."""
    from face_detection.landmarks import BATCH, MissingLandmarks, lip_opening, load_landmarks
    from face_detection.track import batched

    looked_at = [index for index in seen if index < LOOKED_AT][::STRIDE] or seen[:1]
    try:
        landmarks = load_landmarks()
    except MissingLandmarks as error:
        logger.warning("--reference rest is first: %s", error)
        return seen[0]
    openings: list[float] = []
    for batch in batched(source.at(looked_at), BATCH):
        openings += lip_opening(landmarks.find(*zip(*batch, strict=True))).tolist()
    return looked_at[int(np.argmin(widest(openings)))]


def widest(openings: Sequence[float]) -> np.ndarray:
    """The widest opening in AROUND looks before and after each: lips that close in passing, as in
    m, b and p, are not at rest. Where a video begins and ends, of which nothing is known: infinite,
    if it has more looks than that.
    """
    beyond = np.inf if len(openings) > 2 * AROUND else -np.inf
    padded = np.pad(np.asarray(openings, float), AROUND, constant_values=beyond)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * AROUND + 1).max(axis=1)
