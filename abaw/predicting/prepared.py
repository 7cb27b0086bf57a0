"""Faces and features of new videos, by the stages that made those of the training."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from abaw.config import Config
from abaw.console import Summary
from abaw.data.manifest import split_person
from abaw.predicting.behind import Behind
from abaw.predicting.recipe import check_features, derived_config, faces_header
from abaw.stages import align, extract_audio, extract_visual
from abaw.store import FeatureStore

logger = logging.getLogger(__name__)


def prepare(
    cfg: Config, behind: Behind, folder: Path, *, all_faces: bool, device: torch.device
) -> tuple[Config, dict[str, str]]:
    """Align the videos below ``folder`` and extract what the runs read; the configuration of that, and what failed.

    Failures are by the video's track name, in words. Raises AbawError for faces or features that would be made in
    another way than in training, before any video is opened.
    """
    derived = derived_config(cfg, behind, folder, all_faces=all_faces, device=device)
    faces = FeatureStore.create(derived.faces_store, faces_header(derived, behind))
    check_features(derived, behind, faces, device)
    failed: dict[str, str] = {}
    _note(failed, align.run(derived), all_faces=all_faces)
    on_device = derived.model_copy(update={"run": derived.run.model_copy(update={"device": str(device)})})
    if not faces.track_ids():
        return on_device, failed
    if behind.of_kind("visual"):
        _note(failed, extract_visual.run(on_device), all_faces=all_faces)
    if behind.of_kind("audio"):
        _note(failed, extract_audio.run(on_device), all_faces=all_faces)
    return on_device, failed


def _note(failed: dict[str, str], summary: Summary, *, all_faces: bool) -> None:
    """Keep what a stage says of tracks that failed: the first of it for each video."""
    for one in summary.failed:
        base, number = split_person(one.track_id)
        name = base if all_faces and number else one.track_id
        if one.bug:
            logger.error("internal error in %s (%s): %s", summary.stage, name, one.message)
        failed.setdefault(name, f"{summary.stage}: {one.message}")
