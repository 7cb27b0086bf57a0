"""Benchmarks: python -m bench NAME. Not installed with the package; never part of the tests."""
