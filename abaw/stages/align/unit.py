"""The work of `align` on one unit: a recording with its tracks, a folder of crops, or a shard of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from abaw import executors
from abaw.data.collection import Shard
from abaw.data.manifest import Track, nominal_fps
from abaw.executors import TrackResult
from abaw.media.crops import read_crops
from abaw.media.faces import DetectorOptions, FaceDetector, build_detector
from abaw.media.identity import Embedder, build_embedder
from abaw.media.images import align_images
from abaw.media.people import VideoFaces, align_video
from abaw.stages.align.plan import Plan
from abaw.store import FeatureStore

IMAGES_FPS = 1.0  # nominal: images have no clock


def align_unit(unit: Sequence[Track] | Sequence[Shard], *, plan: Plan) -> Iterator[TrackResult]:
    """Align the tracks of one unit and publish them."""
    store = FeatureStore.open(plan.store, kind="faces")
    work = {"videos": _align_video, "crops": _align_crops, "images": _align_images}[plan.kind]
    with _one_thread():
        yield from work(unit, plan, store)  # type: ignore[operator]


def _align_video(unit: Sequence[Track], plan: Plan, store: FeatureStore) -> Iterator[TrackResult]:
    path = unit[0].video
    assert path is not None
    detector = _detector(plan.detector, plan.options)
    sides = [track.side for track in unit]
    with align_video(
        path,
        sides,
        detector,
        plan.settings,
        embedder=_embedder(plan.options),
        two_people=path in plan.two_people,
        all_faces=plan.all_faces,
        scratch_dir=plan.store,
    ) as found:
        if plan.all_faces:
            yield _publish_people(unit[0].track_id, found, store)
            return
        for number, track in enumerate(unit):
            reasons = _publish(track.track_id, found, number, store)
            yield _result(track.track_id, reasons, found)


def _publish(name: str, found: VideoFaces, number: int, store: FeatureStore, *, all_faces: bool = False) -> np.ndarray:
    """Write one person's track; its reasons [T]."""
    arrays = found.track(number)
    facts = found.facts | ({"people": len(found)} if all_faces else {})
    store.write(name, arrays, fps=found.fps, facts=facts)
    return np.asarray(arrays["reason"])


def _publish_people(name: str, found: VideoFaces, store: FeatureStore) -> TrackResult:
    """One track per person; the first comes last, so that it being there means that all are."""
    reasons = [
        _publish(f"{name}_person{number + 1}", found, number, store, all_faces=True)
        for number in reversed(range(len(found)))
    ]
    return _result(name, np.concatenate(reasons), found, tracks=len(found))


def _result(name: str, reasons: np.ndarray, found: VideoFaces, *, tracks: int = 1) -> TrackResult:
    info: dict[str, Any] = {"reasons": executors.count_reasons(reasons), "tracks": tracks}
    return TrackResult(name, info=info | {"decode_errors": found.facts["decode_errors"]})


def _align_crops(unit: Sequence[Track], plan: Plan, store: FeatureStore) -> Iterator[TrackResult]:
    detector = _detector(plan.detector, plan.options) if plan.detect_on_crops else None
    for track in unit:
        assert track.video is not None
        fps = nominal_fps(track.track_id)
        num_rows = plan.min_rows.get(track.track_id, 0)
        crops = read_crops(
            track.video,
            fps=fps,
            min_rows=num_rows,
            jpeg_quality=plan.settings.jpeg_quality,
            detector=detector,
            scratch_dir=plan.store,
        )
        store.write(track.track_id, crops.arrays, fps=fps, facts=crops.facts)
        yield TrackResult(track.track_id, info={"reasons": executors.count_reasons(np.asarray(crops.arrays["reason"]))})


def _align_images(unit: Sequence[Shard], plan: Plan, store: FeatureStore) -> Iterator[TrackResult]:
    detector = _detector(plan.detector, plan.options)
    for shard in unit:
        arrays = align_images(shard.folder, list(shard), detector, plan.settings, scratch_dir=plan.store)
        store.write(shard.track_id, arrays, fps=IMAGES_FPS)
        yield TrackResult(shard.track_id, info={"reasons": executors.count_reasons(np.asarray(arrays["reason"]))})


@lru_cache(maxsize=1)
def _detector(name: str, options: DetectorOptions) -> FaceDetector:
    """One detector per process: loading the weights costs more than a short video."""
    return build_detector(name, options)


@lru_cache(maxsize=1)
def _embedder(options: DetectorOptions) -> Embedder:
    return build_embedder(options)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch and OpenCV on one thread each: beside the decoding thread, more of them only wait for each other."""
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
