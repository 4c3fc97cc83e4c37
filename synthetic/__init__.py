"""The invented corpus: python -m synthetic."""
