"""Image augmentation as a function of (seed, step, sample): the same draw on every run, worker and machine.

Works on uint8 RGB images with OpenCV and NumPy; `randaugment` alone with timm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from abaw.training.randaugment import RandAugment

# uint8 [B, S, S, 3] and a generator for each image -> the same shape
Augmentation = Callable[[np.ndarray, Sequence[np.random.Generator]], np.ndarray]


def sample_rng(seed: int, step: int, sample: int, stream: int = 0) -> np.random.Generator:
    """Generator of one sample at one step; `stream` separates independent uses."""
    return np.random.default_rng([seed, step, sample, stream])


@dataclass(frozen=True)
class Augment:
    """What may happen to a face.

    `min_scale`: smallest area share of the random crop, resized back; `aspect`: largest stretch of its sides;
    `rotation` in degrees; `flip`: probability; `brightness`, `contrast`, `saturation`: largest relative change; `hue`:
    largest turn, 1 = the whole circle; `colours`: probability that colours change at all; `erase`: probability of one
    grey rectangle.
    """

    min_scale: float = 1.0
    aspect: float = 1.0
    rotation: float = 0.0
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    colours: float = 1.0
    erase: float = 0.0

    def __call__(self, images: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """uint8 [B, S, S, 3] -> the same shape; image i uses generator i alone."""
        return np.stack([self._one(image, rng) for image, rng in zip(images, rngs, strict=True)])

    def _one(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        draws = rng.random(16)  # always all of them, so that one setting does not shift another's draw
        image = self._warp(image, draws)
        image = self._colour(image, draws)
        return self._erase(image, draws)

    def _warp(self, image: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Crop, stretch, rotate and flip in one resampling."""
        size = image.shape[0]
        side = size * np.sqrt(self.min_scale + (1 - self.min_scale) * draws[0])
        stretch = np.exp((2 * draws[1] - 1) * np.log(self.aspect) / 2)
        width, height = min(side * stretch, size), min(side / stretch, size)
        centre = np.array([(size - width) * (draws[2] - 0.5), (size - height) * (draws[3] - 0.5)])
        angle = np.deg2rad(self.rotation) * (2 * draws[4] - 1)
        mirror = -1.0 if draws[5] < self.flip else 1.0
        if (width, height) == (size, size) and angle == 0:
            return image[:, ::-1] if mirror < 0 else image
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = turn @ np.diag([mirror * width / size, height / size])  # output pixel -> input pixel
        middle = (size - 1) / 2
        offset = middle + centre - matrix @ np.array([middle, middle])
        return cv2.warpAffine(
            image,
            np.column_stack([matrix, offset]),
            (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _colour(self, image: np.ndarray, draws: np.ndarray) -> np.ndarray:
        if not (self.brightness or self.contrast or self.saturation or self.hue) or draws[14] >= self.colours:
            return image
        if self.hue:
            hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV_FULL)
            hsv[..., 0] += np.uint8(round(256 * self.hue * (2 * draws[15] - 1)) % 256)  # wraps, as hues do
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
        gain = 1 + self.contrast * (2 * draws[6] - 1)
        shift = 255 * self.brightness * (2 * draws[7] - 1)
        keep = 1 + self.saturation * (2 * draws[8] - 1)
        mean = cv2.mean(image)[:3]
        # contrast about the image's mean, brightness, and saturation about grey are one affine map of the colours
        grey = np.array([0.299, 0.587, 0.114])
        mix = keep * np.eye(3) + (1 - keep) * np.tile(grey, (3, 1))
        middle = float(np.dot(grey, mean))
        return cv2.transform(image, np.column_stack([gain * mix, np.full(3, middle * (1 - gain) + shift)]))

    def _erase(self, image: np.ndarray, draws: np.ndarray) -> np.ndarray:
        if draws[9] >= self.erase:
            return image
        size = image.shape[0]
        height, width = (int(size * (0.1 + 0.25 * draw)) for draw in draws[10:12])
        top, left = int((size - height) * draws[12]), int((size - width) * draws[13])
        image = image.copy()
        image[top : top + height, left : left + width] = 128
        return image


AUGMENTS: dict[str, Augmentation] = {
    "none": Augment(flip=0.0),
    "light": Augment(min_scale=0.8, aspect=1.1, rotation=5.0, brightness=0.1, contrast=0.2, saturation=0.2),
    "strong": Augment(
        min_scale=0.6, aspect=1.2, rotation=15.0, brightness=0.2, contrast=0.4, saturation=0.6, erase=0.25
    ),
    # EMMA: 233 -> 224 pixels, flip, and with probability 0.2 colours by 0.4, 0.4, 0.4 and hue by 0.1 (its brightness is
    # a factor, ours a share of white: 0.4 of a face's mean of about 0.4). CoTEX: 228 -> 224 pixels and flip.
    "emma": Augment(min_scale=(224 / 233) ** 2, brightness=0.16, contrast=0.4, saturation=0.4, hue=0.1, colours=0.2),
    "cotex": Augment(min_scale=(224 / 228) ** 2),
    "randaugment": RandAugment(Augment(min_scale=0.8, aspect=4 / 3)),
}
