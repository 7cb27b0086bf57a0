"""The command line: parse, load the configuration, call the stage, print its summary. No logic.

Heavy packages are imported inside the commands, so that `abaw --help` starts at once.
"""

from __future__ import annotations

import gc

from abaw.cli import pipeline, tools
from abaw.cli.app import app

__all__ = ["app", "main", "pipeline", "tools"]


def main() -> None:
    """Entry point of the console script."""
    gc.set_threshold(50_000)  # by default, a tenth of the start-up goes into searching fresh imports for garbage
    app()
