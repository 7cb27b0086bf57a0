"""The command line: parse, load the configuration, call the stage, print its summary. No logic.

Heavy packages are imported inside the commands, so that `abaw --help` starts at once.
"""

from __future__ import annotations

import gc
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
    "Tools: synth, inspect.",
)

Config = Annotated[Path, typer.Option("--config", "-c", help="Configuration file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a key; repeatable.")
]
Device = Annotated[str | None, typer.Option(help="auto, cuda or cpu; overrides run.device.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Redo what is there, also with other settings.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N tracks.")]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Only the I-th of N parts of the tracks.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first track that fails.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also log each track.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings, errors and the result.")]
TaskName = Annotated[str | None, typer.Option("--task", help="au, expr or va; default from the configuration.")]
Encoder = Annotated[str | None, typer.Option("--encoder", help="A name of [encoders] or of the registry.")]
DEFAULT_CONFIG = Path("data.toml")

Options = dict[str, Any]


def _load(config: Path, overrides: list[str] | None, *, device: str | None = None, verbose: bool, quiet: bool) -> Any:
    console.setup(verbose=verbose, quiet=quiet)
    from abaw.config_file import load_config

    return load_config(config, overrides=overrides or [], flags={"run": {"device": device}})


def _finish(summary: console.Summary, *, json: bool) -> None:
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


@app.command()
def align(
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    overwrite: Overwrite = False,
    limit: Limit = None,
    shard: Shard = None,
    strict: Strict = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Find and align the face in every frame of every video.

    Example: abaw align -c data.toml
    """
    cfg = _load(config, set_, device=device, verbose=verbose, quiet=quiet)
    from abaw.stages import align as stage

    _finish(stage.run(cfg, overwrite=overwrite, limit=limit, shard=shard, strict=strict, dry_run=dry_run), json=json)


@app.command()
def pretrain(
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain a masked autoencoder on aligned faces, without labels.

    Example: abaw pretrain --set pretrain.steps=2000
    """
    cfg = _load(config, set_, device=device, verbose=verbose, quiet=quiet)
    from abaw.stages import pretrain as stage

    _finish(stage.run(cfg, overwrite=overwrite, dry_run=dry_run), json=json)


@app.command()
def finetune(
    task: TaskName = None,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Finetune the pretrained encoder for one task on single faces.

    Example: abaw finetune --task expr
    """
    cfg = _load(config, set_, device=device, verbose=verbose, quiet=quiet)
    from abaw.stages import finetune as stage

    _finish(stage.run(cfg, task=task, overwrite=overwrite, dry_run=dry_run), json=json)


@app.command("extract-visual")
def extract_visual(
    encoder: Encoder = None,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    overwrite: Overwrite = False,
    limit: Limit = None,
    shard: Shard = None,
    strict: Strict = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Encode aligned faces into one feature vector per frame.

    Example: abaw extract-visual --encoder mae
    """
    cfg = _load(config, set_, device=device, verbose=verbose, quiet=quiet)
    from abaw.stages import extract_visual as stage

    options: Options = {"limit": limit, "shard": shard, "strict": strict, "dry_run": dry_run}
    _finish(stage.run(cfg, encoder=encoder, overwrite=overwrite, **options), json=json)


@app.command("extract-audio")
def extract_audio(
    encoder: Encoder = None,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    overwrite: Overwrite = False,
    limit: Limit = None,
    shard: Shard = None,
    strict: Strict = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Encode the sound track into one feature vector per video frame.

    Example: abaw extract-audio --encoder logmel
    """
    cfg = _load(config, set_, device=device, verbose=verbose, quiet=quiet)
    from abaw.stages import extract_audio as stage

    options: Options = {"limit": limit, "shard": shard, "strict": strict, "dry_run": dry_run}
    _finish(stage.run(cfg, encoder=encoder, overwrite=overwrite, **options), json=json)


@app.command()
def fuse(
    task: TaskName = None,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train the temporal model on cached features and write its scores.

    Example: abaw fuse --task va
    """
    cfg = _load(config, set_, device=device, verbose=verbose, quiet=quiet)
    from abaw.stages import fuse as stage

    _finish(stage.run(cfg, task=task, overwrite=overwrite, dry_run=dry_run), json=json)


@app.command()
def evaluate(
    predictions: Annotated[list[Path] | None, typer.Argument(help="Predictions stores; default all.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Leave post.json aside.")] = False,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score predictions with the official metrics.

    Example: abaw evaluate predictions/fuse-va-netease
    """
    cfg = _load(config, set_, verbose=verbose, quiet=quiet)
    from abaw.stages import evaluate as stage

    _finish(stage.run(cfg, predictions=predictions or (), raw=raw), json=json)


@app.command()
def submit(
    predictions: Annotated[Path | None, typer.Argument(help="Predictions store; default from [submit].")] = None,
    task: TaskName = None,
    edition: Annotated[str | None, typer.Option(help="Edition of the challenge, e.g. 10.")] = None,
    sample: Annotated[Path | None, typer.Option(help="The organisers' sample file.")] = None,
    overwrite: Overwrite = False,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write the challenge's file, row for row as the organisers' sample file asks.

    Example: abaw submit --task va --edition 10 --sample VA_test_set_example.txt
    """
    cfg = _load(config, set_, verbose=verbose, quiet=quiet)
    from abaw.stages import submit as stage

    options: Options = {"task": task, "edition": edition, "sample": sample, "predictions": predictions}
    _finish(stage.run(cfg, overwrite=overwrite, **options), json=json)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    videos: Annotated[int, typer.Option(min=8, help="Number of videos.")] = 40,
    seconds: Annotated[float, typer.Option(min=1.0, help="Length of each video.")] = 8.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same files.")] = 0,
    portraits: Annotated[Path | None, typer.Option(help="Folder of photographs to use instead.")] = None,
    sheet: Annotated[bool, typer.Option("--sheet", help="Also draw every action unit and expression.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 = one per core.")] = 0,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Make a mini Aff-Wild2: a small labelled set in the organisers' layout, from photographs.

    Example: abaw synth mini --videos 40 --seed 0
    """
    console.setup(verbose=verbose, quiet=quiet)
    from abaw.stages import synth as stage

    options: Options = {"seed": seed, "portraits": portraits, "sheet": sheet, "workers": workers}
    _finish(stage.run(out, videos=videos, seconds=seconds, **options), json=json)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A store, checkpoint or run folder.")],
    verify: Annotated[bool, typer.Option("--verify", help="Read everything and report what is damaged.")] = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say what a store, a checkpoint or a run holds.

    Example: abaw inspect features/faces --verify
    """
    console.setup(verbose=verbose, quiet=quiet)
    from abaw.stages import inspect as stage

    _finish(stage.run(path, verify=verify), json=json)


def main() -> None:
    """Entry point of the console script."""
    gc.set_threshold(50_000)  # by default, a tenth of the start-up goes into searching fresh imports for garbage
    app()
