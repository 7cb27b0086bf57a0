"""Probe: can a store be written, read, written again and locked in a folder?

Its argument is the folder, which is there. What is written goes into a hidden folder in it and is removed again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from abaw.errors import AbawError
from abaw.stages.doctor.child import probe, say

ROWS = 300


def main(folder: str) -> None:
    """Make a store, as stages do, and say how far it gets."""
    try:
        place = Path(tempfile.mkdtemp(prefix=".abaw-doctor-", dir=folder))
    except OSError as error:
        say("refused", why=error.strerror or str(error))
        return
    try:
        _use(place)
    except (AbawError, OSError) as error:
        say("refused", why=error.what if isinstance(error, AbawError) else str(error))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    say("removed", left=place.exists())


def _use(place: Path) -> None:
    import h5py
    import numpy as np

    from abaw.store import ArraySpec, FeatureStore, StoreHeader

    header = StoreHeader("visual", "doctor", {"features": ArraySpec("float32", (4,))}, {})
    values = np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4)
    store = FeatureStore.create(place / "store", header)
    for factor in (1, 2):  # the second time over a file that is there
        store.write("t", {"valid": np.ones(ROWS, bool), "features": factor * values}, fps=25)
        say(f"written {factor}")
        if not np.array_equal(store.read("t", "features"), factor * values):
            say("refused", why="what was read is not what was written")
            return
    store.close()
    say("read")
    try:
        with h5py.File(store.track_path("t"), "r", locking=True):
            pass
        say("hdf5 locks")
    except OSError as error:
        say("no hdf5 locks", why=str(error))
    _lock(place)


def _lock(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        say("locks")
    except OSError as error:
        say("no locks", why=error.strerror or str(error))
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    probe(main)
