"""A corpus on disk: its videos, clips and lists (listing.py), and one clip of it (clips.py)."""
