"""The geometry of alignment: how a detected face becomes a square crop.

Knows nothing of detectors, videos or stores.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

# The five reference points of the arcface crop in a 112-pixel square (Deng et al. 2019, arXiv:1801.07698, as
# published with insightface).
TEMPLATE_112 = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)],
    dtype=np.float64,
)
FULL_CHROMA = 0x111111
MAX_SIDE = 32_766  # of a picture that cv2.warpAffine takes: it counts pixels in 16 bits
SPARE_PX = 3  # kept around what the warp shows: bilinear sampling looks at the next pixel


def template(size_px: int, *, margin: float = 0.0) -> np.ndarray:
    """The five reference points in a crop of ``size_px``, float64 [5, 2].

    ``margin`` widens the view: that share of the template's own square is added on each side.
    """
    return ((TEMPLATE_112 - 56.0) / (1 + 2 * margin) + 56.0) * (size_px / 112)


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """Least-squares rotation, scale and shift of points [N, 2] onto others, float64 [2, 3]; None when degenerate.

    With points as complex numbers the fit is ``target = a * source + b``, whose solution is closed; for points in
    the plane it is Umeyama's (1991) without reflection.
    """
    p, q = (points[:, 0] + 1j * points[:, 1] for points in (np.asarray(source, np.float64), np.asarray(target)))
    centred = p - p.mean()
    spread = float(np.sum(np.abs(centred) ** 2))
    if not np.isfinite(spread) or spread < 1e-6:
        return None
    a = np.sum(np.conj(centred) * (q - q.mean())) / spread
    b = q.mean() - a * p.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def fit_box(box: np.ndarray, size_px: int, *, margin: float = 0.0) -> np.ndarray | None:
    """Scale and shift of the square around a box (enlarged by ``margin`` on each side) onto the crop, [2, 3]."""
    low, high = np.asarray(box[:2], np.float64), np.asarray(box[2:], np.float64)
    side = float(np.max(high - low)) * (1 + 2 * margin)
    if not np.isfinite(side) or side < 1e-3:
        return None
    scale = size_px / side
    shift = size_px / 2 - scale * (low + high) / 2
    return np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])


class Aligner(NamedTuple):
    """How a detected face becomes a crop: ``warp`` is "arcface" (five points to the template) or "box"."""

    size_px: int = 112
    margin: float = 0.0
    warp: str = "arcface"

    def fit(self, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray | None:
        """Map from the picture to the crop, float64 [2, 3]; None where the points coincide."""
        if self.warp == "box":
            return fit_box(box, self.size_px, margin=self.margin)
        return fit_similarity(landmarks, template(self.size_px, margin=self.margin))


def warp_face(image: np.ndarray, warp: np.ndarray, size_px: int) -> np.ndarray:
    """The crop uint8 [size, size, 3] that ``warp`` [2, 3] maps the picture onto; black outside the picture.

    Bilinear; where the face is over twice as large as the crop it is sampled more densely first and averaged, so
    that nothing aliases.
    """
    if max(image.shape[:2]) > MAX_SIDE:
        image, warp = _shown_part(image, warp, size_px)
    scale = float(np.sqrt(abs(np.linalg.det(warp[:, :2]))))
    fold = int(np.clip(1 / max(scale, 1e-6), 1, 8))
    if fold < 2:
        return cv2.warpAffine(image, warp, (size_px, size_px), flags=cv2.INTER_LINEAR)
    dense = warp * fold
    dense[:, 2] += (fold - 1) / 2  # pixel centres, not corners, correspond
    large = cv2.warpAffine(image, dense, (size_px * fold, size_px * fold), flags=cv2.INTER_LINEAR)
    return cv2.resize(large, (size_px, size_px), interpolation=cv2.INTER_AREA)


def _shown_part(image: np.ndarray, warp: np.ndarray, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a picture that the crop shows, thinned out where that is too large as well, and the warp from it."""
    back = cv2.invertAffineTransform(np.asarray(warp, np.float64))
    corners = np.array([(x, y) for x in (-1, size_px) for y in (-1, size_px)]) @ back[:, :2].T + back[:, 2]
    last = np.array([image.shape[1], image.shape[0]]) - 1
    low = np.clip(np.floor(corners.min(axis=0)) - SPARE_PX, 0, last).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + SPARE_PX, 0, last).astype(int)
    step = (high - low) // MAX_SIDE + 1
    columns, rows = (slice(a, b + 1, c) for a, b, c in zip(low, high, step, strict=True))
    shift = warp[:, :2] @ low + warp[:, 2]
    return np.ascontiguousarray(image[rows, columns]), np.column_stack([warp[:, :2] * step, shift])


def align_face(
    image: np.ndarray, landmarks: np.ndarray, *, size_px: int = 112, margin: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Crop and warp (float32 [2, 3]) of one face by its landmarks.

    Raises ValueError where the landmarks coincide.
    """
    warp = fit_similarity(landmarks, template(size_px, margin=margin))
    if warp is None:
        message = "the landmarks coincide"
        raise ValueError(message)
    return warp_face(image, warp, size_px), warp.astype(np.float32)


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """JPEG of an RGB picture with full-resolution colour."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, FULL_CHROMA]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR), options)
    if not done:
        message = f"OpenCV could not encode a picture of shape {image.shape}"
        raise RuntimeError(message)
    return data.tobytes()
