"""The run card: how the predictions were made, as far as this machine knows.

Reads run.json, config.json, done and the weights of each run, the headers of the stores behind them and of the
predictions. The name of the machine that a run was made on stays out of the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from abaw.config import Config
from abaw.errors import AbawError
from abaw.postprocess import in_words, load_post
from abaw.provenance import file_sha256, flatten
from abaw.scored import Predictions
from abaw.stages.report import numbers
from abaw.stages.report.page import MISSING, Html, bullets, code, facts, folded, join, paragraph, table, tag
from abaw.store import FeatureStore
from abaw.tasks import Problem

PRIVATE = ("host",)
WEIGHTS = "best.safetensors"
DIGITS = 16  # of a hash in a wide table
LONG = 6  # entries of a list that are shown in a line
DEEP = 3  # levels of lists in lists
MAX_TEXT = 2000  # characters of a value
MAX_JSON = 16 << 20  # bytes


def card(cfg: Config, scored: Predictions | None, runs: Mapping[str, Path]) -> Html:
    """The card of predictions, where there are any, and of the run folders behind them."""
    header = scored.store.header if scored else None
    parts = [_heading("Predictions"), _predictions(scored)] if scored else []
    records = {name: _record(path) for name, path in runs.items()}
    if records:
        parts += [_heading("Runs"), _weights_note(header.settings if header else {}, records), *_runs(records)]
        parts += _features(cfg, records)
    recipe = header.recipe if header else _first(records, "recipe")
    seen = header.trained_on if header else _first(records, "trained_on")
    parts += [_heading("Alignment of the faces"), _recipe(recipe), _heading("Labels seen"), _trained_on(seen)]
    return join(parts)


def _heading(title: str) -> Html:
    return tag("h3", title)


def _first(records: Mapping[str, dict[str, Any]], key: str) -> Any:
    return next((record["plain"][key] for record in records.values() if record["plain"].get(key)), None)


def _predictions(scored: Predictions) -> Html:
    post = scored.post
    rows: list[tuple[object, object]] = [
        ("store", code(scored.name)),
        ("fingerprint", code(scored.store.fingerprint)),
        ("tracks", numbers.count(len(scored.store))),
        *((key, shown(value)) for key, value in flatten(scored.settings).items()),
    ]
    for head in scored.task.heads if not post.is_raw else ():
        words = in_words(post, head.name, values=head.problem is Problem.REGRESSION)
        rows.append((f"post-processing of {head.name}", words))
    if not post.is_raw:
        rows.append(("post-processing fitted on", post.fitted_on or "unknown"))
    elif not load_post(scored.path).is_raw:
        rows.append(("post-processing", "left aside: the scores as they are"))
    return facts("The predictions store", rows)


# -- runs ------------------------------------------------------------------------------------------------------------
def _record(path: Path) -> dict[str, Any]:
    """What a run folder says of itself: "plain" run.json, and "rows" of names and values."""
    run, done, config = (_json(path / name) for name in ("run.json", "done", "config.json"))
    plain = {key: value for key, value in run.items() if key not in (*PRIVATE, "format_version")}
    told = {key: plain[key] for key in plain if key not in ("recipe", "trained_on")}
    rows = {"status": "finished" if (path / "done").is_file() else "not finished", **flatten(told)}
    rows |= {f"result: {key}": value for key, value in flatten(done).items()}
    weights = path / WEIGHTS
    sha256 = file_sha256(weights) if weights.is_file() else None
    rows["weights sha256"] = sha256 or "not on this machine"
    return {"plain": plain, "rows": rows, "config": flatten(config), "sha256": sha256}


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or none that can be read."""
    try:
        if path.stat().st_size > MAX_JSON:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content)  # what is nested too deeply to be written is no record of ours
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _weights_note(settings: Mapping[str, Any], records: Mapping[str, dict[str, Any]]) -> Html:
    """Whether the weights that are here are those that the predictions store names."""
    named = settings.get("weights")
    wanted = {named} if isinstance(named, str) else {one for one in named or [] if isinstance(one, str)}
    if not wanted:
        return Html("")
    here = {record["sha256"] for record in records.values() if record["sha256"]}
    if wanted <= here:
        return paragraph("The weights in the run folders are those that made these predictions (equal sha256).")
    if here - wanted:
        words = "Weights in the run folders are not those that made these predictions: their sha256 differ."
        return tag("div", paragraph(words), class_="notice")
    return Html("")


def _runs(records: Mapping[str, dict[str, Any]]) -> Iterable[Html]:
    for title, key in (("Record of the run", "rows"), ("Configuration", "config")):
        common, own = _shared({name: record[key] for name, record in records.items()})
        several = len(records) > 1
        body = [facts(f"{title}, common to all" if several else title, _pairs(common))] if common else []
        for name, rows in own.items():
            body.append(folded(f"Only of {name}", facts(f"{title}: {name}", _pairs(rows))))
        yield folded(title, *body, is_open=key == "rows") if body else Html("")


