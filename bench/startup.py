"""How long a user waits for `abaw --help` and for the listing of a store, as whole processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from abaw.store import ArraySpec, FeatureStore, StoreHeader
from bench.record import make_record

PAIRS = 7
LIMIT_S = 0.3
BARE = {
    "startup.help": "import typer",
    "startup.list-store": "import typer, numpy, h5py",
}


def run(work: Path | None) -> list[dict[str, Any]]:
    """Median of alternating runs: the command, and a process that imports the packages it cannot do without."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        path = Path(folder) / "store"
        _make_store(path)
        commands = {"startup.help": ["--help"], "startup.list-store": ["inspect", str(path)]}
        return [_measure(name, command) for name, command in commands.items()]


def _make_store(path: Path) -> None:
    header = StoreHeader("visual", "x", {"features": ArraySpec("float16", (768,))}, {})
    store = FeatureStore.create(path, header)
    for index in range(60):
        arrays = {"valid": np.ones(200, bool), "features": np.zeros((200, 768), np.float16)}
        store.write(f"track{index}", arrays, fps=25)


def _measure(name: str, command: list[str]) -> dict[str, Any]:
    ours, bare = [], []
    for _ in range(PAIRS + 1):
        ours.append(_time([sys.executable, "-m", "abaw", *command]))
        bare.append(_time([sys.executable, "-c", BARE[name]]))
    output = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "abaw", *command], capture_output=True, text=True, check=True
    )
    loaded = [line.rpartition("|")[2].strip() for line in output.stderr.splitlines()]
    return make_record(
        name,
        ours[1:],
        "s",
        limit=LIMIT_S,
        higher_is_better=False,
        note=f"whole process; bare: python -c '{BARE[name]}'; ours also parses, builds help or reads 60 tracks' heads",
        bare_s=sorted(bare[1:])[len(bare[1:]) // 2],
        imports_torch="torch" in loaded,
    )


def _time(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start
