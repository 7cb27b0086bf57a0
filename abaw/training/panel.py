"""The reconstruction panel of a masked autoencoder: faces, what it saw of them, and what it made of the rest, as PNG.

A function of weights, images and noise alone: drawing one changes nothing of a training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from abaw.models.mae import MaskedAutoencoder
from abaw.publish import publish
from abaw.training.batches import to_tensor
from abaw.training.distributed import is_main

NUM_FACES = 8
MIN_SIDE_PX = 96  # smaller faces are enlarged by a whole factor
GAP_PX, LABEL_PX, FOOT_PX = 4, 108, 22
INK, PAPER, HIDDEN = 40, 255, 128
NOISE_STREAM = 0xFACE
NORM_PIX_NOTE = "; hidden patches have the original's mean and contrast, which the model does not predict"


class Panels:
    """The panels of a training, `step-000500.png` ...: hooks for `fit`, since a panel belongs to a validation round.

    `faces`: RGB uint8 [n, S, S, 3], the same in every panel; `every`: steps between panels (0 = only at the end) and
    between validation rounds. A panel is drawn in the first round at or after each of these steps, and in the last.
    """

    def __init__(
        self,
        folder: Path,
        faces: np.ndarray,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        seed: int,
        steps: int,
        every: tuple[int, int],
    ) -> None:
        self.folder, self.faces, self.mean, self.std = folder, faces, mean, std
        self.seed, self.steps, self.every = seed, steps, every
        self._step: int | None = None
        self._rows: list[tuple[str, np.ndarray]] = []
        self._note = ""

    def count(self, steps: Iterable[int]) -> Iterator[int]:
        """The same steps; for `watch`. A round before the first of them is one that a resumed run catches up on."""
        for step in steps:
            self._step = step + 1
            yield step

    def draw(self, model: nn.Module) -> dict[str, float]:
        """Reconstruct the faces with the weights that are validated; for `validate`, hence no metrics."""
        mae = cast(MaskedAutoencoder, model)
        if is_main() and (self._step is None or self._is_due(self._step)):
            noise = panel_noise(self.seed, len(self.faces), mae.preset.num_patches)
            masked, filled = reconstruct(mae, self.faces, noise, self.mean, self.std)
            self._rows = [("original", self.faces), ("masked", masked), ("reconstructed", filled)]
            self._note = NORM_PIX_NOTE if mae.norm_pix_loss else ""
        return {}

    def keep(self, step: int) -> None:
        """Write the panel of this step if there is to be one; for `report`."""
        if is_main() and self._is_due(step):
            picture = draw_panel(self._rows, f"step {step}{self._note}")
            write_panel(self.folder / f"step-{step:06d}.png", picture)

    def _is_due(self, step: int) -> bool:
        panel_every, round_every = self.every
        return step == self.steps or (panel_every > 0 and step // panel_every > (step - round_every) // panel_every)


def panel_noise(seed: int, count: int, num_patches: int) -> Tensor:
    """Mask noise [count, num_patches] of a panel: the same at every step of a run."""
    return torch.from_numpy(np.random.default_rng([seed, NOISE_STREAM]).random((count, num_patches)))


@torch.inference_mode()
def reconstruct(
    model: MaskedAutoencoder, images: np.ndarray, noise: Tensor, mean: Sequence[float], std: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """What the model sees and what it makes of it: two uint8 arrays like `images`, RGB uint8 [n, S, S, 3].

    Hidden patches are grey in the first and predicted in the second; visible ones are the original's in both, since
    the loss never asks for them. The prediction is scaled back to pixels by the model (see
    `MaskedAutoencoder.to_pixels`), then by the constants the images were normalised with.
    """
    device = next(model.parameters()).device
    inputs = to_tensor(images, mean, std).to(device)
    _, patches, mask = model(inputs, noise.to(device))
    filled = model.to_pixels(inputs, patches).float().cpu() * _column(std) + _column(mean)
    hidden = model.unpatchify(mask[:, :, None].expand(-1, -1, patches.shape[-1]))
    hidden_pixels = hidden.permute(0, 2, 3, 1).cpu().numpy() > 0
    predicted = (filled.permute(0, 2, 3, 1).numpy() * 255).round().clip(0, 255).astype(np.uint8)
    return np.where(hidden_pixels, np.uint8(HIDDEN), images), np.where(hidden_pixels, predicted, images)


def draw_panel(rows: Sequence[tuple[str, np.ndarray]], caption: str) -> np.ndarray:
    """RGB uint8 picture: a labelled row of faces [n, S, S, 3] for each entry, and a line of text below."""
    count, side = rows[0][1].shape[:2]
    factor = -(-MIN_SIDE_PX // side)
    side *= factor
    height, width = len(rows) * (side + GAP_PX) + GAP_PX + FOOT_PX, LABEL_PX + count * (side + GAP_PX)
    sheet = np.full((height, max(width, LABEL_PX + 8 * len(caption)), 3), PAPER, np.uint8)
    for row, (label, faces) in enumerate(rows):
        top = GAP_PX + row * (side + GAP_PX)
        _write(sheet, label, 6, top + side // 2)
        for column, face in enumerate(faces):
            left = LABEL_PX + column * (side + GAP_PX)
            sheet[top : top + side, left : left + side] = face.repeat(factor, axis=0).repeat(factor, axis=1)
    _write(sheet, caption, 6, height - 7)
    return sheet


def write_panel(path: Path, picture: np.ndarray) -> None:
    """Publish an RGB picture as PNG. Raises AbawError when it cannot be written."""
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    publish(path, lambda temporary: temporary.write_bytes(data.tobytes()))


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1)


def _write(sheet: np.ndarray, text: str, x: int, y: int) -> None:
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (INK,) * 3, 1, cv2.LINE_AA)
