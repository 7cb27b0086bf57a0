"""Write docs/commands.md from the commands' own --help, and docs/weights.md from the registries of encoders."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from abaw.cli import app

FOLDER = Path(__file__).parent
INTRO = """# Commands

Made from the commands' own help by `make docs`; a test keeps both equal. Exit codes: 0 done, 1 bug, 2 usage,
3 configuration, 4 data, 5 missing package, weights or device, 6 finished with failures, 130 interrupted.
"""

WEIGHTS_INTRO = """# Weights of other programs

Made from the registries by `make docs`; a test keeps both equal. Files are looked for in `run.weights_dir` (default
`~/.cache/abaw`) and in torch's hub cache under these names, or are named in the configuration; nothing is downloaded. A
sha256 is what the authors or other users of a file state; where none is given, none is published. Licences are those of
the weights, to be read where they come from.
"""


def pages() -> dict[str, str]:
    """Name of every page made here, and its text."""
    return {"commands.md": render(), "weights.md": render_weights()}


def render_weights() -> str:
    """The page of weights: a section per encoder that has published files."""
    from abaw.encoders.audio import AUDIO_ENCODERS
    from abaw.encoders.visual import VISUAL_ENCODERS

    sections = []
    for name, entry in VISUAL_ENCODERS.items():
        about = entry.published
        if about.files:
            rows = [f"| {file} | {_digits(sha256)} |" for file, sha256 in about.files.items()]
            rows = ["| file | sha256 |", "|---|---|", *rows]
            text = f"Features: {entry.width}. Images: {entry.images}.\n\nFrom {about.origin}; {about.licence}."
            sections.append(f"## {name}\n\n{text}\n\n" + "\n".join(rows) + "\n")
    for name, entry in AUDIO_ENCODERS.items():
        if entry.weights:
            rows = [f"| {model} | {one.url} | {_digits(one.sha256)} |" for model, one in entry.weights.items()]
            rows = ["| model | file | sha256 |", "|---|---|---|", *rows]
            sections.append(f"## {name}\n\nFrom {entry.origin}; {entry.licence}.\n\n" + "\n".join(rows) + "\n")
    return "\n".join([WEIGHTS_INTRO, *sections])


def _digits(sha256: str) -> str:
    return sha256 if len(sha256) in (0, 64) else f"{sha256}..."


def render() -> str:
    """The page of commands."""
    names = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    return "\n".join([INTRO, *(f"## abaw {name}\n\n```\n{_help(name)}\n```\n" for name in names)])


def _help(name: str) -> str:
    # The width is fixed, so that the page does not depend on the terminal.
    result = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"}).invoke(app, [name, "--help"], prog_name="abaw")
    return result.stdout.strip()


if __name__ == "__main__":
    for page, text in pages().items():
        (FOLDER / page).write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {page}\n")
