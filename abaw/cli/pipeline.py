"""The eight stages as commands, in the order of the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from abaw.cli.app import (
    DEFAULT_CONFIG,
    Config,
    Device,
    DryRun,
    Encoder,
    Fold,
    Folds,
    InitFrom,
    Json,
    Labels,
    Limit,
    Offline,
    Options,
    Overrides,
    Overwrite,
    Quiet,
    Shard,
    Strict,
    TaskName,
    Verbose,
    Workers,
    app,
    finish,
    given_path,
    load,
)


@app.command()
def align(
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    workers: Workers = None,
    overwrite: Overwrite = False,
    limit: Limit = None,
    shard: Shard = None,
    all_faces: Annotated[bool, typer.Option("--all-faces", help="One track for each person of a video.")] = False,
    export_crops: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the crops as DIR/TRACK/00001.jpg.")
    ] = None,
    offline: Offline = False,
    strict: Strict = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Find and align the face in every frame of every video.

    Example: abaw align -c data.toml
    """
    tables: Options = {"align": {"all_faces": all_faces or None}}
    cfg = load(config, set_, device=device, workers=workers, offline=offline, verbose=verbose, quiet=quiet, **tables)
    from abaw.stages import align as stage

    options: Options = {"limit": limit, "shard": shard, "strict": strict, "dry_run": dry_run}
    finish(stage.run(cfg, overwrite=overwrite, export=export_crops, **options), json=json)


@app.command()
def pretrain(
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    init_from: InitFrom = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain a masked autoencoder on aligned faces, without labels.

    Example: abaw pretrain --set pretrain.steps=2000
    """
    start: Options = {"pretrain": {"init_from": given_path(init_from)}}
    cfg = load(config, set_, device=device, verbose=verbose, quiet=quiet, **start)
    from abaw.stages import pretrain as stage

    finish(stage.run(cfg, overwrite=overwrite, dry_run=dry_run), json=json)


@app.command()
def finetune(
    task: TaskName = None,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    init_from: InitFrom = None,
    folds: Folds = None,
    fold: Fold = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="EMAE: every view with every operator, as a table.")] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Finetune the pretrained encoder for one task on single faces.

    Example: abaw finetune --task expr
    """
    start: Options = {"finetune": {"init_from": given_path(init_from), "model": "emae" if ablate else None}}
    cfg = load(config, set_, device=device, verbose=verbose, quiet=quiet, **start)
    from abaw.stages import finetune as stage

    options: Options = {"folds": folds, "fold": fold, "ablate": ablate, "dry_run": dry_run}
    finish(stage.run(cfg, task=task, overwrite=overwrite, **options), json=json)


@app.command("extract-visual")
def extract_visual(
    encoder: Encoder = None,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    folds: Annotated[
        int | None, typer.Option(min=2, metavar="K", help="A store for each of K folds, by the encoder of that fold.")
    ] = None,
    fold: Fold = None,
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
    cfg = load(config, set_, device=device, verbose=verbose, quiet=quiet)
    from abaw.stages import extract_visual as stage

    options: Options = {"limit": limit, "shard": shard, "strict": strict, "dry_run": dry_run}
    crossed: Options = {"folds": folds, "fold": fold}
    finish(stage.run(cfg, encoder=encoder, overwrite=overwrite, **options, **crossed), json=json)


@app.command("extract-audio")
def extract_audio(
    encoder: Encoder = None,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
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
    """Encode the sound track into one feature vector per video frame.

    Example: abaw extract-audio --encoder logmel
    """
    cfg = load(config, set_, device=device, workers=workers, verbose=verbose, quiet=quiet)
    from abaw.stages import extract_audio as stage

    options: Options = {"limit": limit, "shard": shard, "strict": strict, "dry_run": dry_run}
    finish(stage.run(cfg, encoder=encoder, overwrite=overwrite, **options), json=json)


@app.command()
def fuse(
    task: TaskName = None,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    device: Device = None,
    folds: Folds = None,
    fold: Fold = None,
    ablate_streams: Annotated[
        bool, typer.Option("--ablate-streams", help="A table of which feature stores help, each choice a run.")
    ] = False,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="Join these predictions instead of training: RUN RUN ..., or config."),
    ] = None,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="With --ensemble: its other members.", show_default=False)
    ] = None,
    acknowledge: Annotated[
        bool, typer.Option("--acknowledge", help="Fit the weights of an ensemble on scores that are not out-of-fold.")
    ] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Train the temporal model on cached features and write its scores.

    Example: abaw fuse --task va
    """
    if more and not ensemble:
        raise typer.BadParameter("names of runs belong to --ensemble", param_hint="RUN")
    cfg = load(config, set_, device=device, verbose=verbose, quiet=quiet)
    from abaw.stages import fuse as stage

    options: Options = {"folds": folds, "fold": fold, "ablate_streams": ablate_streams, "dry_run": dry_run}
    joined: Options = {"ensemble": [*(ensemble or ()), *(more or ())], "acknowledge": acknowledge}
    finish(stage.run(cfg, task=task, overwrite=overwrite, **options, **joined), json=json)


@app.command()
def evaluate(
    predictions: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PREDICTIONS]...", help="Predictions stores or submission files; default all stores."),
    ] = None,
    from_csv: Annotated[
        list[Path] | None,
        typer.Option("--from-csv", metavar="CSV", help="A csv file, or a folder of one a track; repeatable."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="B", help="Compare with these predictions, on the same videos.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Task to measure; default that of the scores.")] = None,
    labels: Labels = None,
    raw: Annotated[bool, typer.Option("--raw", help="Leave post.json aside.")] = False,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Score predictions with the official metrics, with intervals, by class, unit and video.

    Example: abaw evaluate predictions/fuse-va-netease --against predictions/fuse-va-gru
    """
    cfg = load(config, set_, optional=labels is not None, verbose=verbose, quiet=quiet)
    from abaw.stages import evaluate as stage

    options: Options = {"from_csv": from_csv or (), "against": against, "task": task, "labels": labels}
    finish(stage.run(cfg, predictions=predictions or (), raw=raw, **options), json=json)


@app.command()
def submit(
    predictions: Annotated[Path | None, typer.Argument(help="Predictions store; default from [submit].")] = None,
    task: TaskName = None,
    edition: Annotated[str | None, typer.Option(help="Edition of the challenge, 3 to 11.")] = None,
    sample: Annotated[Path | None, typer.Option(help="The organisers' sample or list file.")] = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="FILE", help="Write nothing: check this file, whoever made it.")
    ] = None,
    number: Annotated[int, typer.Option(min=1, max=5, help="Which of the five submissions this is.")] = 1,
    acknowledge: Annotated[
        bool, typer.Option("--acknowledge", help="Write although the edition's rules may forbid these models.")
    ] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    config: Config = DEFAULT_CONFIG,
    set_: Overrides = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Write the challenge's file, row for row as the organisers' sample file asks, or check one.

    Example: abaw submit --task va --edition 10 --sample VA_test_set_example.txt
    """
    cfg = load(config, set_, optional=check is not None, verbose=verbose, quiet=quiet)
    from abaw.stages import submit as stage

    what: Options = {"task": task, "edition": edition, "sample": sample}
    if check is not None:
        finish(stage.check(cfg, check, **what), json=json)
        return
    options: Options = {"predictions": predictions, "number": number, "acknowledge": acknowledge, "dry_run": dry_run}
    finish(stage.run(cfg, overwrite=overwrite, **what, **options), json=json)
