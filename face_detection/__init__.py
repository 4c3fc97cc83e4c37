"""Face detection: several detectors behind one method, chosen by name (see api.py)."""

from face_detection.api import DETECTORS, NETWORKS, Box, create_detector

__all__ = ["DETECTORS", "NETWORKS", "Box", "create_detector"]
