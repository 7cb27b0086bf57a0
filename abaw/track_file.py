"""One track's HDF5 file: checking arrays against a header, and writing them.

Owns dtypes, chunking and root attributes (docs/formats.md). Knows nothing of folders, names of tracks or publishing.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from abaw.errors import AbawError
from abaw.provenance import canonical_json
from abaw.store_header import TEXT, VALID_SPEC, ArraySpec, StoreHeader

CHUNK_ROWS = 128
CHUNK_BYTES = 1 << 16
CHUNK_OVERHEAD_BYTES, ARRAY_OVERHEAD_BYTES = 64, 8192  # of a file beside its data, generously
# The file system has no means to reserve space; then a full disk shows when it is full.
CANNOT_RESERVE = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
BLOCK_BYTES = 1 << 20  # what is written of a ragged array at once, and checked of rows


class Chunks(NamedTuple):
    """A ragged array that need not be in memory: its length, and blocks that make it up in order.

    ``blocks`` is read once.
    """

    total: int
    blocks: Iterable[np.ndarray]


Arrays = Mapping[str, np.ndarray | Chunks]


def checked_arrays(arrays: Arrays, header: StoreHeader, *, track_id: str, path: Path) -> dict[str, np.ndarray | Chunks]:
    """The arrays in the header's types.

    Raises ValueError for a wrong set, dtype or shape and AbawError for NaN or infinity, naming array and row.
    """
    specs = {"valid": VALID_SPEC, **header.arrays}
    if set(arrays) != set(specs):
        msg = f"track {track_id}: arrays {sorted(arrays)} given, {sorted(specs)} expected"
        raise ValueError(msg)
    num_rows = len(arrays["valid"])
    checked: dict[str, np.ndarray | Chunks] = {}
    for name, spec in specs.items():
        given = arrays[name]
        if isinstance(given, Chunks):
            if spec.axis != "ragged" or spec.shape:
                msg = f"track {track_id}: {name} may not be given in blocks"
                raise ValueError(msg)
            checked[name] = given
            continue
        value = _as_text(given) if spec.dtype == TEXT else _as_dtype(given, spec)
        length = {"T": num_rows, "T+1": num_rows + 1}.get(spec.axis, len(value))
        if value.shape != (length, *spec.shape):
            msg = f"track {track_id}: {name} has shape {value.shape}, expected {(length, *spec.shape)}"
            raise ValueError(msg)
        if value.dtype.kind == "f":
            _require_finite(value, name=name, track_id=track_id, path=path)
        checked[name] = value
    if header.kind != "faces":
        _require_zeros(checked, header, track_id=track_id)
    return checked


def write_file(
    path: Path,
    arrays: Mapping[str, np.ndarray | Chunks],
    header: StoreHeader,
    *,
    fps: float,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write checked arrays and the root attributes to ``path``, an empty file. Raises OSError for a full disk."""
    _require_space(path, sum(map(_bytes_on_disk, arrays.values())))
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs["format_version"] = header.format_version
        file.attrs["kind"] = header.kind
        file.attrs["name"] = header.name
        file.attrs["fingerprint"] = header.fingerprint
        file.attrs["fps"] = float(fps)
        file.attrs["num_rows"] = len(arrays["valid"])
        if facts:
            file.attrs["facts"] = canonical_json(dict(facts))
        for name in sorted(arrays):
            value = arrays[name]
            if isinstance(value, Chunks):
                _write_blocks(file, name, value, dtype=header.arrays[name].dtype)
            else:
                file.create_dataset(name, data=value, chunks=_chunks(value), track_times=False)


