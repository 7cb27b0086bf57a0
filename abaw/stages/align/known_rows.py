"""Rows that label and sample files give the tracks of crops, which alone do not say where a track ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from abaw.config import Config
from abaw.data.annotations import LabelReader
from abaw.data.manifest import Track
from abaw.editions import EDITIONS, read_sample
from abaw.errors import AbawError, choose
from abaw.tasks import TASKS

logger = logging.getLogger(__name__)


def known_rows(cfg: Config, tracks: Sequence[Track]) -> dict[str, int]:
    """Rows by track, the most that any file names."""
    rows = _sample_rows(cfg)
    readers = {
        task: LabelReader(cfg.data, choose(TASKS, task, what="task", where="data.annotations"))
        for task in cfg.data.annotations
    }
    for track in tracks:
        for task, reader in readers.items():
            if track.splits.get(task) in ("train", "val"):
                rows[track.track_id] = max(rows.get(track.track_id, 0), _label_rows(reader, track))
    return rows


def _label_rows(reader: LabelReader, track: Track) -> int:
    """Rows of one label file; 0 for one that is refused, which must not end the work on other tracks."""
    try:
        return reader.count(track)
    except AbawError as error:
        logger.warning("%s (%s): track %s ends with its last crop", error.what, error.where, track.track_id)
        return 0


def _sample_rows(cfg: Config) -> dict[str, int]:
    rows: dict[str, int] = {}
    for table in (cfg.submit, *cfg.submit_tasks.values()):
        if table.sample is None:
            continue
        edition = choose(EDITIONS, table.edition, what="edition", where="submit.edition")
        submission = choose(edition.submissions, table.task, what="task", where="submit.task")
        sample = read_sample(table.sample, submission)
        for index, row in zip(sample.track_index.tolist(), sample.rows.tolist(), strict=True):
            rows[sample.tracks[index]] = max(rows.get(sample.tracks[index], 0), row + 1)
    return rows
