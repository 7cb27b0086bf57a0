"""`abaw inspect`: what a store, a checkpoint, a run folder or a foreign weights file holds.

Only foreign weights, and checkpoints read whole, need torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from abaw.checkpoint import HEADER_KEY, read_header, read_layout
from abaw.console import Failure, Summary
from abaw.errors import AbawError, ExitCode
from abaw.store import FeatureStore, Reason
from abaw.store_header import TEXT

Lines = list[tuple[str, str]]
IMAGE_KINDS = {
    "mae": "frozen features, finetuning, continued pretraining",
    **dict.fromkeys(("static", "cotex", "emae"), "scores and features of its task, finetuning"),
    "emma": "scores of its task beside its classifier, features and finetuning without it",
}


def run(path: Path, *, verify: bool = False, convert: Path | None = None, trained_on: Sequence[str] = ()) -> Summary:
    """Describe whatever is at ``path``; ``verify`` reads every array of a store or the whole weights file.

    ``convert`` writes foreign weights as a checkpoint of ours; ``trained_on`` names the data sets whose labels they
    have seen (["none"] = no labels). Raises AbawError when nothing readable is there, and for weights that cannot be
    converted. Damaged tracks become failures of the summary.
    """
    if convert is not None:
        return _foreign(path, convert, trained_on)
    if (path / "store.json").is_file():
        return _store(path, verify=verify)
    if (path / "run.json").is_file():
        return _run_folder(path, verify=verify)
    folds = sorted(folder.parent for folder in path.glob("fold-*/run.json"))
    if folds:
        return _folds(path, folds, verify=verify)
    if path.is_file() and path.suffix == ".h5" and (path.parent / "store.json").is_file():
        return _track(path)
    if path.suffix == ".onnx" and path.is_file():
        use = ("used for", "EMMA's frozen classifier: finetune.emma.classifier")
        return Summary(
            "inspect", [("weights", f"{path} (an ONNX graph)"), use], data={"path": str(path), "dialect": "onnx"}
        )
    if path.is_file():
        is_ours = path.suffix == ".safetensors" and HEADER_KEY in read_layout(path)[1]
        return _checkpoint(path, verify=verify) if is_ours else _foreign(path, None, trained_on)
    raise AbawError(
        f"{path} does not exist" if not path.exists() else f"{path} is no store, checkpoint or run folder",
        where=str(path),
        fix="give a folder with store.json or run.json, a track's .h5 file in a store, or a weights file",
    )


def _folds(path: Path, folds: Sequence[Path], *, verify: bool) -> Summary:
    """A cross-validated run: each of its folds."""
    parts = [(fold.name, _run_folder(fold, verify=verify)) for fold in folds]
    lines = [(name, part.lines[0][1]) for name, part in parts]
    data = {"path": str(path), "folds": {name: part.data for name, part in parts}}
    return Summary("inspect", lines, data=data, code=max(part.code for _, part in parts))


def _foreign(path: Path, convert: Path | None, trained_on: Sequence[str]) -> Summary:
    """Weights of another program; with code 4 where they do not match whole."""
    from abaw.models import conversion

    found = conversion.survey(path, trained_on=trained_on)
    lines, data = list(found.lines), dict(found.data)
    if convert is not None:
        conversion.convert(found, convert)
        lines.append(("converted", str(convert)))
        data["converted"] = str(convert)
    return Summary("inspect", lines, data=data, code=ExitCode.OK if found.is_whole else ExitCode.DATA)


def _store(path: Path, *, verify: bool) -> Summary:
    store = FeatureStore.open(path)
    header = store.header
    num_rows, counts, failed = _tally(store, verify=verify)
    num_tracks, valid = len(store.track_ids()), int(counts[Reason.VALID])
    invalid = {Reason(index).name.lower(): int(count) for index, count in enumerate(counts) if index and count}
    lines: Lines = [
        ("store", f"{path} (kind {header.kind}, name {header.name}, format {header.format_version})"),
        ("tracks", f"{num_tracks}, {num_rows} rows, {valid} of them valid"),
        ("invalid", ", ".join(f"{count} {name}" for name, count in invalid.items()) or "none"),
        *_store_header(store),
    ]
    if verify:
        lines.append(("verified", f"{num_tracks - len(failed)} of {num_tracks} tracks read whole"))
    data = {
        "path": str(path),
        "kind": header.kind,
        "name": header.name,
        "tracks": num_tracks,
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


def _store_header(store: FeatureStore) -> Lines:
    header = store.header
    arrays = ", ".join(f"{name} {spec.dtype}{_shape(spec.shape, spec.axis)}" for name, spec in header.arrays.items())
    lines: Lines = [
        ("arrays", f"valid bool[T], {arrays}"),
        ("settings", json.dumps(header.settings, ensure_ascii=False)),
        ("fingerprint", store.fingerprint),
        ("alignment", str(header.recipe.get("fingerprint"))),
        ("trained on", _trained_on(header.trained_on)),
    ]
    if header.label_order:
        lines.append(("labels", "; ".join(f"{head}: {', '.join(names)}" for head, names in header.label_order.items())))
    return lines


def _tally(store: FeatureStore, *, verify: bool) -> tuple[int, np.ndarray, list[Failure]]:
    """Rows of all tracks, rows by reason, and the tracks that are damaged."""
    num_rows, counts, failed = 0, np.zeros(max(Reason) + 1, np.int64), []
    for track_id in store.track_ids():
        try:
            num_rows += store.num_rows(track_id)
            counts += _reasons(store, track_id)
            if verify:
                verify_track(store, track_id)
        except AbawError as error:
            failed.append(Failure(track_id, f"{error.what}; fix: {error.fix}"))
    return num_rows, counts, failed


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
    if store.header.kind == "faces" and "jpeg" in store.header.arrays:
        _require_whole_images(store, track_id)
    if len(store.valid(track_id)) != num_rows:
        raise AbawError(
            "valid has another length than the other arrays",
            where=str(store.track_path(track_id)),
            fix=f"delete {store.track_path(track_id)} and run the stage again",
        )


def _require_whole_images(store: FeatureStore, track_id: str) -> None:
    """Raise AbawError for a crop that does not end as a JPEG file does (FF D9)."""
    offsets, content = store.read(track_id, "offsets"), store.read(track_id, "jpeg")
    rows = np.flatnonzero(np.diff(offsets) > 2)
    ends = offsets[rows + 1]
    other = rows[(content[ends - 2] != 0xFF) | (content[ends - 1] != 0xD9)]  # some programs write on after the end
    cut = [row for row in other.tolist() if b"\xff\xd9" not in content[offsets[row] : offsets[row + 1]].tobytes()]
    if cut:
        raise AbawError(
            f"{len(cut)} crops are cut off or overwritten, the first in row {cut[0]}",
            where=str(store.track_path(track_id)),
            fix=f"delete {store.track_path(track_id)} and run `abaw align` again",
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


def _checkpoint(path: Path, *, verify: bool = False) -> Summary:
    header = read_header(path)
    tensors, _ = read_layout(path)
    count = sum(int(np.prod(shape)) for _, shape in tensors.values())
    lines: Lines = [
        ("checkpoint", f"{path} (kind {header.get('kind')}, format {header.get('format_version')})"),
        ("weights", f"{len(tensors)} tensors, {count / 1e6:.2f} million values"),
        *_architecture(header.get("architecture")),
        ("alignment", str(header.get("recipe", {}).get("fingerprint"))),
        ("trained on", _trained_on(header.get("trained_on", []))),
    ]
    for key in ("task", "label_order", "pooling", "normalisation", "streams", "step"):
        if key in header:
            lines.append((key, json.dumps(header[key], ensure_ascii=False)))
    lines += _origin(header)
    code = ExitCode.OK
    if verify and f"{header.get('kind')}" in IMAGE_KINDS:
        from abaw.models import conversion

        found = conversion.survey(path)
        lines += found.lines[2:]
        code = ExitCode.OK if found.is_whole else ExitCode.DATA
    return Summary("inspect", lines, data={"path": str(path), **header}, code=code)


def _architecture(shape: Any) -> Lines:
    """The shape of a model, which model it is, with its options, and the classifier frozen beside it."""
    if not isinstance(shape, dict) or "model" not in shape:
        return [("architecture", json.dumps(shape, ensure_ascii=False))]
    plain = {key: value for key, value in shape.items() if key not in ("model", "options")}
    options = dict(shape["options"]) if isinstance(shape.get("options"), dict) else {}
    classifier = options.pop("classifier", None)
    told = ", ".join(f"{key} {value}" for key, value in options.items())
    lines: Lines = [
        ("model", f"{shape['model']}{f' ({told})' if told else ''}"),
        ("architecture", json.dumps(plain, ensure_ascii=False)),
    ]
    if isinstance(classifier, dict):
        about = f"{classifier.get('kind')}, sha256 {classifier.get('sha256')}"
        lines.append(("classifier", f"{classifier.get('spec')} ({about}): {', '.join(classifier.get('labels', []))}"))
    return lines


def _origin(header: dict[str, Any]) -> Lines:
    """Where converted weights came from, and what a checkpoint of each kind is for."""
    lines: Lines = [("used for", IMAGE_KINDS[header["kind"]])] if header.get("kind") in IMAGE_KINDS else []
    if isinstance(header.get("source"), dict):
        lines.append(("converted from", f"{header['source'].get('file')} ({header.get('dialect')})"))
    return lines


def _run_folder(path: Path, *, verify: bool) -> Summary:
    record = _json(path / "run.json")
    done = _json(path / "done") if (path / "done").is_file() else None
    code = ExitCode.OK
    lines: Lines = [
        ("run", f"{path} (stage {record.get('stage')}, {'done' if done else 'not finished'})"),
        ("inputs", json.dumps(record.get("inputs"), ensure_ascii=False)),
        ("versions", json.dumps(record.get("versions"), ensure_ascii=False)),
    ]
    if done:
        lines += [(key, f"{value:.4f}" if isinstance(value, float) else str(value)) for key, value in done.items()]
    if (path / "best.safetensors").is_file():
        best = _checkpoint(path / "best.safetensors", verify=verify)
        lines, code = lines + best.lines, best.code
    return Summary("inspect", lines, data={"path": str(path), **record, "result": done}, code=code)


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
