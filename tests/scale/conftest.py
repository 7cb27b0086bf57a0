"""A Ray cluster of two nodes on this machine, each with one core and a small object store."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent
STORE_BYTES = 80 << 20
# What the workers do in the tests; they must be able to import it. A unit's name says what becomes of it.
WORK = """
import logging, os, time
from pathlib import Path
import numpy, threadpoolctl
from abaw.errors import AbawError
from abaw.executors import TrackResult

def work(unit, folder=None):
    for track in unit:
        name = track.track_id
        if name == "bad":
            raise AbawError("bad video", where="here", fix="replace it")
        if name == "bug":
            raise KeyError("slip")
        if name == "dies" or (name == "dies-once" and not (folder / "died").exists()):
            (folder / "died").touch()
            os._exit(9)
        if name.startswith("sleeps"):
            (folder / name).write_text(str(os.getpid()))
            time.sleep(60)
        if name == "warns":
            logging.getLogger("abaw.work").warning("%s is odd", name)
        pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
        yield TrackResult(name, info={"threads": pools, "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "")})
"""


class TwoNodes(NamedTuple):
    """``cluster`` with its head; ``add`` starts the second node anew."""

    cluster: Any
    address: str

    def add(self, *, num_gpus: int = 0) -> Any:
        """Start a node beside the head."""
        return self.cluster.add_node(num_cpus=1, num_gpus=num_gpus, object_store_memory=STORE_BYTES)


@pytest.fixture(scope="session")
def work_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the module `work_on_nodes`, on the path of all workers."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "work_on_nodes.py").write_text(WORK)
    return folder


@pytest.fixture(scope="session")
def two_nodes(work_folder: Path) -> Iterator[TwoNodes]:
    """The cluster; skips, saying why, where Ray is not installed."""
    pytest.importorskip("ray", reason="the tests of the Ray executor need it: pip install 'abaw[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        known = os.environ.get("PYTHONPATH")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(work_folder), *([known] if known else [])]))
        patch.delenv("RAY_ADDRESS", raising=False)
        # Sockets lie in it, whose names may have 107 bytes: the tests' own folder has too long a name.
        scratch = tempfile.mkdtemp(prefix="ray")
        Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)  # its address is noted there, wherever temp_dir is
        head = {"num_cpus": 1, "object_store_memory": STORE_BYTES, "include_dashboard": False, "temp_dir": scratch}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        nodes = TwoNodes(cluster, cluster.address)
        try:
            nodes.add()
            yield nodes
        finally:
            cluster.shutdown()
            shutil.rmtree(scratch, ignore_errors=True)
