"""Face detection: several detectors behind one method (api.py), and their flags (arguments.py)."""

from face_detection.api import DETECTORS, NETWORKS, Box, create_detector

__all__ = ["DETECTORS", "NETWORKS", "Box", "create_detector"]
