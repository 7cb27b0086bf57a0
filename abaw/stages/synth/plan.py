"""Which videos the set holds, who is in them, and what is special about each.

Pure bookkeeping: a plan follows from the number of videos, their length and the seed, before anything is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

TASKS = ("au", "expr", "va")
FILM = Fraction(24000, 1001)
MIN_VIDEOS = 8


@dataclass(frozen=True)
class Person:
    """One track: its name, its seat in the picture, its split per task and how its label files deviate."""

    track_id: str
    identity: int
    side: str | None
    splits: dict[str, str]
    extra_rows: int = 0
    has_invalid_rows: bool = False


@dataclass(frozen=True)
class Video:
    """One file: name, picture size, clock, and the people in it."""

    stem: str
    index: int
    width: int
    height: int
    fps: Fraction
    num_frames: int
    has_sound: bool
    is_interrupted: bool
    people: tuple[Person, ...] = field(default=())


def plan_videos(*, videos: int, seconds: float, seed: int) -> list[Video]:
    """All videos of a set: about 65 % training, 25 % validation and 10 % test, at least 3 for validation.

    The first of each split is the one with two people (validation from 12 videos on); further on come the silent one,
    the odd frame rates, label files a row too long and too short, and, last of training, the track that is training
    for AU and EXPR and validation for VA. Every track has an identity of its own, so for every task the identities
    of training, validation and test are disjoint.
    """
    num_val = max(3, round(0.25 * videos))
    num_test = max(1, round(0.1 * videos))
    split_of = ["train"] * (videos - num_val - num_test) + ["val"] * num_val + ["test"] * num_test
    numbers = np.random.default_rng([seed, 1]).permutation(videos) + 1
    planned, identity, seen = [], 0, {"train": 0, "val": 0, "test": 0}
    totals = {split: split_of.count(split) for split in seen}
    for index, split in enumerate(split_of):
        place = seen[split]
        seen[split] += 1
        video = _video(index, int(numbers[index]), split, place, totals[split], identity, seconds, videos)
        identity += len(video.people)
        planned.append(video)
    return planned


def _video(
    index: int, number: int, split: str, place: int, total: int, identity: int, seconds: float, videos: int
) -> Video:
    two = place == 0 and (split != "val" or videos >= 12)
    fps = Fraction(25)
    if split == "train" and place == 2:
        fps = FILM
    elif place == 1 and (split == "train" or total > 4):
        fps = Fraction(30)
    width, height = (640, 360) if two else (480, 360)
    stem = f"{number}-{round(fps)}-{width}x{height}"
    splits = dict.fromkeys(TASKS, split)
    if split == "train" and place == total - 1:
        splits["va"] = "val"
    if split == "test" and total > 1 and place == total - 1:
        del splits["au"]  # as in the real set, the tasks' test sets differ
    extra = {("train", 1): 1, ("train", 2): -1}.get((split, place), 0)
    people = tuple(
        Person(
            f"{stem}_{side}" if side else stem,
            identity + seat,
            side,
            splits,
            extra_rows=extra,
            has_invalid_rows=split != "test" and place % 3 == 1,
        )
        for seat, side in enumerate(("left", "right") if two else (None,))
    )
    return Video(
        stem=stem,
        index=index,
        width=width,
        height=height,
        fps=fps,
        num_frames=max(2, round(seconds * fps)),
        has_sound=not (split == "train" and place == 1),
        is_interrupted=place % 4 == 2 or (split == "test" and place == 0),
        people=people,
    )
