"""What is done to scores before they become labels: smoothing, thresholds, clipping; kept as post.json.

Owns the settings and the arithmetic on scores. Knows nothing of tasks' names or of labels.
"""

from __future__ import annotations

import json
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from abaw.errors import AbawError
from abaw.publish import publish_text

FILE_NAME = "post.json"


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class Post:
    """How scores are treated, by head name.

    ``half_width`` rows on each side of a centred box filter (0 = none); ``thresholds`` one per unit of a multi-label
    head; ``clip`` bounds of values; ``fitted_on`` says where these were chosen.
    """

    half_width: dict[str, Annotated[int, Field(ge=0)]] = field(default_factory=dict)
    thresholds: dict[str, list[float]] = field(default_factory=dict)
    clip: tuple[float, float] = (-1.0, 1.0)
    fitted_on: str = ""


def smooth(scores: np.ndarray, half_width: int) -> np.ndarray:
    """Centred box filter over rows of scores [T, L]; at the ends the window shrinks to the rows that exist."""
    if half_width == 0 or len(scores) == 0:
        return scores
    from scipy.ndimage import uniform_filter1d  # a third of a second that most commands do not need

    size = 2 * half_width + 1
    sums = uniform_filter1d(scores.astype(np.float64), size, axis=0, mode="constant")
    counts = uniform_filter1d(np.ones(len(scores)), size, mode="constant")
    return (sums / counts[:, None]).astype(scores.dtype)


def save_post(folder: Path, post: Post) -> None:
    """Write post.json next to store.json, at once."""
    publish_text(folder / FILE_NAME, json.dumps(asdict(post), indent=1) + "\n")


def load_post(folder: Path) -> Post:
    """The post.json of a predictions store, or no post-processing where there is none. Raises AbawError if garbled."""
    path = folder / FILE_NAME
    if not path.is_file():
        return Post()
    try:
        return TypeAdapter(Post).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AbawError(
            f"{path} cannot be read ({reason})",
            where=str(path),
            fix="correct it as docs/formats.md says, or delete it to use the raw scores",
        ) from error
