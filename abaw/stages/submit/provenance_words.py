"""Records, runs, features and faces in words, as a paper says them.

Knows nothing of files or of the page they are put on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from abaw.encoders.audio import AUDIO_ENCODERS
from abaw.encoders.published import PUBLISHED
from abaw.provenance import UNDECLARED, UNKNOWN
from abaw.stages.submit.lineage import FOLD, Features, Run
from abaw.tasks import TASKS

SHORT = 16  # digits of a hash that tell files apart
OFFICIAL = "official"
# What of an architecture or of an encoder's settings tells nothing to a reader, or is said elsewhere.
PASSED_OVER = {"encoder", "weights", "faces", "options", "padding_mask", "sources_sha256", "model", "preset"}
DECODER = ("decoder_depth", "decoder_heads", "decoder_width")  # of pretraining alone


def short(sha256: str) -> str:
    """The first digits of a hash, as code."""
    return f"`{sha256[:SHORT]}`"


def told(settings: Mapping[str, Any]) -> str:
    """Settings as "name value, name value"; nested ones in brackets, empty ones left out."""
    parts = []
    for key, value in settings.items():
        if key in PASSED_OVER or value in ("", "none", None, [], {}, False):
            continue
        if isinstance(value, Mapping):
            parts.append(f"{_plain(key)} ({told(value)})")
        elif isinstance(value, list):
            parts.append(f"{_plain(key)} {' / '.join(_number(one) for one in value)}")
        else:
            parts.append(_plain(key) if value is True else f"{_plain(key)} {_number(value)}")
    return ", ".join(parts)


def _plain(key: str) -> str:
    return key.replace("_", " ")


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def folds_in_words(folds: Sequence[int]) -> str:
    """ "fold 1", "folds 0 to 4" or "folds 0, 2"."""
    folds = sorted(set(folds))
    if len(folds) > 2 and folds == list(range(folds[0], folds[-1] + 1)):
        return f"folds {folds[0]} to {folds[-1]}"
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(map(str, folds))}"


# -- data --------------------------------------------------------------------------------------------------------------
class _Use(NamedTuple):
    """One use of a data set; folds of one split are one use."""

    dataset: str
    edition: str
    labels: str
    split_file: str


def data_in_words(records: Iterable[Mapping[str, Any]], splits: Mapping[str, str]) -> list[str]:
    """One sentence for each use of a data set; folds of one split together. Foreign weights are told elsewhere."""
    folds: dict[_Use, list[int]] = {}
    for record in records:
        if "weights_sha256" in record:
            continue
        use = _Use(*(str(record.get(name, UNKNOWN)) for name in _Use._fields))
        folds.setdefault(use, [])
        if isinstance(record.get("fold"), int):
            folds[use].append(record["fold"])
    ordered = sorted(folds, key=lambda use: (use.labels == "none", use))  # labels before pictures without any
    return [_told_use(use, folds[use], splits) for use in ordered]


def _told_use(use: _Use, folds: Sequence[int], splits: Mapping[str, str]) -> str:
    whole = f"{use.dataset} (edition {use.edition})" if use.edition not in ("none", "external") else use.dataset
    if use.labels == "none":
        return f"Pictures of {whole}, without labels: self-supervised pretraining."
    text = f"Labels `{use.labels}` of {whole}"
    if folds:
        split = f"{splits.get(use.split_file, 'a split file')} (sha256 {short(use.split_file)})"
        if len(set(folds)) == 1:
            return f"{text}: all recordings but those of {folds_in_words(folds)} of {split}."
        return f"{text}: {folds_in_words(folds)} of {split}; no model saw the recordings of its own fold."
    if use.split_file == OFFICIAL:
        return f"{text}: the official training set."
    return f"{text}: further images, listed in a file of sha256 {short(use.split_file)}."


def foreign_weights(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """What weights of other programs have seen, as their user says, by their hash."""
    found = {}
    for record in records:
        if "weights_sha256" in record:
            labels = record.get("labels")
            seen = {UNDECLARED: "nobody said", "none": "no labels, as their user says"}.get(
                str(labels), f"{record.get('dataset')}, as their user says"
            )
            found[str(record["weights_sha256"])] = seen
    return found


# -- runs --------------------------------------------------------------------------------------------------------------
def run_in_words(name: str, runs: Sequence[Run], by_weights: Mapping[str, str]) -> list[str]:
    """Lines on a training, all its folds together; ``by_weights``: names of runs by the hash of their weights."""
    first = runs[0]
    folds = [run.fold for run in runs if run.fold is not None]
    lines = [f"**{name}** (`abaw {first.stage}`{f', {folds_in_words(folds)}' if folds else ''})"]
    lines += [f"architecture: {_architecture(first)}", f"training: {_training(runs, by_weights)}"]
    streams = [str(one.get("name")) for run in runs for one in run.record.get("inputs", {}).get("streams", [])]
    if streams:
        lines.append(f"reads the features {', '.join(dict.fromkeys(map(of_all_folds, streams)))}")
    weights = [f"{f'fold {run.fold} ' if run.fold is not None else ''}`{run.weights}`" for run in runs if run.weights]
    lines.append(f"weights, sha256: {', '.join(weights) or 'not recorded'}")
    versions = first.record.get("versions", {})
    made = ", ".join(f"{key} {versions[key]}" for key in ("abaw", "torch", "timm", "python") if key in versions)
    lines.append(f"made with: {made or 'not recorded'}, on {first.record.get('device', UNKNOWN)}")
    return lines


def of_all_folds(name: str) -> str:
    """A store's name without the number of its fold."""
    match = FOLD.fullmatch(name)
    return match["run"] if match else name


