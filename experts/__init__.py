"""What lip-sync experts say of clips: in sync or not (accuracy.py), and by how much (offset.py)."""
