"""The parts of benchmark.py: each measures one thing and writes one table."""
