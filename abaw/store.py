"""The feature store: a folder with a ``store.json`` and one HDF5 file per track.

Owns the layout on disk (docs/formats.md), atomic publishing, fingerprints and fast window reads. Knows nothing of
what the arrays mean, of tensors, labels or configuration.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from abaw import open_files
from abaw.errors import AbawError, ExitCode
from abaw.provenance import differences
from abaw.publish import discard, locked, publish, publish_text
from abaw.store_header import (
    KINDS,
    ArraySpec,
    Reason,
    StoreHeader,
    check_track_id,
    header_from_json,
    read_header_json,
)
from abaw.track_file import Arrays, Chunks, checked_arrays, read_facts, write_file

__all__ = ["ArraySpec", "Chunks", "FeatureStore", "Reason", "StoreHeader", "check_track_id"]


@dataclass
class _OpenTrack:
    """A track's file held open, and its datasets looked up so far, those of text as such."""

    file: h5py.File
    num_rows: int
    datasets: dict[str, Any]


# All stores of this process, which share its file descriptors.
_stores: weakref.WeakSet[FeatureStore] = weakref.WeakSet()
_stores_lock = threading.Lock()


class FeatureStore:
    """Per-track arrays on disk; open it with ``create`` or ``open``. Several threads may read at once."""

    def __init__(self, path: Path, header: StoreHeader, notes: dict[str, Any]) -> None:
        self.path = path
        self.header = header
        self.notes = notes
        self.fingerprint = header.fingerprint
        self._handles: OrderedDict[str, _OpenTrack] = OrderedDict()
        self._pid = os.getpid()
        self._lock = threading.RLock()
        _register(self)

    # -- opening ---------------------------------------------------------------------------------------------------
    @classmethod
    def create(cls, path: Path, header: StoreHeader, *, overwrite: bool = False) -> FeatureStore:
        """Start a store, or continue one made with the same settings.

        What is known now of the labels behind it (``trained_on``) takes the place of what was recorded: of the same
        weights it is their user who says so. Raises AbawError when the folder holds a store with other settings,
        unless ``overwrite``, which drops the tracks that are there.
        """
        if header.kind not in KINDS:
            msg = f"unknown store kind {header.kind!r}"
            raise ValueError(msg)
        if (path / "store.json").exists() and overwrite:
            discard(path)
        if (path / "store.json").exists():
            store = cls.open(path, kind=header.kind)
            store._require_same(header)
            store._record_labels(header)
            return store
        if path.exists() and (not path.is_dir() or any(path.glob("*.h5"))):
            raise AbawError(
                f"{path} is there but is not a store (no store.json)",
                where=str(path),
                fix="name another folder, or move this one away",
            )
        store = cls(path, header, {})
        store._write_json()
        return store

    @classmethod
    def finished(cls, path: Path, header: StoreHeader) -> set[str]:
        """Tracks that ``create`` would find done; for plans, since it writes nothing. Raises AbawError as it does."""
        if not (path / "store.json").exists():
            return set()
        store = cls.open(path, kind=header.kind)
        store._require_same(header)
        return set(store.track_ids())

    @classmethod
    def open(cls, path: Path, *, kind: str | None = None) -> FeatureStore:
        """Open a store for reading or continuing.

        Raises AbawError when it is missing, unreadable, of a newer format, or of another kind than ``kind``.
        """
        content = read_header_json(path, kind)
        header = header_from_json(content, path)
        if kind is not None and header.kind != kind:
            raise AbawError(
                f'store {path} is of kind "{header.kind}", not "{kind}"',
                where=str(path / "store.json"),
                fix=f"give a store of kind {kind}; `abaw inspect {path}` shows what this one holds",
            )
        return cls(path, header, content["notes"])

    def _require_same(self, header: StoreHeader) -> None:
        difference = differences(self.header.identity(), header.identity())
        if difference:
            raise AbawError(
                f"store {self.path} was made with other settings: {'; '.join(difference)}",
                where=str(self.path / "store.json"),
                fix="go back to the recorded settings, name another store, or pass --overwrite to redo it",
            )

    def _write_json(self) -> None:
        content = {**asdict(self.header), "fingerprint": self.fingerprint, "notes": self.notes}
        publish_text(self.path / "store.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _record_labels(self, header: StoreHeader) -> None:
        if self.header.trained_on == header.trained_on:
            return
        with locked(self.path):
            self.header = replace(self.header, trained_on=header.trained_on)
            self.notes = read_header_json(self.path, self.header.kind)["notes"]
            self._write_json()

    def note(self, key: str, value: Any) -> None:
        """Record something that may vary between runs (host, duration); never part of a track file.

        A dict is merged into the one that is there, where None takes an entry out; other runs' notes stay.
        """
        with locked(self.path):
            self.notes = read_header_json(self.path, self.header.kind)["notes"]
            if isinstance(value, dict):
                merged = {**self.notes.get(key, {}), **value}
                value = {name: one for name, one in merged.items() if one is not None}
            self.notes[key] = value
            self._write_json()

    # -- looking ---------------------------------------------------------------------------------------------------
    def __contains__(self, track_id: str) -> bool:
        return self.track_path(track_id).is_file()

    def __len__(self) -> int:
        return len(self.track_ids())

    def track_ids(self) -> list[str]:
        """Names of the finished tracks, sorted."""
        names = (entry.name for entry in os.scandir(self.path))
        return sorted(name[:-3] for name in names if name.endswith(".h5") and not name.startswith("."))

    def track_path(self, track_id: str) -> Path:
        """File of a track, whether it is there or not."""
        return self.path / f"{track_id}.h5"

    # -- writing ---------------------------------------------------------------------------------------------------
    def write(self, track_id: str, arrays: Arrays, *, fps: float, facts: Mapping[str, Any] | None = None) -> None:
        """Publish a track at once: the file appears whole or not at all.

        ``arrays`` must hold ``valid`` bool [T] and exactly the arrays of the header; ragged ones may be `Chunks`.
        ``facts`` are findings about the track as plain JSON values, the same for the same work. Raises ValueError for
        a wrong set, dtype or shape and AbawError for NaN or infinity, naming array and row.
        """
        check_track_id(track_id, where=f"store {self.path}")
        checked = checked_arrays(arrays, self.header, track_id=track_id, path=self.path)
        publish(
            self.track_path(track_id),
            lambda temporary: write_file(temporary, checked, self.header, fps=fps, facts=facts),
            failures=(OSError, RuntimeError),  # h5py raises either when the disk is full
        )
        self._drop(track_id)

    # -- reading ---------------------------------------------------------------------------------------------------
    def num_rows(self, track_id: str) -> int:
        """T, the rows of a track."""
        with self._lock:
            return self._track(track_id).num_rows

    def fps(self, track_id: str) -> float:
        """Nominal frames per second of a track."""
        try:
            with self._lock:
                return float(self._track(track_id).file.attrs["fps"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise _damaged(self.track_path(track_id), error) from error

    def facts(self, track_id: str) -> dict[str, Any]:
        """What its stage found out about a track besides its rows; empty in older files."""
        try:
            with self._lock:
                return read_facts(self._track(track_id).file)
        except (OSError, ValueError) as error:
            raise _damaged(self.track_path(track_id), error) from error

    def valid(self, track_id: str) -> np.ndarray:
        """bool [T]: rows that hold data."""
        return self.read(track_id, "valid")

    def read(self, track_id: str, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Rows of one array of a track.

        Raises AbawError when the track or array is missing or the file is damaged.
        """
        try:
            with self._lock:  # another thread could close the file meanwhile, to open one of its own
                return self._read(self._track(track_id), name, rows)
        except KeyError as error:
            raise AbawError(
                f'track {track_id} has no array "{name}"',
                where=f"store {self.path}",
                fix=f"`abaw inspect {self.path}` lists the arrays it holds",
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise _damaged(self.track_path(track_id), error) from error

    def _read(self, track: _OpenTrack, name: str, rows: slice) -> np.ndarray:
        dataset = track.datasets.get(name)
        if dataset is None:  # looking a dataset up costs more than reading a window of it
            dataset = track.file[name]
            if h5py.check_string_dtype(dataset.dtype) is not None:
                dataset = dataset.asstr()
            track.datasets[name] = dataset
        return np.asarray(dataset[rows])

    def _track(self, track_id: str) -> _OpenTrack:
        """The open file of a track; whoever asks holds the lock for as long as it is used."""
        if self._pid != os.getpid():  # handles of a parent process must not be shared
            self._handles, self._pid = OrderedDict(), os.getpid()
        track = self._handles.get(track_id)
        if track is None:
            self._evict(max(1, open_files.open_files_allowed() // _num_reading(self)) - 1)
            track = self._handles[track_id] = self._open_track(track_id)
        return track

    def _open_track(self, track_id: str) -> _OpenTrack:
        path = self.track_path(track_id)
        if not path.is_file():
            raise AbawError(
                f'store {self.path} has no track "{track_id}"',
                where=f"{len(self)} tracks are there",
                fix=f"run the stage that writes it again: it adds what is missing ({self.header.kind})",
            )
        try:
            # Without a filter the chunk cache only copies whole chunks: off, it is three times faster and flat.
            file = h5py.File(path, "r", rdcc_nbytes=0, locking=False)
            recorded, num_rows, valid = str(file.attrs["fingerprint"]), int(file.attrs["num_rows"]), file["valid"]
            if num_rows != len(valid):
                raise KeyError("num_rows")
        except (OSError, KeyError, TypeError, ValueError) as error:
            if open_files.is_descriptor_shortage(error):
                raise _too_many_files(path) from error
            raise _damaged(path, error) from error
        if recorded != self.fingerprint:
            file.close()
            raise AbawError(
                f"track {track_id} was made with other settings than its store",
                where=str(path),
                fix=f"delete {path} and run the stage again",
            )
        return _OpenTrack(file, num_rows, {"valid": valid})

    def _evict(self, keep: int) -> None:
        """Close the files opened first, down to ``keep``."""
        while len(self._handles) > keep:
            _, oldest = self._handles.popitem(last=False)
            oldest.file.close()

    def _drop(self, track_id: str) -> None:
        with self._lock:
            if self._pid == os.getpid() and track_id in self._handles:
                self._handles.pop(track_id).file.close()

    def close(self) -> None:
        """Close the files held open; reading opens them again."""
        with self._lock:
            if self._pid == os.getpid():
                for track in self._handles.values():
                    track.file.close()
            self._handles = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name != "_lock"}
        return {**kept, "_handles": OrderedDict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()
        _register(self)


def _register(store: FeatureStore) -> None:
    with _stores_lock:
        _stores.add(store)


def _num_reading(store: FeatureStore) -> int:
    """Stores of this process that hold files open, ``store`` included."""
    with _stores_lock:
        return sum(1 for other in _stores if other._handles or other is store)


def _renew_locks() -> None:
    """After a fork: a thread that held a lock is not there any more to let go of it."""
    global _stores_lock
    _stores_lock = threading.Lock()
    for store in _stores:
        store._lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_locks)


def _too_many_files(path: Path) -> AbawError:
    return AbawError(
        f"{path.name} cannot be opened: this process may not open more files",
        where=str(path),
        fix="raise the limit with `ulimit -n 4096` and run the same command again",
        code=ExitCode.MISSING,
    )


def _damaged(path: Path, error: Exception) -> AbawError:
    return AbawError(
        f"{path.name} is not a readable track file ({error})",
        where=str(path),
        fix=f"delete {path} and run the stage again: it redoes only what is missing",
    )
