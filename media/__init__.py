"""Video and sound in and out (read.py, write.py), streams that run ahead, whole files."""
