"""What is done to scores before they become labels: smoothing, thresholds, clipping; kept as post.json.

Owns the settings and the arithmetic on scores. Knows nothing of tasks' names or of labels.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from abaw.errors import AbawError
from abaw.publish import publish_text

FILE_NAME = "post.json"


@dataclass(frozen=True)
class Post:
    """How scores are treated, by head name.

    ``half_width`` rows on each side of a centred box filter (0 = none); ``thresholds`` one per unit of a multi-label
    head; ``clip`` bounds of values; ``fitted_on`` says where these were chosen.
    """

    half_width: dict[str, int] = field(default_factory=dict)
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
        content = json.loads(path.read_text(encoding="utf-8"))
        return Post(**{**content, "clip": tuple(content.get("clip", (-1.0, 1.0)))})
    except (OSError, ValueError, TypeError) as error:
        raise AbawError(
            f"{path} cannot be read ({error})",
            where=str(path),
            fix="delete it to evaluate the raw scores, or write it again with `abaw tune`",
        ) from error
