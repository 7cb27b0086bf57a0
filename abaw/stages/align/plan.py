"""What a run of `align` is to do: settings resolved from the configuration, and the header of the store it writes.

Knows nothing of how the work is done or spread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abaw.config import Config
from abaw.errors import AbawError, ExitCode
from abaw.media import following, tracking
from abaw.media.crops import CROP_SETTINGS
from abaw.media.faces import DetectorOptions, detector_settings, prepare_detector, resolve_min_score
from abaw.media.identity import embedder_settings, prepare_embedder
from abaw.media.images import IMAGE_SETTINGS
from abaw.media.people import AlignSettings
from abaw.media.warp import Aligner
from abaw.provenance import make_recipe, unknown_recipe
from abaw.store import ArraySpec, StoreHeader

ARRAYS = {
    "jpeg": ArraySpec("uint8", (), "ragged"),
    "offsets": ArraySpec("int64", (), "T+1"),
    "time": ArraySpec("float64"),
    "reason": ArraySpec("uint8"),
    "box": ArraySpec("float32", (4,)),
    "landmarks": ArraySpec("float32", (5, 2)),
    "warp": ArraySpec("float32", (2, 3)),
    "score": ArraySpec("float32"),
}
OWN_ARRAYS = {
    "videos": {"person": ArraySpec("uint16")},
    "crops": {"template": ArraySpec("bool")},
    "images": {"key": ArraySpec("str")},
}


@dataclass(frozen=True)
class Plan:
    """Everything a worker needs; small and picklable.

    ``min_rows`` holds the rows that files give tracks of crops, ``two_people`` the recordings that hold tracks of two.
    """

    kind: str
    store: Path
    detector: str
    options: DetectorOptions
    settings: AlignSettings
    all_faces: bool
    detect_on_crops: bool
    min_rows: Mapping[str, int]
    two_people: frozenset[Path]


def make_plan(cfg: Config, *, min_rows: Mapping[str, int], two_people: frozenset[Path] = frozenset()) -> Plan:
    """The plan of a configuration. Raises AbawError for a device that is not there or settings that do not fit."""
    align = cfg.align
    if align.all_faces and cfg.data.kind != "videos":
        raise AbawError(
            f'all faces are kept of videos only, and data.kind is "{cfg.data.kind}"',
            where="align.all_faces",
            fix="leave --all-faces out: a crop shows one face, and of an image the dominant one is taken",
            code=ExitCode.CONFIG,
        )
    options = DetectorOptions(
        short_side_px=align.short_side_px,
        min_face_px=align.min_face_px,
        follow_score=align.follow_score,
        weights=align.weights,
        pack=align.pack,
        weights_dir=cfg.run.weights_dir,
        offline=cfg.run.offline,
        device=_device(cfg.run.device),
    )
    aligner = Aligner(align.size_px, align.margin, align.warp)
    min_score = resolve_min_score(align.detector, align.min_score)
    return Plan(
        kind=cfg.data.kind,
        store=cfg.faces_store,
        detector=align.detector,
        options=options,
        settings=AlignSettings(aligner, align.redetect, min_score, align.jpeg_quality),
        all_faces=align.all_faces,
        detect_on_crops=align.crop_landmarks == "detect",
        min_rows=min_rows,
        two_people=two_people,
    )


def prepare(plan: Plan) -> None:
    """Fetch or check the weights once, before any worker starts. Raises AbawError where they cannot be had."""
    if plan.kind != "crops" or plan.detect_on_crops:
        prepare_detector(plan.detector, plan.options)
    if plan.kind == "videos":
        prepare_embedder(plan.options)


def _device(name: str) -> str:
    """Following works on one face at a time, which a GPU does not speed up: one is used only when asked for."""
    if name in ("auto", "cpu"):
        return "cpu"
    from abaw.training.device import resolve_device

    return str(resolve_device(name))


def build_header(plan: Plan) -> StoreHeader:
    """The store's header: all settings that change its rows, and the recipe that later artefacts inherit."""
    aligner = plan.settings.aligner
    geometry = {
        "detector": plan.detector,
        "warp": aligner.warp,
        "template": "arcface-112" if aligner.warp == "arcface" else "none",
        "margin": aligner.margin,
    }
    detection = detector_settings(plan.detector, plan.options)
    settings: dict[str, Any] = {"source": plan.kind, "jpeg_quality": plan.settings.jpeg_quality}
    if plan.kind == "crops":
        landmarks = {"detector": detection, **CROP_SETTINGS} if plan.detect_on_crops else "template"
        settings |= {"landmarks": landmarks, "time": "nominal"}
    else:
        settings |= geometry | {"size_px": aligner.size_px, "min_score": plan.settings.min_score}
        settings |= {"detection": detection}
    if plan.kind == "videos":
        settings |= {"redetect": plan.settings.redetect, "following": following.SETTINGS}
        settings |= {"people": tracking.SETTINGS, "all_faces": plan.all_faces}
        settings |= {"identity": embedder_settings(plan.options)}
    if plan.kind == "images":
        settings |= {"time": "row number", "images": IMAGE_SETTINGS}
    recipe = unknown_recipe() if plan.kind == "crops" else make_recipe(geometry)
    return StoreHeader("faces", "faces", ARRAYS | OWN_ARRAYS[plan.kind], settings, recipe=recipe)