def _shared(records: Mapping[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Entries that all have alike, and those of each that are its own."""
    first = next(iter(records.values()), {})
    common = {k: v for k, v in first.items() if all(k in one and one[k] == v for one in records.values())}
    own = {name: {k: v for k, v in one.items() if k not in common} for name, one in records.items()}
    return common, {name: rows for name, rows in own.items() if rows}


def _pairs(rows: Mapping[str, Any]) -> list[tuple[object, object]]:
    return [(key, shown(value)) for key, value in rows.items()]


def shown(value: Any, depth: int = 0) -> Html:
    """A JSON value: lists as lists, long ones folded, long texts cut, what is nested deeper as JSON."""
    if isinstance(value, list) and value and depth < DEEP:
        items = bullets(shown(one, depth + 1) for one in value)
        return folded(f"{len(value)} entries", items) if len(value) > LONG else items
    if isinstance(value, dict) and value and depth < DEEP:
        return bullets(tag("span", f"{key}: ", shown(one, depth + 1)) for key, one in value.items())
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    cut = written if len(written) <= MAX_TEXT else f"{written[:MAX_TEXT]} ... ({len(written)} characters)"
    return code(cut) if cut else Html(MISSING)


# -- what lies behind ------------------------------------------------------------------------------------------------
def _features(cfg: Config, records: Mapping[str, dict[str, Any]]) -> list[Html]:
    """Headers of the stores that the runs read, where they are here with the same fingerprint."""
    wanted: dict[str, str] = {}
    for record in records.values():
        inputs = record["plain"].get("inputs")
        for one in _named_stores(inputs):
            wanted.setdefault(str(one["name"]), str(one.get("fingerprint")))
    parts, missing = [], []
    for name, fingerprint in wanted.items():
        header = _header(cfg, name, fingerprint)
        if header is None:
            missing.append(name)
        else:
            parts.append(folded(f"Input {name}", facts(f"Settings of {name}", header)))
    if missing:
        words = "Stores that the runs read and that are not here as they were: "
        parts.append(paragraph(words, join((code(name) for name in missing), ", "), "."))
    return [_heading("Inputs"), *parts] if parts else []


def _named_stores(inputs: Any) -> list[dict[str, Any]]:
    if not isinstance(inputs, dict):
        return []
    streams = inputs.get("streams")
    found = [one for one in streams if isinstance(one, dict) and "name" in one] if isinstance(streams, list) else []
    faces = inputs.get("faces")
    if isinstance(faces, dict) and "store" in faces:
        found.append({"name": faces["store"], "fingerprint": faces.get("fingerprint")})
    return found


def _header(cfg: Config, name: str, fingerprint: str) -> list[tuple[object, object]] | None:
    if Path(name).name != name:
        return None
    try:
        store = FeatureStore.open(cfg.run.output / "features" / name)
    except AbawError:
        return None
    if store.fingerprint != fingerprint:
        return None
    rows: list[tuple[object, object]] = [("kind", store.header.kind), ("fingerprint", code(fingerprint))]
    return rows + [(key, shown(value)) for key, value in flatten(store.header.settings).items()]


def _recipe(recipe: Any) -> Html:
    if not isinstance(recipe, dict):
        return paragraph("Not recorded.")
    settings = recipe.get("settings")
    rows: list[tuple[object, object]] = [("fingerprint", code(recipe.get("fingerprint")))]
    rows += [(key, shown(value)) for key, value in flatten(settings if isinstance(settings, dict) else {}).items()]
    return facts("Alignment recipe", rows)


def _trained_on(records: Any) -> Html:
    """Which labels of which data set the models behind the predictions have seen."""
    listed = [one for one in records if isinstance(one, dict)] if isinstance(records, list) else []
    if not listed:
        return paragraph("None are recorded.")
    keys = ("dataset", "edition", "labels", "fold", "split_file", "tracks_sha256", "weights_sha256")
    used = [key for key in keys if any(key in one for one in listed)]
    rows = [[_cut(key, one[key]) if key in one else MISSING for key in used] for one in listed]
    words = {"split_file": "split", "tracks_sha256": "tracks (sha256)", "weights_sha256": "weights (sha256)"}
    caption = "Labels that the models behind the predictions have seen; hashes are cut to 16 digits"
    return table(caption, [words.get(key, key) for key in used], rows, numbers=False)


def _cut(key: str, value: Any) -> Html:
    """A value of a record; a hash is told by its first digits."""
    written = str(value)
    return code(written[:DIGITS] if key.endswith(("sha256", "file")) else written[:MAX_TEXT])