def _bytes_on_disk(value: np.ndarray | Chunks) -> int:
    """Room an array takes at most: whole chunks, and generously what HDF5 keeps for each."""
    num_bytes = value.total if isinstance(value, Chunks) else value.nbytes
    chunk = _chunks(value) if isinstance(value, np.ndarray) else (CHUNK_BYTES,)
    chunk_bytes = CHUNK_BYTES if chunk is None or isinstance(value, Chunks) else value.itemsize * int(np.prod(chunk))
    num_chunks = -(-num_bytes // chunk_bytes)
    return num_chunks * (chunk_bytes + CHUNK_OVERHEAD_BYTES) + ARRAY_OVERHEAD_BYTES


def _require_space(path: Path, num_bytes: int) -> None:
    """Let the file system say now that a file will not fit: HDF5 cannot close one that did not, and crashes at exit.

    Another program may still take the room before it is written to; that is left to luck.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            if error.errno not in CANNOT_RESERVE:
                raise


def read_facts(file: h5py.File) -> dict[str, Any]:
    """The facts of an open track file; none in files that hold none. Raises ValueError for garbled ones."""
    facts = json.loads(str(file.attrs.get("facts", "{}")))
    if not isinstance(facts, dict):
        msg = "garbled facts"
        raise ValueError(msg)
    return facts


def _as_dtype(given: np.ndarray, spec: ArraySpec) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(given).astype(spec.dtype, casting="same_kind", copy=False))


def _as_text(given: np.ndarray) -> np.ndarray:
    """Strings as fixed-length UTF-8: HDF5's variable-length ones cost a heap per file."""
    encoded = [str(text).encode() for text in given]
    longest = max((len(text) for text in encoded), default=1)
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, longest)))


def _require_zeros(arrays: Mapping[str, np.ndarray | Chunks], header: StoreHeader, *, track_id: str) -> None:
    """Rows that are not valid hold zeros; faces keep the raw score and box of what was refused."""
    valid = np.asarray(arrays["valid"])
    for name, value in arrays.items():
        if isinstance(value, Chunks) or not header.arrays.get(name, VALID_SPEC).dtype.startswith("float"):
            continue
        if any(value[rows][~valid[rows]].any() for rows in _blocks_of_rows(value)):
            msg = f"track {track_id}: {name} holds data in rows that are not valid"
            raise ValueError(msg)


def _blocks_of_rows(value: np.ndarray) -> Iterator[slice]:
    """All rows in parts of bounded size: what is asked of them then takes little memory."""
    step = max(1, BLOCK_BYTES // max(1, value[:1].nbytes))
    return (slice(start, start + step) for start in range(0, len(value), step))


def _require_finite(value: np.ndarray, *, name: str, track_id: str, path: Path) -> None:
    for rows in _blocks_of_rows(value):
        finite = np.isfinite(value[rows])
        if finite.all():
            continue
        row = rows.start + int(np.argwhere(~finite)[0][0])
        raise AbawError(
            f"{name} of track {track_id} holds NaN or infinity (first in row {row})",
            where=f"store {path}",
            fix="look at that row of the input; if it comes from float16 overflow, scale the features",
        )


def _write_blocks(file: h5py.File, name: str, value: Chunks, *, dtype: str) -> None:
    """Write a ragged array block by block; the file is the same as from one piece."""
    whole = np.dtype(dtype)
    chunks = (min(max(1, CHUNK_BYTES // whole.itemsize), value.total),) if value.total else None
    dataset = file.create_dataset(name, shape=(value.total,), dtype=whole, chunks=chunks, track_times=False)
    start = 0
    for block in _joined(value.blocks, BLOCK_BYTES // whole.itemsize):
        dataset[start : start + len(block)] = block
        start += len(block)
    if start != value.total:
        msg = f"{name}: {value.total} elements announced, {start} given"
        raise ValueError(msg)


def _joined(blocks: Iterable[np.ndarray], size: int) -> Iterable[np.ndarray]:
    """The same elements in blocks of about ``size``: many small writes cost more than the data."""
    waiting: list[np.ndarray] = []
    length = 0
    for block in blocks:
        waiting.append(block)
        length += len(block)
        if length >= size:
            yield np.concatenate(waiting)
            waiting, length = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _chunks(value: np.ndarray) -> tuple[int, ...] | None:
    """Chunk shape: whole rows, so that a window is one or two reads; None (contiguous) for empty arrays."""
    if value.size == 0:
        return None
    row_bytes = max(1, value.itemsize * int(np.prod(value.shape[1:])))
    rows = CHUNK_ROWS if value.ndim > 1 else max(1, CHUNK_BYTES // row_bytes)
    return (min(rows, len(value)), *value.shape[1:])