def _architecture(run: Run) -> str:
    own = dict(run.checkpoint.get("architecture", {}))
    if not own:
        return "not recorded"
    named = [str(own[key]) for key in ("model", "preset") if own.get(key)]
    shape = told({key: value for key, value in own.items() if run.stage == "pretrain" or key not in DECODER})
    count = f"; {run.num_weights:,} weights" if run.num_weights else ""
    return f"{' '.join(named)}{': ' if named and shape else ''}{shape}{count}"


def _training(runs: Sequence[Run], by_weights: Mapping[str, str]) -> str:
    first = runs[0]
    kept = ("steps", "batch_size", "lr", "base_lr", "weight_decay", "window", "mask_ratio", "seed")
    text = told({key: first.settings[key] for key in kept if key in first.settings}) or "settings not recorded"
    scores = [run.done.get("best_score") for run in runs]
    if all(isinstance(score, int | float) for score in scores):
        shown = ", ".join(f"{score:.4f}" for score in scores)
        whose = "of the folds that chose the checkpoints" if runs[0].fold is not None else "of the validation set"
        text += f"; best score ({_metric(first)}) {shown} on the tracks {whose}"
    started = str(first.record.get("inputs", {}).get("init_from", "none"))
    if started != "none":
        text += f"; started from {by_weights.get(started) or f'weights {short(started)}'}"
    elif first.stage in ("pretrain", "finetune"):
        text += "; started from random weights"
    return text


def _metric(run: Run) -> str:
    task = str(run.checkpoint.get("task", ""))
    if task not in TASKS:
        return "official metric"
    heads = TASKS[task].heads
    return "sum of the heads" if len(heads) > 1 else f"mean {heads[0].metric.upper()}"


# -- features and faces ------------------------------------------------------------------------------------------------
def features_in_words(features: Features, *, of_run: bool) -> tuple[str, str, str]:
    """Encoder, settings, and origin and licence of the weights of a features store."""
    settings = features.header.settings
    encoder = str(settings.get("encoder", UNKNOWN))
    size = features.header.arrays["features"].shape if "features" in features.header.arrays else ()
    width = f", {size[0]} numbers a frame" if size else ""
    return f"{encoder}{width}", told(settings), terms(encoder, str(settings.get("weights", "")), of_run=of_run)


def terms(encoder: str, weights: str, *, of_run: bool = False) -> str:
    """Where an encoder's weights come from, and their licence."""
    if of_run:
        return "own training"
    entry, name = PUBLISHED.get(encoder.partition(":")[0]), _published_file(weights)
    if entry is not None:
        return f"{name + ' of ' if name else ''}{entry.origin}; licence: {entry.licence}"
    if encoder in AUDIO_ENCODERS:
        own = AUDIO_ENCODERS[encoder]
        return f"{own.origin}; licence: {own.licence}" if own.licence else "it has none"
    return "it has none" if encoder == "landmarks" else "features of another program; its licence is not recorded"


def _published_file(sha256: str) -> str:
    """Name of a published file by its hash; "" where it is none of them."""
    names = (name for entry in PUBLISHED.values() for name, known in entry.files.items() if known and known == sha256)
    return next(names, "")


def faces_in_words(faces: Features) -> list[str]:
    """Lines on how faces were found and aligned."""
    settings, recipe = faces.header.settings, faces.header.recipe
    detection = settings.get("detection", {})
    source = {"videos": "the recordings", "crops": "the organisers' crops", "images": "single images"}
    detector = str(faces.notes.get("detector", settings.get("detector", UNKNOWN)))
    name, _, licence = detector.partition(", ")
    lines = [
        f"source: {source.get(str(settings.get('source')), UNKNOWN)}, crops of {settings.get('size_px', '?')} px",
        f"detector: {name.partition(' on ')[0]}; licence: {licence or 'not recorded'}",
    ]
    if isinstance(detection, Mapping) and detection.get("weights_sha256"):
        lines.append(f"detector weights, sha256: `{detection['weights_sha256']}`")
    return [*lines, recipe_in_words(recipe)]


def recipe_in_words(recipe: Mapping[str, Any]) -> str:
    """The alignment recipe."""
    if recipe.get("fingerprint", UNKNOWN) == UNKNOWN:
        return "alignment: unknown (ready-made crops, or weights of another program)"
    return f"alignment: {told(recipe.get('settings', {}))} (recipe {recipe['fingerprint']})"
