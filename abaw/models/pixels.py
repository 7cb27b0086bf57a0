"""What models expect of pixels, and what decoders make of them: resizing, normalisation, target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# How images get to a model's size, as recorded and as torch calls it; always antialiased.
BICUBIC, BILINEAR = "bicubic", "bilinear"

# Pixel constants (mean, std) in 0..1. ImageNet's as everyone uses them; MAE-Face's as its users publish them (code of
# systems A for ABAW5 and ABAW7).
NORMALISATIONS = {
    "imagenet": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    "mae-face": ([0.49895, 0.41044, 0.36561], [0.29708, 0.26990, 0.26526]),
    "half": ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),  # pixels in [-1, 1]
    "bytes": ([0.0, 0.0, 0.0], [1 / 255, 1 / 255, 1 / 255]),  # pixels in 0..255
    # HSEmotion's mobilenet_7, of Keras: pixels in 0..255 less these, which its code takes off red, green and blue.
    "caffe": ([103.939 / 255, 116.779 / 255, 123.68 / 255], [1 / 255, 1 / 255, 1 / 255]),
}


def normalisation(name: str) -> dict[str, list[float]]:
    """An entry of NORMALISATIONS as headers record it."""
    mean, std = NORMALISATIONS[name]
    return {"mean": list(mean), "std": list(std)}


def normalisation_of(dialect: str, path: Path, beside: dict[str, Any]) -> tuple[dict[str, list[float]], str]:
    """What foreign weights expect, and where that was taken from, as a sentence.

    `beside`: what `huggingface.settings_beside` found.
    """
    if "mean" in beside and "std" in beside:
        found = {"mean": beside["mean"], "std": beside["std"]}
        return found, f"pixel constants are those of the configuration beside {path.name}"
    name = "mae-face" if dialect == "mae-face" else "imagenet"
    why = "told by the file's name" if name == "mae-face" else "usual for this layout"
    return normalisation(name), f"pixel constants are not in {path.name}: {name}'s, {why}"


def target_of(dialect: str, path: Path, norm_pix_loss: bool | None) -> tuple[str, list[str]]:
    """What a decoder predicts, "normalised pixels", "pixels" or "unknown", and sentences on who says so.

    `norm_pix_loss`: as recorded in the file or beside it, None where it is not.
    """
    if norm_pix_loss is not None:
        return ("normalised pixels" if norm_pix_loss else "pixels"), []
    file = path.name.lower()
    if dialect == "mae-visualize" or "visualize" in file:
        return "pixels", [f"that the decoder predicts plain pixels is told by the name of {path.name} alone"]
    if "_full" in file:
        return "normalised pixels", [f"that the decoder predicts normalised pixels is told by the name of {path.name}"]
    return "unknown", [f"whether the decoder predicts plain or normalised pixels is not in {path.name}"]
