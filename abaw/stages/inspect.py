"""`abaw inspect`: what a store, a checkpoint or a run folder holds. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from abaw.checkpoint import read_header, read_layout
from abaw.console import Failure, Summary
from abaw.errors import AbawError
from abaw.store import FeatureStore, Reason
from abaw.store_header import TEXT

Lines = list[tuple[str, str]]


def run(path: Path, *, verify: bool = False) -> Summary:
    """Describe whatever is at ``path``; ``verify`` reads every array of a store or the whole weights file.

    Raises AbawError when nothing of ours is there. Damaged tracks become failures of the summary.
    """
    if (path / "store.json").is_file():
        return _store(path, verify=verify)
    if (path / "run.json").is_file():
        return _run_folder(path)
    if path.is_file() and path.suffix == ".safetensors":
        return _checkpoint(path)
    if path.is_file() and path.suffix == ".h5" and (path.parent / "store.json").is_file():
        return _track(path)
    raise AbawError(
        f"{path} does not exist" if not path.exists() else f"{path} is no store, checkpoint or run folder",
        where=str(path),
        fix="give a folder with store.json or run.json, a track's .h5 file in a store, or a .safetensors file",
    )


def _store(path: Path, *, verify: bool) -> Summary:
    store = FeatureStore.open(path)
    header = store.header
    failed: list[Failure] = []
    num_rows, counts = 0, np.zeros(max(Reason) + 1, np.int64)
    track_ids = store.track_ids()
    for track_id in track_ids:
        try:
            num_rows += store.num_rows(track_id)
            counts += _reasons(store, track_id)
            if verify:
                verify_track(store, track_id)
        except AbawError as error:
            failed.append(Failure(track_id, f"{error.what}; fix: {error.fix}"))
    valid = int(counts[Reason.VALID])
    invalid = {Reason(index).name.lower(): int(count) for index, count in enumerate(counts) if index and count}
    arrays = ", ".join(f"{name} {spec.dtype}{_shape(spec.shape, spec.axis)}" for name, spec in header.arrays.items())
    lines = [
        ("store", f"{path} (kind {header.kind}, name {header.name}, format {header.format_version})"),
        ("tracks", f"{len(track_ids)}, {num_rows} rows, {valid} of them valid"),
        ("invalid", ", ".join(f"{count} {name}" for name, count in invalid.items()) or "none"),
        ("arrays", f"valid bool[T], {arrays}"),
        ("settings", json.dumps(header.settings, ensure_ascii=False)),
        ("fingerprint", store.fingerprint),
        ("alignment", str(header.recipe.get("fingerprint"))),
        ("trained on", _trained_on(header.trained_on)),
    ]
    if header.label_order:
        lines.append(("labels", "; ".join(f"{head}: {', '.join(names)}" for head, names in header.label_order.items())))
    if verify:
        lines.append(("verified", f"{len(track_ids) - len(failed)} of {len(track_ids)} tracks read whole"))
    data = {
        "path": str(path),
        "kind": header.kind,
        "name": header.name,
        "tracks": len(track_ids),
        "rows": num_rows,
        "valid": valid,
        "invalid": invalid,
        "fingerprint": store.fingerprint,
        "settings": header.settings,
        "recipe": header.recipe,
        "trained_on": header.trained_on,
        "notes": store.notes,
    }
    return Summary("inspect", lines, failed=failed, data=data)


def _reasons(store: FeatureStore, track_id: str) -> np.ndarray:
    """Rows by reason; stores without reasons count invalid rows as having no face."""
    length = max(Reason) + 1
    if "reason" in store.header.arrays:
        return np.bincount(np.minimum(store.read(track_id, "reason"), max(Reason)), minlength=length)
    return np.bincount(np.where(store.valid(track_id), Reason.VALID, Reason.NO_FACE), minlength=length)


def verify_track(store: FeatureStore, track_id: str) -> None:
    """Read every array of a track and check it against the header. Raises AbawError."""
    num_rows = store.num_rows(track_id)
    for name, spec in store.header.arrays.items():
        value = store.read(track_id, name)
        length = {"T": num_rows, "T+1": num_rows + 1}.get(spec.axis, len(value))
        dtype = np.dtype(object if spec.dtype == TEXT else spec.dtype)
        wrong = value.dtype != dtype or value.shape != (length, *spec.shape)
        if wrong or (value.dtype.kind == "f" and not np.isfinite(value).all()):
            raise AbawError(
                f"{name} is {value.dtype}{list(value.shape)}, not as its header says, or holds NaN",
                where=str(store.track_path(track_id)),
                fix=f"delete {store.track_path(track_id)} and run the stage again",
            )
    if len(store.valid(track_id)) != num_rows:
        raise AbawError(
            "valid has another length than the other arrays",
            where=str(store.track_path(track_id)),
            fix=f"delete {store.track_path(track_id)} and run the stage again",
        )


def _track(path: Path) -> Summary:
    store = FeatureStore.open(path.parent)
    track_id = path.stem
    verify_track(store, track_id)
    lines: Lines = [
        ("track", f"{track_id} of {path.parent} (kind {store.header.kind})"),
        ("rows", f"{store.num_rows(track_id)}, {int(store.valid(track_id).sum())} valid, {store.fps(track_id):g} fps"),
    ]
    for name in store.header.arrays:
        value = store.read(track_id, name)
        lines.append((name, f"{store.header.arrays[name].dtype}{list(value.shape)}"))
    lines += [(name, str(value)) for name, value in store.facts(track_id).items()]
    return Summary("inspect", lines, data=dict(lines))


def _checkpoint(path: Path) -> Summary:
    header = read_header(path)
    tensors, _ = read_layout(path)
    count = sum(int(np.prod(shape)) for _, shape in tensors.values())
    lines: Lines = [
        ("checkpoint", f"{path} (kind {header.get('kind')}, format {header.get('format_version')})"),
        ("weights", f"{len(tensors)} tensors, {count / 1e6:.2f} million values"),
        ("architecture", json.dumps(header.get("architecture"), ensure_ascii=False)),
        ("alignment", str(header.get("recipe", {}).get("fingerprint"))),
        ("trained on", _trained_on(header.get("trained_on", []))),
    ]
    for key in ("task", "label_order", "pooling", "normalisation", "streams", "step"):
        if key in header:
            lines.append((key, json.dumps(header[key], ensure_ascii=False)))
    return Summary("inspect", lines, data={"path": str(path), **header})


def _run_folder(path: Path) -> Summary:
    record = _json(path / "run.json")
    done = _json(path / "done") if (path / "done").is_file() else None
    lines: Lines = [
        ("run", f"{path} (stage {record.get('stage')}, {'done' if done else 'not finished'})"),
        ("inputs", json.dumps(record.get("inputs"), ensure_ascii=False)),
        ("versions", json.dumps(record.get("versions"), ensure_ascii=False)),
    ]
    if done:
        lines += [(key, f"{value:.4f}" if isinstance(value, float) else str(value)) for key, value in done.items()]
    if (path / "best.safetensors").is_file():
        lines += _checkpoint(path / "best.safetensors").lines
    return Summary("inspect", lines, data={"path": str(path), **record, "result": done})


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AbawError(
            f"{path.name} cannot be read ({error})",
            where=str(path),
            fix="run the stage again with --overwrite, or restore the file from a copy",
        ) from error
    return content if isinstance(content, dict) else {}


def _shape(shape: tuple[int, ...], axis: str) -> str:
    first = "N" if axis == "ragged" else axis
    return f"[{', '.join([first, *map(str, shape)])}]"


def _trained_on(records: list[dict[str, Any]]) -> str:
    if not records:
        return "no labels"
    return "; ".join(f"{r.get('labels')} of {r.get('dataset')}, edition {r.get('edition')}" for r in records)
