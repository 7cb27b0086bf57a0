"""Staged pipeline for frame-level facial affect analysis in video."""

__version__ = "0.1.0"
