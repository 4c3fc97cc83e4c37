"""Face detection: several detectors behind one method (api.py), and their flags (arguments.py)."""

from face_detection.api import DETECTORS, NETWORKS, create_detector
from face_detection.base import Box

__all__ = ["DETECTORS", "NETWORKS", "Box", "create_detector"]
