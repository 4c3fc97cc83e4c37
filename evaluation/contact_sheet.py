"""A video as one picture: its face every fifth of a second, above it the face that was heard.

    python -m evaluation.contact_sheet --video results/result_voice.mp4 --truth samples/voice.mp4 \\
        --out results/sheet.png

--truth: the video whose sound drives the lips. What the mouth should do stands above what it does.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence

import numpy as np

from errors import InputError, require_file, run_cli
from lipsync.options import seconds

SIDE = 160  # px of a face
COLUMNS = 13
SEARCHED = 8  # faces, at most, that say where the face is
MARGIN = 1.35  # side of what is shown over the face's box


def face_row(video: str, every: float, detector=None, boxes: Sequence = ()) -> list[np.ndarray]:
    """The faces (SIDE, SIDE, 3) of a video, one for every `every` seconds, all cut at one place:
    that of its `boxes`, or else of those that the detector finds.
    """
    import cv2

    from media.read import iter_frames

    frames = [frame for _, frame in iter_frames(video, 1 / every)]
    if detector is not None:
        found = detector.detect(frames[:: math.ceil(len(frames) / SEARCHED)])
        boxes = [best[0][:4] for best in found if best]
    height, width = frames[0].shape[:2]
    # without a face all of the picture
    x1, y1, x2, y2 = np.median(boxes, axis=0) if len(boxes) else (0, 0, width, height)
    side = int(min(MARGIN * max(x2 - x1, y2 - y1), height, width))
    left = int(np.clip((x1 + x2 - side) / 2, 0, width - side))
    top = int(np.clip((y1 + y2 - side) / 2, 0, height - side))
    shown = (frame[top : top + side, left : left + side] for frame in frames)
    return [cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for face in shown]


def lines(rows: list[list[np.ndarray]], columns: int) -> list[list[np.ndarray]]:
    """Rows that belong together, cut into lines of so many pictures, white where they end."""
    count = min(map(len, rows))
    columns, white = min(columns, count), np.full_like(rows[0][0], 255)
    padded = [row[:count] + [white] * (-count % columns) for row in rows]
    return [row[i : i + columns] for i in range(0, count, columns) for row in padded]


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.contact_sheet", description="A video's face as one picture."
    )
    # fmt: off
    add = parser.add_argument
    add("--video", required=True, help="what was made")
    add("--truth", help="the video whose sound drives it, shown above")
    add("--out", required=True, help="picture to write, .png or .jpg")
    add("--every", type=seconds, default=0.2, help="seconds between frames; default %(default)s")
    # fmt: on
    return parser


def main(args: argparse.Namespace) -> None:
    from evaluation.report_plots import write_sheet
    from face_detection import create_detector

    if not args.out.endswith((".png", ".jpg")):
        raise InputError(f"--out {args.out} does not end in .png or .jpg")
    videos = [require_file(path, "video") for path in (args.truth, args.video) if path is not None]
    detector = create_detector("centerface", "cpu")
    rows = [face_row(path, args.every, detector) for path in videos]
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    write_sheet(lines(rows, COLUMNS), args.out, len(rows))
    print(args.out)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
