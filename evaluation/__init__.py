"""Measures of lip sync and picture quality; each module is a script and a library. Heavy packages
are imported inside the functions, so that --help answers at once.
"""
