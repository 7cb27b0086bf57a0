"""The application and what all commands share: options, loading the configuration, ending with a summary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from abaw import __version__, console
from abaw.errors import AbawError, ExitCode


class _Funnel(TyperGroup):
    """Turns the one user-facing exception into its message and exit code, for every command alike."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except AbawError as error:
            console.show_error(error)
            raise typer.Exit(int(error.code)) from error
        except KeyboardInterrupt as error:
            console.show_interrupted()
            raise typer.Exit(int(ExitCode.INTERRUPTED)) from error


app = typer.Typer(
    name="abaw",
    cls=_Funnel,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Frame-level facial affect analysis in video: action units, expression, valence-arousal.\n\n"
    "Pipeline: align -> pretrain -> finetune -> extract-visual, extract-audio -> fuse -> evaluate -> submit. "
    "Tools: synth, doctor, check, tune, report, predict, inspect, import, export.",
)

Config = Annotated[Path, typer.Option("--config", "-c", help="Configuration file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a key; repeatable.")
]
Device = Annotated[str | None, typer.Option(help="auto, cuda or cpu; overrides run.device.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Redo what is there, also with other settings.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes; 0 = one per core; overrides run.workers.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never download weights.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N tracks.")]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts of the tracks.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first track that fails.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also log each track.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings, errors and the result.")]
TaskName = Annotated[
    str | None, typer.Option("--task", help="au, expr, va, mtl, lsd or ce; default from the configuration.")
]
InitFrom = Annotated[
    str | None, typer.Option("--init-from", metavar="FILE", help="Weights to start from, of any recognised kind.")
]
Labels = Annotated[
    Path | None, typer.Option("--labels", metavar="PATH", help="Folder or file of labels; default that of [data].")
]
Folds = Annotated[
    str | None, typer.Option("--folds", metavar="K", help="Cross-validation over K folds of videos, or official.")
]
Fold = Annotated[int | None, typer.Option("--fold", min=0, help="With --folds: only this fold, counted from 0.")]
Encoder = Annotated[str | None, typer.Option("--encoder", help="A name of [encoders] or of the registry.")]
DEFAULT_CONFIG = Path("data.toml")

Options = dict[str, Any]


def load(
    config: Path,
    overrides: list[str] | None,
    *,
    device: str | None = None,
    workers: int | None = None,
    offline: bool = False,
    optional: bool = False,
    verbose: bool,
    quiet: bool,
    **tables: dict[str, Any],
) -> Any:
    """Set up logging and read the configuration; flags, also those of ``tables``, stand above it (None = not given).

    ``optional``: the default file need not be there, since the flags say all that is needed.
    """
    console.setup(verbose=verbose, quiet=quiet)
    from abaw.config_file import load_config

    flags = {"run": {"device": device, "workers": workers, "offline": offline or None}, **tables}
    return load_config(config, overrides=overrides or [], flags=flags, optional=optional and config == DEFAULT_CONFIG)


def given_path(text: str | None) -> str | None:
    """A file named on the command line as an absolute path: the configuration's paths start at its own folder."""
    return text if text is None or text in ("none", "pretrain") else str(Path(text).resolve())


def finish(summary: console.Summary, *, json: bool) -> None:
    """Print the summary and end with its exit code."""
    console.show(summary, json=json)
    if summary.exit_code:
        raise typer.Exit(int(summary.exit_code))


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Shared by all commands."""
    if version:
        console.print_text(__version__)
        raise typer.Exit
