"""Commands beside the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abaw import console
from abaw.cli.app import (
    DEFAULT_CONFIG,
    Config,
    Device,
    DryRun,
    Json,
    Labels,
    Limit,
    Options,
    Overrides,
    Overwrite,
    Quiet,
    Shard,
    Strict,
    Verbose,
    Workers,
    app,
    finish,
    load,
)
from abaw.errors import AbawError


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
    finish(stage.run(out, videos=videos, seconds=seconds, **options), json=json)


@app.command()
def doctor(
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Try the machine, the installation and the configuration, and say how to put right what is wrong.

    Example: abaw doctor -c data.toml
    """
    console.setup(verbose=verbose, quiet=quiet)
    cfg, error = None, None
    if config.exists() or config != DEFAULT_CONFIG or set_:
        try:
            cfg = load(config, set_, device=device, verbose=verbose, quiet=quiet)
        except AbawError as found:  # one of the findings
            error = found
    from abaw.stages import doctor as stage

    finish(stage.run(cfg, config=config, error=error, device=device), json=json)


@app.command()
def check(
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print the report as CSV.")] = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Reconcile frames, labels, crops, sample files and sound of every track.

    Example: abaw check -c data.toml
    """
    cfg = load(config, set_, verbose=verbose, quiet=quiet)
    from abaw.stages import check as stage

    finish(stage.run(cfg, csv=csv), json=json)


@app.command()
def tune(
    predictions: Annotated[Path, typer.Argument(help="Predictions store whose scores are out-of-fold.")],
    also: Annotated[
        list[Path] | None, typer.Option("--also", metavar="STORE", help="Use the result for this store too; repeat it.")
    ] = None,
    acknowledge: Annotated[
        bool, typer.Option("--acknowledge", help="Tune on scores that are not out-of-fold all the same.")
    ] = False,
    overwrite: Overwrite = False,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Choose smoothing, thresholds and clipping on labelled scores, and keep them beside the scores.

    Example: abaw tune predictions/fuse-va-netease-folds --also predictions/fuse-va-ensemble
    """
    cfg = load(config, set_, verbose=verbose, quiet=quiet)
    from abaw.stages import tune as stage

    options: Options = {"also": also or (), "acknowledge": acknowledge, "dry_run": dry_run}
    finish(stage.run(cfg, predictions=predictions, overwrite=overwrite, **options), json=json)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run, its folder, or a predictions store.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default reports/<predictions>.html.")] = None,
    with_faces: Annotated[
        bool, typer.Option("--with-faces", help="Show face crops too: personal data, mind who gets the page.")
    ] = False,
    task: Annotated[str | None, typer.Option("--task", help="Task to measure; default that of the scores.")] = None,
    labels: Labels = None,
    raw: Annotated[bool, typer.Option("--raw", help="Leave post.json aside.")] = False,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write one page of a run's results that opens anywhere: metrics, plots, timelines, and how it was made.

    Example: abaw report fuse-va-netease
    """
    cfg = load(config, set_, optional=labels is not None, verbose=verbose, quiet=quiet)
    from abaw.stages import report as stage

    options: Options = {"with_faces": with_faces, "task": task, "labels": labels, "raw": raw}
    finish(stage.run(cfg, run, out=out, **options), json=json)


@app.command()
def predict(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO...", help="Video files of any kind.")],
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="NAME", help="Trained run or ensemble; repeatable. Default: one per task."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.")] = Path("predicted"),
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write the video with the scores drawn in.")] = False,
    timeline: Annotated[bool, typer.Option("--timeline", help="Also draw a PNG over time.")] = False,
    all_faces: Annotated[bool, typer.Option("--all-faces", help="Everybody, not only the person seen most.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Leave post.json aside.")] = False,
    overwrite: Overwrite = False,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    workers: Workers = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score any video with trained runs: a table with a row per frame and face. Not to be used to judge people.

    Example: abaw predict holiday.mp4 --overlay --timeline
    """
    is_elsewhere = bool(runs) and all(Path(name).exists() for name in runs or ())
    cfg = load(config, set_, device=device, workers=workers, optional=is_elsewhere, verbose=verbose, quiet=quiet)
    from abaw.predicting import run

    options: Options = {"overlay": overlay, "timeline": timeline, "all_faces": all_faces, "raw": raw}
    finish(run(cfg, videos, runs=runs or (), out=out, overwrite=overwrite, **options), json=json)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A store, a run folder, or weights of any known origin.")],
    verify: Annotated[bool, typer.Option("--verify", help="Read everything and report what is damaged.")] = False,
    convert: Annotated[
        Path | None, typer.Option(metavar="OUT", help="Write foreign weights as a checkpoint of ours.")
    ] = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Data set whose labels foreign weights have seen, or none; repeatable."),
    ] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say what a store, a weights file or a run holds.

    Example: abaw inspect features/faces --verify
    """
    console.setup(verbose=verbose, quiet=quiet)
    from abaw.stages import inspect as stage

    finish(stage.run(path, verify=verify, convert=convert, trained_on=trained_on or ()), json=json)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="File or folder of features made by another program.")],
    name: Annotated[str, typer.Option(metavar="NAME", help="The store will be features/<kind>-NAME.")],
    kind: Annotated[str, typer.Option(help="visual or audio.")] = "visual",
    format_: Annotated[
        str, typer.Option("--format", help="auto, npy, frames, npz, csv, openface, py-feat or hdf5.")
    ] = "auto",
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Only columns of this name, * for anything; repeatable."),
    ] = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Data set whose labels the features' model has seen, or none; repeatable."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    limit: Limit = None,
    shard: Shard = None,
    strict: Strict = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Bring features made elsewhere into a store, with a row for every video frame.

    Example: abaw import openface --name openface --columns 'AU*_r'
    """
    cfg = load(config, set_, workers=workers, verbose=verbose, quiet=quiet)
    from abaw.stages import import_features as stage

    about: Options = {"kind": kind, "format": format_, "columns": columns or (), "trained_on": trained_on or ()}
    options: Options = {"limit": limit, "shard": shard, "strict": strict, "dry_run": dry_run}
    finish(stage.run(cfg, source, name=name, overwrite=overwrite, **about, **options), json=json)


@app.command()
def export(
    store: Annotated[Path, typer.Argument(help="A store of features, predictions or faces.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write a file per track into.")],
    format_: Annotated[str, typer.Option("--format", help="csv, npz or parquet.")] = "csv",
    faces: Annotated[
        Path | None,
        typer.Option(metavar="STORE", help="Faces store whose times are written too; default the one near."),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 = one per core.")] = 0,
    overwrite: Overwrite = False,
    limit: Limit = None,
    shard: Shard = None,
    strict: Strict = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write a store's arrays as files that any program reads.

    Example: abaw export predictions/fuse-va-netease --out scores --format csv
    """
    console.setup(verbose=verbose, quiet=quiet)
    from abaw.stages import export_features as stage

    options: Options = {"limit": limit, "shard": shard, "strict": strict, "dry_run": dry_run, "workers": workers}
    finish(stage.run(store, out=out, format=format_, faces=faces, overwrite=overwrite, **options), json=json)
