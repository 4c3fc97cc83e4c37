"""Face detection: several detectors behind one method (base.py), and their flags (arguments.py)."""

from enum import Enum

from face_detection.base import DETECTORS, NETWORKS, Box, create_detector

__all__ = ["DETECTORS", "NETWORKS", "Box", "FaceAlignment", "LandmarksType", "create_detector"]


class LandmarksType(Enum):
    """A released name. No landmarks are found here, whichever is chosen."""

    _2D, _2halfD, _3D = 1, 2, 3


class FaceAlignment:
    """The released call of a detector, for scripts that were written for it; new ones take
    create_detector. flip_input has no effect, as in the released program's detection.
    """

    def __init__(
        self, landmarks_type: LandmarksType, network_size=4, device: str = "cuda",
        flip_input: bool = False, face_detector: str = "sfd", verbose: bool = False, **options,
    ) -> None:  # fmt: skip
        self.face_detector = create_detector(face_detector, device, **options)

    def get_detections_for_batch(self, images) -> list[tuple[int, int, int, int] | None]:
        """The best face's whole x1, y1, x2, y2 in each of uint8 BGR (N, H, W, 3); None: no face."""
        found = self.face_detector.detect(images)
        return [tuple(max(0, int(v)) for v in faces[0][:4]) if faces else None for faces in found]
