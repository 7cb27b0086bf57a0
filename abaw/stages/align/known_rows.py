"""Rows that label and sample files give the tracks of crops, which alone do not say where a track ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from abaw.config import Config
from abaw.data.annotations import LabelReader
from abaw.data.ledger import sample_rows
from abaw.data.manifest import Track
from abaw.errors import AbawError, choose
from abaw.tasks import TASKS

logger = logging.getLogger(__name__)


def known_rows(cfg: Config, tracks: Sequence[Track]) -> dict[str, int]:
    """Rows by track, the most that any file names.

    A label file that is refused must not end the work on other tracks: its track ends with its last crop, with a
    warning.
    """
    rows: dict[str, int] = {}
    for named in sample_rows(cfg).values():
        for name, one in named.items():
            rows[name] = max(rows.get(name, 0), one.highest)
    readers = {
        task: LabelReader(cfg.data, choose(TASKS, task, what="task", where="data.annotations"))
        for task in cfg.data.annotations
    }
    refused: dict[str, list[str]] = {}
    for track in tracks:
        for task, reader in readers.items():
            if track.splits.get(task) not in ("train", "val"):
                continue
            try:
                rows[track.track_id] = max(rows.get(track.track_id, 0), reader.count(track))
            except AbawError as error:
                refused.setdefault(f"{error.what} ({error.where})", []).append(track.track_id)
    for message, names in refused.items():
        shown = ", ".join(names[:5])
        logger.warning("%s: %d tracks end with their last crop: %s", message, len(names), shown)
    return rows
