"""Preparing data: from videos to clips (preprocess.py runs all of this), and looking after them."""
