"""Write docs/commands.md from the commands' own --help: python docs/reference.py [--check]."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from abaw.cli import app

PAGE = Path(__file__).parent / "commands.md"
INTRO = """# Commands

Made from the commands' own help by `make docs`; a test keeps both equal. Exit codes: 0 done, 1 bug, 2 usage,
3 configuration, 4 data, 5 missing package, weights or device, 6 finished with failures, 130 interrupted.
"""


def render() -> str:
    """The whole page."""
    names = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    return "\n".join([INTRO, *(f"## abaw {name}\n\n```\n{_help(name)}\n```\n" for name in names)])


def _help(name: str) -> str:
    # The width is fixed, so that the page does not depend on the terminal.
    result = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"}).invoke(app, [name, "--help"], prog_name="abaw")
    return result.stdout.strip()


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
