"""Contact sheet: every identity with each action unit and each expression, as one picture.

Knows nothing of videos and labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from abaw.stages.synth.activations import AUS, PROTOTYPES
from abaw.stages.synth.crops import SIZE_PX, crop
from abaw.stages.synth.portraits import Portrait

_LABEL_PX = 14
_WALL = 150
# Wider than an aligned crop, so that brows, chin and outline can be judged.
_ZOOM = 0.75
_OTHER = {2: 0.9, 12: 0.8, 24: 0.9}  # one of many: units that resemble no prototype


def columns() -> list[tuple[str, np.ndarray]]:
    """Name and activations [12] of every column: rest, the units one by one, the other expressions."""
    named: list[tuple[str, dict[int, float]]] = [("Neutral", {})]
    named += [(f"AU{unit}", {unit: 1.0}) for unit in AUS]
    named += [*PROTOTYPES.items(), ("Other", _OTHER)]
    return [(name, np.array([units.get(unit, 0.0) for unit in AUS], np.float32)) for name, units in named]


def write_sheet(path: Path, cast: tuple[int, list[tuple[str, int]]], photos: tuple[Portrait, ...] | None) -> None:
    """Write a PNG with a row per identity of ``cast`` (seed, then name and number of each)."""
    import cv2

    seed, people = cast
    rows = [_row(name, seed, number, photos) for name, number in people]
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(".png", np.concatenate(rows)[..., ::-1])
    path.write_bytes(data.tobytes())


def _row(track_id: str, seed: int, number: int, photos: tuple[Portrait, ...] | None) -> np.ndarray:
    from abaw.stages.synth.track import identity

    expressive = identity(seed, number, photos)
    _, at_rest = expressive.draw(np.zeros(len(AUS), np.float32))
    centre = at_rest.mean(axis=0)
    # One window for the whole row: aligning each picture by its own landmarks would hide what moves.
    window = (at_rest - centre) / _ZOOM + centre
    tiles = []
    for name, activations in columns():
        plate, _ = expressive.draw(activations)
        picture = plate[..., :3].astype(np.int32) + (_WALL * (255 - plate[..., 3:].astype(np.int32))) // 255
        tile = crop(np.clip(picture, 0, 255).astype(np.uint8), window)
        tiles.append(_labelled(tile, name))
    return np.concatenate([_titled(track_id), *tiles], axis=1)


def _titled(text: str) -> np.ndarray:
    import cv2

    strip = np.full((_LABEL_PX, SIZE_PX + _LABEL_PX, 3), 255, np.uint8)
    cv2.putText(strip, text, (2, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.34, (20, 20, 20), 1, cv2.LINE_AA)
    return np.rot90(strip)


def _labelled(tile: np.ndarray, text: str) -> np.ndarray:
    import cv2

    framed = np.full((SIZE_PX + _LABEL_PX, SIZE_PX, 3), 255, np.uint8)
    framed[_LABEL_PX:] = tile
    return cv2.putText(framed, text, (2, 11), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (20, 20, 20), 1, cv2.LINE_AA)
