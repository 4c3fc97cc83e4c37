"""Measures of lip sync and picture quality; each module is a script and a library."""
