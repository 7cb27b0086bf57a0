"""Which embedding tells people apart: a vector of each face, and how alike two of one person are.

Knows nothing of tracks or videos. The arcface model of an insightface pack is used where one is given; otherwise the
appearance of the crop, which needs no weights and tells less.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from abaw.media import appearance
from abaw.media.faces import DetectorOptions


class Embedder(Protocol):
    """Two faces whose vectors' cosine is ``same`` or more are one person.

    ``decides``: sure enough to leave a face out of a track because it is another person's.
    """

    name: str
    same: float
    decides: bool

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """RGB crops uint8 [N, 112, 112, 3] on the arcface template, no margin -> unit vectors float32 [N, D]."""


def build_embedder(options: DetectorOptions) -> Embedder:
    """The embedder that the options allow.

    Raises AbawError (missing) where a pack is named and it, or the package insightface, is not there.
    """
    if embedder_settings(options)["name"] == "arcface":
        from abaw.media.insightface_pack import ArcfaceEmbedder

        return ArcfaceEmbedder(options)
    return appearance.AppearanceEmbedder()


def prepare_embedder(options: DetectorOptions) -> None:
    """Say what the embedder lacks, once and before workers start; raises as `build_embedder`."""
    if embedder_settings(options)["name"] == "arcface":
        from abaw.media.insightface_pack import check_package

        check_package(options)


def embedder_settings(options: DetectorOptions) -> dict[str, Any]:
    """Everything that changes the vectors, for the settings of a store; loads no weights, raises as the above."""
    if options.pack is not None:
        from abaw.media.insightface_pack import recognition_settings

        settings = recognition_settings(options.pack)
        if settings is not None:
            return settings
    return {"name": appearance.AppearanceEmbedder.name, **appearance.SETTINGS}
