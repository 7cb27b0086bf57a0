"""`extract-visual` on a cluster: what a node builds its encoder from, instead of being sent the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from abaw.config import Config
from abaw.encoders.visual import RANDOM
from abaw.errors import AbawError
from abaw.executors import Resources, TrackResult
from abaw.stages.extract_visual.setup import Plan, Target, plan, table_of
from abaw.stages.extract_visual.work import Item, extract_unit
from abaw.store import FeatureStore
from abaw.training.device import keep_freed_memory, resolve_device

UNIT_TRACKS = 16  # batches end with a unit, and there are to be enough units for many nodes


@dataclass(frozen=True)
class NodePlan:
    """Everything a node needs; small and picklable. ``device``: "cpu" or "cuda", whichever Ray gives the task.

    ``started`` tells runs apart in a process that outlives one.
    """

    cfg: Config
    target: Target
    faces: Path
    device: str
    started: str

    def __hash__(self) -> int:
        return hash((self.target, self.faces, self.device, self.started))


def resources_of(cfg: Config, target: Target, faces: FeatureStore, *, device: str) -> Resources:
    """What one unit takes, and the folders it needs."""
    weights = target.weights or table_of(cfg, target.encoder).weights
    named = [cfg.weights_file(weights)] if weights and weights != RANDOM else []
    reads = [faces.path, cfg.run.weights_dir, *(path for path in named if path.exists())]
    store = cfg.features_store("visual", target.store)
    return Resources.of(cfg.run, writes=store, reads=reads, device=device, cpus=max(1, cfg.run.threads))


def extract_on_node(unit: Sequence[Item], *, plan: NodePlan) -> Iterator[TrackResult]:
    """Encode the faces of some tracks and publish them, with this process's own copy of the encoder."""
    one, faces = _built(plan)
    store = FeatureStore.open(one.path, kind="visual")
    if store.fingerprint != one.header.fingerprint:
        raise AbawError(
            f"this node would extract with other weights or settings than those of store {store.path.name}",
            where=str(store.path),
            fix="let all nodes see the same weights files: run.weights_dir, or weights in the encoder's table",
        )
    device_is_cpu = plan.device == "cpu"
    yield from extract_unit(
        unit, faces=faces, store=store, encoder=one.encoder, batch_size=one.batch_size, on_cpu=device_is_cpu
    )


@lru_cache(maxsize=1)
def _built(wanted: NodePlan) -> tuple[Plan, FeatureStore]:
    """One encoder per process: building it costs more than a short video."""
    faces = FeatureStore.open(wanted.faces, kind="faces")
    one = plan(wanted.cfg, wanted.target, faces, resolve_device(wanted.device))
    keep_freed_memory()
    return one, faces
