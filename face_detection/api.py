"""What every face detector here promises, and how one is made.

    detector = create_detector("centerface")
    faces = detector.detect(frames)   # frames: uint8 BGR (N, H, W, 3); faces: N lists of Box

`sfd` is the paper's detector, `centerface` needs no download, `boxes` reads known boxes from JSON.
A detector is not shared among threads (networks keep buffers, `boxes` a position): one per worker.
"""

from __future__ import annotations

from errors import InputError
from face_detection.base import Detector

NETWORKS = ("centerface", "sfd")  # these look at the picture
DETECTORS = (*NETWORKS, "boxes")


def create_detector(name: str, device: str = "cpu", **options) -> Detector:
    """The detector called `name`, on `device` ("cpu", "cuda", "cuda:1", ...).

    sfd: `weights` (a path), `threshold`, `max_side`, `half`. centerface: `max_side`, `threshold`,
    `backend`. boxes: `path`. InputError for an unknown name and for whatever the detector cannot be
    made from.
    """
    # Imported here: each detector brings packages that take seconds to load.
    if name == "sfd":
        from face_detection.sfd import SFDDetector

        return SFDDetector(device=device, **options)
    if name == "centerface":
        from face_detection.centerface import CenterFaceDetector

        return CenterFaceDetector(device=device, **options)
    if name == "boxes":
        from face_detection.boxes import KnownBoxes

        return KnownBoxes(**options)  # reads a file: any device will do
    raise InputError(f"unknown face detector {name!r}: choose one of {', '.join(DETECTORS)}")
