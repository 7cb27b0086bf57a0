"""A track's rows as a table that any program reads: csv, npz, or parquet where pyarrow is installed.

Owns the names of columns and the three formats. Knows nothing of folders or of what was written before.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from abaw.store import FeatureStore, Reason, StoreHeader

BOX = ("x0", "y0", "x1", "y1")
# Decimal digits that give a number back when they are read.
DIGITS = {"float16": 5, "float32": 9, "float64": 17}


@dataclass(frozen=True)
class Table:
    """A track's rows. ``about``: columns that say which row it is; ``arrays`` [T, ...], and names of their columns.

    ``only_valid``: rows that are not valid hold nothing worth writing.
    """

    about: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    columns: dict[str, list[str]]
    only_valid: bool


def read_table(store: FeatureStore, track_id: str, faces: FeatureStore | None) -> Table:
    """A track's rows: frame (from 0), time, valid, reason, and every array with a row per frame.

    The time in seconds is there where ``faces`` is given, NaN for a track whose rows that store does not have.
    """
    num_rows, arrays = store.num_rows(track_id), store.header.arrays
    about = {"frame": np.arange(num_rows)}
    if faces is not None:
        known = track_id in faces and faces.num_rows(track_id) == num_rows
        about["time"] = faces.read(track_id, "time") if known else np.full(num_rows, np.nan)
    about["valid"] = store.valid(track_id)
    if "reason" in arrays:
        about["reason"] = store.read(track_id, "reason")
    columns = column_names(store.header)
    return Table(about, {name: store.read(track_id, name) for name in columns}, columns, store.header.kind != "faces")


def column_names(header: StoreHeader) -> dict[str, list[str]]:
    """Names of the columns of every array with a row per frame: score columns are named by their labels."""
    rows = {name: spec for name, spec in header.arrays.items() if spec.axis == "T" and name not in ("time", "reason")}
    names: dict[str, list[str]] = {}
    for name, spec in rows.items():
        head = name.removeprefix("scores/")
        count = int(np.prod(spec.shape))
        if name == "features":
            names[name] = _feature_names(header.settings, count)
        elif len(header.label_order.get(head, [])) == count and name != head:
            names[name] = list(header.label_order[head])
        elif name == "box":
            names[name] = [f"box_{corner}" for corner in BOX]
        else:
            names[name] = ["_".join([name, *map(str, place)]) for place in np.ndindex(spec.shape)]
    every = [column for own in names.values() for column in own]
    if len(set(every)) < len(every):  # two heads with labels of one name
        names = {name: [f"{name.removeprefix('scores/')}.{column}" for column in own] for name, own in names.items()}
    return names


def _feature_names(settings: Mapping[str, Any], count: int) -> list[str]:
    """f0, f1 ...; the names that the store's settings have for all columns, or for the class scores at the end."""
    names = [f"f{number}" for number in range(count)]
    for key in ("columns", "scores"):
        own = settings.get(key)
        if isinstance(own, list) and 0 < len(own) <= count and (key == "scores" or len(own) == count):
            names[count - len(own) :] = [str(name) for name in own]
    return names


def _words(reason: np.ndarray) -> np.ndarray:
    """Names of reasons; numbers of a newer format stay numbers."""
    known = [Reason(number).name.lower() if number <= max(Reason) else str(number) for number in range(256)]
    return np.array(known)[reason]


# -- formats -----------------------------------------------------------------------------------------------------------
def _write_csv(table: Table, path: Path) -> None:
    """A header and a row per frame; the values of rows that are not valid stay empty (of faces: as they are)."""
    about = {**table.about, "reason": _words(table.about["reason"])} if "reason" in table.about else table.about
    valid = table.about["valid"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*about, *(column for own in table.columns.values() for column in own)])
        for row in range(len(valid)):
            fields = [_text(values[row]) for values in about.values()]
            for values in table.arrays.values():
                own = np.ravel(values[row])
                hidden = table.only_valid and not valid[row]
                fields += [""] * len(own) if hidden else _texts(own)
            writer.writerow(fields)


def _texts(values: np.ndarray) -> list[str]:
    digits = DIGITS.get(values.dtype.name)
    if digits is None:
        return [_text(value) for value in values]
    return [f"{value:.{digits}g}" for value in values.tolist()]


def _text(value: Any) -> str:
    """A time or number with all its digits, a flag as 0 or 1; nothing for NaN."""
    if isinstance(value, np.floating):
        return "" if np.isnan(value) else repr(float(value))
    return str(int(value)) if isinstance(value, np.bool_) else str(value)


def _write_npz(table: Table, path: Path) -> None:
    """The arrays as they are, without pickled objects; `/` in a name becomes `.`, `<name>.columns` names columns."""
    arrays = dict(table.about)
    for name, values in table.arrays.items():
        key = name.replace("/", ".")
        arrays[key] = values if values.dtype != object else values.astype(str)
        if values.ndim == 2:
            arrays[f"{key}.columns"] = np.array(table.columns[name])
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _write_parquet(table: Table, path: Path) -> None:
    """A column for each of csv's; features as float32, and null where csv is empty."""
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, Any] = dict(table.about)
    if "reason" in columns:
        columns["reason"] = _words(columns["reason"])
    hidden = ~table.about["valid"] if table.only_valid else None
    for name, values in table.arrays.items():
        flat = values.reshape(len(values), -1)
        flat = flat.astype(np.float32) if flat.dtype == np.float16 else flat
        for number, column in enumerate(table.columns[name]):
            columns[column] = pyarrow.array(flat[:, number], mask=hidden)
    parquet.write_table(pyarrow.table(columns), path)


WRITERS: dict[str, Callable[[Table, Path], None]] = {
    "csv": _write_csv,
    "npz": _write_npz,
    "parquet": _write_parquet,
}
