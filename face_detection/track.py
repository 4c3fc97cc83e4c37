"""From detections to one steady face box per frame, and the crop of the face in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from errors import InputError

SMOOTHING = 5  # frames whose boxes are averaged (released inference)

BoxTuple = tuple[int, int, int, int]  # x1, y1, x2, y2; the end is exclusive


class NoFace(InputError):
    """No face in a frame that needs one."""


def smooth_boxes(boxes: Sequence[Sequence[int]]) -> list[BoxTuple]:
    """The released smoothing: box i becomes the mean of boxes i..i+4, truncated to integers.

    Where fewer than four follow, it becomes the mean of the last five, by then partly smoothed.
    """
    boxes = np.array(boxes, int)  # (N, 4)
    for index in range(len(boxes)):
        # for fewer than five boxes in all the start is negative, as in the released slice
        first = min(index, len(boxes) - SMOOTHING)
        boxes[index] = np.mean(boxes[first : first + SMOOTHING], axis=0)
    return [tuple(box) for box in boxes.tolist()]


def padded_box(
    box: Sequence[float], pads: Sequence[int], height: int, width: int
) -> BoxTuple | None:
    """A detected x1, y1, x2, y2 grown by pads (top, bottom, left, right) and cut to the frame.

    Truncated to integers first, as in the released program. None where nothing is left.
    """
    x1, y1, x2, y2 = (int(max(0, side)) for side in box[:4])
    top, bottom, left, right = pads
    x1, y1 = max(0, x1 - left), max(0, y1 - top)
    x2, y2 = min(width, x2 + right), min(height, y2 + bottom)
    return (x1, y1, x2, y2) if x2 - x1 >= 2 and y2 - y1 >= 2 else None


def track_faces(
    frames: Iterable[np.ndarray], detector, batch_size: int
) -> Iterator[tuple[np.ndarray, BoxTuple | None]]:
    """(frame, box of its best face or None) of every frame, in order, detected in batches."""
    for batch in batched(frames, batch_size):
        for frame, boxes in zip(batch, detector.detect(np.stack(batch)), strict=True):
            yield frame, padded_box(boxes[0], (0, 0, 0, 0), *frame.shape[:2]) if boxes else None


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` consecutive items; the last may be shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def crop_face(frame: np.ndarray, box: BoxTuple, size: int) -> np.ndarray:
    """The box of a frame (H, W, 3) as (size, size, 3), bilinear."""
    import cv2

    x1, y1, x2, y2 = box
    return cv2.resize(frame[y1:y2, x1:x2], (size, size))


def checked_box(box: Sequence[int], height: int, width: int) -> BoxTuple:
    """A user's --box (top, bottom, left, right) as x1, y1, x2, y2; InputError if outside."""
    top, bottom, left, right = box
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise InputError(
            f"--box {top} {bottom} {left} {right} (top bottom left right) does not lie inside the "
            f"frame of {width}x{height} pixels"
        )
    return left, top, right, bottom


def face_frames(
    face: str,
    resize_factor: int = 1,
    rotate: bool = False,
    crop: Sequence[int] = (0, -1, 0, -1),
    fps: float | None = None,
    max_short_side: int | None = None,
    skip: int = 0,
) -> Iterator[np.ndarray]:
    """Frames of the face picture or video, resized, rotated and cropped in the released order.

    fps: resample a video to this rate, by timestamp. max_short_side: first scale frames whose
    shorter side is longer down to it, to even sides. skip: leave out the first so many frames.
    """
    import cv2

    from media.picture import is_image, read_image
    from media.read import iter_frames, probe

    if is_image(face):
        frames = iter([read_image(face)])
    else:
        # by timestamp, so that a variable rate keeps its timing; a constant one comes through as is
        frames = (frame for _, frame in iter_frames(face, fps or probe(face).fps, skip))
    top, bottom, left, right = crop
    for frame in frames:
        short = min(frame.shape[:2])
        if max_short_side and short > max_short_side:
            height, width = (2 * round(s * max_short_side / short / 2) for s in frame.shape[:2])
            frame = cv2.resize(frame, (width, height))
        height, width = frame.shape[:2]
        if resize_factor > 1:
            size = (width // resize_factor, height // resize_factor)
            if min(size) < 1:
                raise InputError(f"--resize_factor {resize_factor} leaves nothing of {face}")
            frame = cv2.resize(frame, size)
        if rotate:
            frame = cv2.rotate(frame, cv2.ROTATE_90_CLOCKWISE)
        cropped = frame[
            top : None if bottom == -1 else bottom, left : None if right == -1 else right
        ]
        if min(cropped.shape[:2]) < 2:
            raise InputError(
                f"--crop {top} {bottom} {left} {right} leaves nothing of a frame of "
                f"{frame.shape[1]}x{frame.shape[0]} pixels"
            )
        yield np.ascontiguousarray(cropped)
