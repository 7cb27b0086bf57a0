"""Which tracks `extract-audio` does, and which recording holds the sound of each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from abaw.config import Config
from abaw.data.manifest import Manifest, Track, split_person
from abaw.errors import AbawError
from abaw.store import FeatureStore

logger = logging.getLogger(__name__)


def tracks_of(cfg: Config, faces: FeatureStore) -> list[Track]:
    """The manifest's tracks that the faces store holds, with the videos that hold their sound.

    Beside the organisers' crops that is `data.videos`, where it is set; ``video`` is None where there is none. Raises
    AbawError when there is no track.
    """
    tracks = _with_people(Manifest.from_config(cfg.data), faces)
    if not tracks:
        raise AbawError(
            f"the faces store {faces.path} holds none of the tracks",
            where="[extract_audio] faces",
            fix="run `abaw align` first",
        )
    if cfg.data.kind == "videos":
        return tracks
    if not has_videos(cfg):
        logger.warning("data.videos is not set: %d tracks get rows without sound", len(tracks))
        return [replace(track, video=None) for track in tracks]
    videos = Manifest.from_config(cfg.data.model_copy(update={"kind": "videos"}))
    sources = [videos.get(track.track_id) for track in tracks]
    return [
        replace(track, video=source.video if source else None) for track, source in zip(tracks, sources, strict=True)
    ]


def _with_people(tracks: Sequence[Track], faces: FeatureStore) -> list[Track]:
    """The tracks that the store holds; of a video whose every face was kept, one for each person."""
    videos = {track.video.stem: track.video for track in tracks if track.video is not None}
    found = [track for track in tracks if track.track_id in faces]
    if not faces.header.settings.get("all_faces"):  # a name that ends like a person's is a recording's own
        return found
    people = [(name, *split_person(name)) for name in faces.track_ids()]
    known = {track.track_id for track in tracks}
    found += [Track(name, videos.get(base), {}) for name, base, number in people if number and name not in known]
    return found


def has_videos(cfg: Config) -> bool:
    """Whether there are recordings at all."""
    return cfg.data.kind == "videos" or cfg.data.videos is not None


def group_by_sound(tracks: Sequence[Track]) -> list[list[Track]]:
    """The tracks that share a sound track, in order of their first track."""
    groups: dict[str, list[Track]] = {}
    for track in tracks:
        groups.setdefault(str(track.video or track.track_id), []).append(track)
    return list(groups.values())
