"""The parts of benchmark.py: each measures one thing and writes one table. Heavy packages are
imported inside the functions, so that --help answers at once.
"""
