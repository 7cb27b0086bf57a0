"""One video of the set, from plan to files: mp4, label files, crops and truth.

The unit of parallel work; all of its randomness comes from the seed and the numbers in its plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from abaw.stages.synth import layout
from abaw.stages.synth.activations import Truth, draw_truth
from abaw.stages.synth.crops import crop, write_jpeg
from abaw.stages.synth.encode import write_mp4
from abaw.stages.synth.expressive import Expressive, build_expressive
from abaw.stages.synth.identity import build_face
from abaw.stages.synth.plan import Person, Video
from abaw.stages.synth.portraits import Portrait, built_in_portraits
from abaw.stages.synth.render import Actor, build_actor, frames
from abaw.stages.synth.voice import mixed, speak

# First numbers of the streams of random numbers, one per purpose.
_TRUTH, _IDENTITY, _ACTOR, _FRAMES, _VOICE, _LABELS = range(2, 8)


@dataclass(frozen=True)
class Job:
    """A video to make under ``out``; ``portraits`` names a file of portraits to use instead of the built-in ones."""

    out: Path
    seed: int
    video: Video
    portraits: tuple[Portrait, ...] | None = None


def track_truth(seed: int, video: Video, person: Person) -> Truth:
    """Activations and labels of a track."""
    return draw_truth(np.random.default_rng([seed, _TRUTH, person.identity]), video.num_frames, float(video.fps))


@lru_cache(maxsize=1)
def _built_in() -> tuple[Portrait, ...]:
    return tuple(built_in_portraits())


def identity(seed: int, number: int, portraits: tuple[Portrait, ...] | None) -> Expressive:
    """Identity ``number`` of the set with that seed."""
    rng = np.random.default_rng([seed, _IDENTITY, number])
    return build_expressive(build_face(rng, list(portraits or _built_in()), lead=number))


def make_video(job: Job) -> dict[str, list[str]]:
    """Write everything of one video; gives back its rows for the multi-task files, by split."""
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    with threadpool_limits(1):
        return _make_video(job)


def _make_video(job: Job) -> dict[str, list[str]]:
    video, seed = job.video, job.seed
    truths, actors, voices = [], [], []
    for seat, person in enumerate(video.people):
        truth = track_truth(seed, video, person)
        expressive = identity(seed, person.identity, job.portraits)
        rng = np.random.default_rng([seed, _ACTOR, person.identity])
        actors.append(build_actor(rng, video, expressive, truth.activations, seat=seat))
        truths.append(truth)
        rng = np.random.default_rng([seed, _VOICE, person.identity])
        voices.append(speak(rng, truth.va, float(video.fps), pitch_hz=expressive.face.pitch_hz))
    rngs = [np.random.default_rng([seed, _LABELS, person.identity]) for person in video.people]
    # The organisers' cropper, too, missed a face now and then.
    cropped = [actor.visible & (rng.random(video.num_frames) >= 0.02) for actor, rng in zip(actors, rngs, strict=True)]
    pictures = frames(np.random.default_rng([seed, _FRAMES, video.index]), video, actors)
    write_mp4(
        job.out / layout.ROOT / "videos" / f"{video.stem}.mp4",
        _with_crops(job.out, video, actors, cropped, pictures),
        size=(video.width, video.height),
        fps=video.fps,
        sound=mixed(voices) if video.has_sound else None,
    )
    mtl: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for person, truth, actor, rng, seen in zip(video.people, truths, actors, rngs, cropped, strict=True):
        layout.write_labels(job.out, person, layout.label_rows(rng, person, truth, actor.visible))
        splits = set(person.splits.values())
        if len(splits) == 1 and splits <= set(mtl):  # a track in two splits has no place in the multi-task set
            mtl[splits.pop()] += layout.mtl_rows(rng, person, truth, seen)
        _write_truth(job.out, person, truth, actor)
    return mtl


def _with_crops(
    out: Path, video: Video, actors: list[Actor], cropped: list[np.ndarray], pictures: Iterator[np.ndarray]
) -> Iterator[np.ndarray]:
    """The frames, unchanged, each person's crop written on the way."""
    folders = [out / layout.ROOT / "cropped_aligned" / person.track_id for person in video.people]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for row, picture in enumerate(pictures):
        for folder, actor, seen in zip(folders, actors, cropped, strict=True):
            if seen[row]:
                write_jpeg(folder / layout.frame_name(row), crop(picture, actor.landmarks[row]))
        yield picture


def _write_truth(out: Path, person: Person, truth: Truth, actor: Actor) -> None:
    folder = out / "truth" / "tracks"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / f"{person.track_id}.npz",
        activations=truth.activations,
        au=truth.au,
        expr=truth.expr,
        va=truth.va,
        hidden=truth.hidden,
        visible=actor.visible,
        landmarks=actor.landmarks,
        identity=person.identity,
        rest=actor.expressive.face.rest,
        **{name: np.float64(value) for name, value in actor.expressive.face.parameters.items()},  # type: ignore[arg-type]
    )
