"""Portraits an identity is morphed from: pictures with 36 facial landmarks.

Owns the two public-domain portraits that come inside scikit-image and matplotlib, their hand-measured
landmarks, and the eye-to-eye frame. Knows nothing of expressions, videos or labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Names of the landmarks, in the order of every [36, 2] array here. "left" is the left of the picture.
POINTS = (
    "eye_left", "eye_right", "eye_left_outer", "eye_left_inner", "eye_right_inner", "eye_right_outer",
    "lid_left_up", "lid_left_low", "lid_right_up", "lid_right_low", "brow_left_outer", "brow_left_mid",
    "brow_left_inner", "brow_right_inner", "brow_right_mid", "brow_right_outer", "nose_tip", "wing_left",
    "wing_right", "nose_base", "mouth_left", "mouth_right", "lip_top", "lip_upper_inner", "lip_lower_inner",
    "lip_bottom", "chin", "jaw_left_low", "jaw_left_mid", "jaw_left_up", "jaw_right_up", "jaw_right_mid",
    "jaw_right_low", "temple_left", "temple_right", "forehead",
)  # fmt: skip
INDEX = {name: index for index, name in enumerate(POINTS)}
FIVE = ("eye_left", "eye_right", "nose_tip", "mouth_left", "mouth_right")
MOUTH = ("mouth_left", "mouth_right", "lip_top", "lip_upper_inner", "lip_lower_inner", "lip_bottom")
_MIRRORED = [
    INDEX[
        name.replace("left", "?").replace("right", "left").replace("?", "right")
        if "left" in name or "right" in name
        else name
    ]
    for name in POINTS
]

# Measured by hand on the 512 x 512 picture, pixels.
_ASTRONAUT = (
    (203.6, 100.6), (246.4, 103.4), (193.0, 100.8), (213.0, 103.0), (236.0, 105.0), (259.0, 103.4),
    (203.6, 97.0), (204.2, 104.6), (247.6, 100.0), (247.0, 106.7), (190.0, 91.0), (199.3, 88.9),
    (212.8, 92.4), (238.5, 93.5), (249.5, 92.2), (262.3, 95.7), (223.8, 127.2), (210.3, 130.0),
    (237.2, 131.2), (224.4, 133.7), (203.2, 139.8), (247.3, 138.6), (224.7, 138.6), (225.0, 142.6),
    (224.7, 149.8), (224.7, 154.5), (225.0, 178.4), (207.2, 174.0), (191.3, 159.4), (183.4, 133.0),
    (267.2, 134.3), (258.7, 160.6), (243.4, 173.5), (184.6, 91.4), (267.2, 92.0), (222.0, 79.0),
)  # fmt: skip
# Measured by hand on the 512 x 600 picture, pixels.
_GRACE_HOPPER = (
    (221.1, 189.2), (305.7, 186.8), (203.4, 193.3), (240.0, 192.5), (289.5, 191.0), (321.0, 189.5),
    (221.0, 183.6), (222.5, 196.3), (305.7, 181.0), (305.7, 193.3), (191.2, 169.0), (213.5, 162.0),
    (237.7, 168.0), (284.1, 170.0), (304.3, 161.0), (330.6, 165.0), (267.6, 239.7), (239.3, 242.7),
    (295.2, 240.7), (268.4, 252.8), (228.6, 281.7), (310.0, 278.6), (266.0, 272.0), (266.0, 279.0),
    (266.0, 280.6), (264.5, 294.2), (268.0, 333.0), (228.0, 325.0), (203.0, 300.0), (190.0, 252.0),
    (345.0, 250.0), (334.0, 298.0), (310.0, 325.0), (184.0, 186.0), (345.0, 182.0), (264.0, 134.0),
)  # fmt: skip
# Outlines of the two people against their backgrounds, measured by hand, pixels; clothes are cut at the upper arms.
_ASTRONAUT_OUTLINE = (
    (92, 330), (95, 240), (99, 220), (112, 206), (114, 190), (125, 176), (135, 161), (149, 152), (171, 148),
    (185, 150), (184, 140), (182, 132), (175, 128), (169, 118), (160, 107), (155, 93), (154, 71), (160, 57),
    (173, 46), (189, 37), (199, 27), (215, 21), (231, 16), (250, 20), (272, 31), (288, 45), (297, 63), (300, 85),
    (297, 102), (289, 115), (280, 126), (273, 136), (268, 136), (266, 143), (258, 159), (254, 173), (271, 183),
    (288, 200), (302, 220), (305, 234), (322, 243), (338, 258), (344, 280), (346, 330),
)  # fmt: skip
_GRACE_HOPPER_OUTLINE = (
    (45, 620), (39, 480), (41, 420), (52, 383), (91, 367), (147, 351), (178, 336), (202, 314), (196, 296),
    (171, 279), (161, 261), (156, 213), (153, 193), (155, 183), (149, 172), (148, 132), (156, 102), (173, 85),
    (176, 66), (193, 49), (218, 37), (236, 26), (261, 24), (287, 27), (305, 40), (330, 52), (349, 76), (362, 88),
    (369, 102), (371, 137), (369, 172), (374, 195), (370, 218), (361, 239), (360, 274), (349, 294), (332, 306),
    (331, 316), (355, 336), (406, 359), (457, 376), (488, 391), (492, 420), (494, 500), (490, 620),
)  # fmt: skip
# The astronaut smiles with her teeth showing. In the eye-to-eye frame, her mouth at rest.
_ASTRONAUT_REST = {
    "mouth_left": (-0.45, 1.02), "mouth_right": (0.45, 1.02), "lip_top": (0.0, 0.925),
    "lip_upper_inner": (0.0, 1.02), "lip_lower_inner": (0.0, 1.045), "lip_bottom": (0.0, 1.17),
}  # fmt: skip


@dataclass(frozen=True)
class Portrait:
    """A picture uint8 [H, W, 3] RGB, its landmarks [36, 2] (pixels) and its face at rest [36, 2].

    ``rest`` is in the eye-to-eye frame: origin between the eyes, x to the right eye, y down, unit the distance
    between the eyes. ``outline`` [N, 2] (pixels) runs around the person; None where nobody measured it.
    ``hairline`` is the height in that frame above which nothing is skin; ``skin_tolerance`` how far (CIELAB a, b) the
    colour of skin outside the face may be from that inside.
    """

    name: str
    image: np.ndarray
    landmarks: np.ndarray
    rest: np.ndarray
    outline: np.ndarray | None = None
    hairline: float = -0.6
    skin_tolerance: float = 9.0


def eye_frame(landmarks: np.ndarray) -> np.ndarray:
    """Matrix [2, 3] from the eye-to-eye frame to the pixels of ``landmarks`` [P, 2] (eyes first)."""
    left, right = landmarks[0], landmarks[1]
    axis = right - left
    middle = (left + right) / 2
    return np.array([[axis[0], -axis[1], middle[0]], [axis[1], axis[0], middle[1]]], dtype=np.float64)


def to_eye_frame(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks [P, 2] (pixels, eyes first) in the eye-to-eye frame."""
    matrix = eye_frame(landmarks)
    return (landmarks - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T


def mirrored(portrait: Portrait) -> Portrait:
    """The portrait seen in a mirror, its landmarks renamed accordingly."""
    flip, edge = np.array([-1, 1]), np.array([portrait.image.shape[1] - 1, 0])
    return Portrait(
        f"{portrait.name}-mirrored",
        portrait.image[:, ::-1].copy(),
        portrait.landmarks[_MIRRORED] * flip + edge,
        portrait.rest[_MIRRORED] * flip,
        None if portrait.outline is None else portrait.outline * flip + edge,
        portrait.hairline,
        portrait.skin_tolerance,
    )


def built_in_portraits() -> list[Portrait]:
    """The two portraits inside scikit-image and matplotlib, both in the public domain (NASA, US Navy)."""
    import cv2
    import matplotlib
    from skimage import data

    hopper_path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    hopper = cv2.cvtColor(np.asarray(cv2.imread(str(hopper_path))), cv2.COLOR_BGR2RGB)
    return [
        _measured("astronaut", np.asarray(data.astronaut()), _ASTRONAUT, _ASTRONAUT_REST, _ASTRONAUT_OUTLINE),
        _measured("grace_hopper", hopper, _GRACE_HOPPER, {}, _GRACE_HOPPER_OUTLINE),
    ]


def _measured(name: str, image: np.ndarray, points: tuple, rest: dict[str, tuple], outline: tuple) -> Portrait:
    landmarks = np.array(points, dtype=np.float64)
    at_rest = to_eye_frame(landmarks)
    for point, place in rest.items():
        at_rest[INDEX[point]] = place
    return Portrait(name, image, landmarks, at_rest, np.array(outline, dtype=np.float64))
