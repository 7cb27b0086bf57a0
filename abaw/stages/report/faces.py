"""Face crops of a track as small pictures inside the page: personal data, shown only when they are asked for."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np

from abaw.stages.report import numbers
from abaw.stages.report.page import Html, paragraph, tag
from abaw.store import FeatureStore

SIDE, QUALITY = 96, 80  # pixels, JPEG quality
NOTICE = (
    "This page shows faces of recorded people, which are personal data. Give it only to people who may see the "
    "recordings, and delete it when it has done its work."
)


def crops(store: FeatureStore | None, track_id: str, count: int, fps: float) -> Html:
    """Up to ``count`` faces of a track, evenly spread over its frames that have one."""
    if store is None or "jpeg" not in store.header.arrays or track_id not in store:
        return paragraph("The faces of this video are not on this machine.", class_="dim")
    rows = np.flatnonzero(store.valid(track_id))
    if not len(rows):
        return paragraph("No face was found in this video.", class_="dim")
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]
    offsets = store.read(track_id, "offsets")
    items = []
    for row in chosen.tolist():
        content = store.read(track_id, "jpeg", slice(int(offsets[row]), int(offsets[row + 1]))).tobytes()
        picture, when = _small(content), numbers.clock(row / fps)
        if picture:
            image = tag("img", src=picture, alt=f"Face at {when}", width=SIDE, height=SIDE)
            items.append(tag("li", image, tag("span", when)))
    return tag("ul", *items, class_="faces") if items else paragraph("The faces cannot be read.", class_="dim")


def _small(content: bytes) -> str | None:
    """A JPEG's pixels as a small JPEG without anything else the file held; None where it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(content)) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError):
        return None
    written = BytesIO()
    small.save(written, format="JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"
