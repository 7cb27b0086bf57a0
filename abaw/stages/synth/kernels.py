"""What each action unit does to a face: where skin moves and where it darkens.

Owns the numbers only. They are chosen by eye on the contact sheet, in the eye-to-eye frame (unit: distance between the
eyes, y down). Units that show little on a real face (7, 15, 23, 24) are exaggerated. A row at a landmark of the
right half also acts, mirrored, at its twin on the left. A kernel that lifts or drops something is centred where that
thing ends up, since the warp asks of every output pixel where it comes from.
"""

from __future__ import annotations

# unit -> (landmark, offset x, offset y, sigma x, sigma y, shift x, shift y)
MOVES: dict[int, tuple[tuple[str, float, float, float, float, float, float], ...]] = {
    1: (
        ("brow_right_inner", 0.0, -0.14, 0.17, 0.15, 0.0, -0.15),
        ("brow_right_inner", 0.05, -0.4, 0.25, 0.2, 0.0, -0.05),
    ),
    2: (
        ("brow_right_outer", -0.1, -0.14, 0.22, 0.15, 0.02, -0.16),
        ("brow_right_outer", -0.1, -0.4, 0.25, 0.2, 0.0, -0.05),
    ),
    4: (
        ("brow_right_inner", 0.02, 0.0, 0.2, 0.16, -0.07, 0.1),
        ("brow_right_mid", 0.0, 0.0, 0.25, 0.15, -0.03, 0.06),
    ),
    6: (
        ("lid_right_low", 0.08, 0.28, 0.3, 0.2, 0.0, -0.11),
        ("lid_right_low", 0.0, 0.05, 0.25, 0.1, 0.0, -0.04),
    ),
    7: (
        ("lid_right_up", 0.0, -0.01, 0.24, 0.085, 0.0, 0.06),
        ("lid_right_low", 0.0, 0.02, 0.24, 0.085, 0.0, -0.065),
    ),
    10: (
        ("lip_top", 0.16, -0.02, 0.16, 0.14, 0.0, -0.1),
        ("wing_right", 0.0, 0.0, 0.16, 0.16, 0.02, -0.08),
    ),
    12: (
        ("mouth_right", 0.0, 0.0, 0.22, 0.2, 0.13, -0.15),
        ("mouth_right", 0.25, -0.38, 0.28, 0.22, 0.05, -0.07),
    ),
    15: (
        ("mouth_right", 0.0, 0.02, 0.17, 0.2, 0.02, 0.16),
        ("lip_bottom", 0.0, 0.1, 0.25, 0.14, 0.0, -0.05),
    ),
    23: (
        ("mouth_right", -0.03, 0.0, 0.2, 0.18, -0.13, 0.0),
        ("lip_top", 0.0, 0.0, 0.22, 0.1, 0.0, 0.05),
        ("lip_bottom", 0.0, 0.0, 0.22, 0.1, 0.0, -0.05),
    ),
    24: (
        ("lip_top", 0.0, -0.02, 0.4, 0.1, 0.0, 0.075),
        ("lip_bottom", 0.0, 0.02, 0.4, 0.1, 0.0, -0.08),
    ),
    25: (
        ("lip_top", 0.0, 0.0, 0.26, 0.13, 0.0, -0.04),
        ("lip_bottom", 0.0, 0.06, 0.3, 0.14, 0.0, 0.09),
    ),
    26: (
        ("mouth_right", 0.0, 0.15, 0.2, 0.2, -0.05, 0.05),
        ("lip_bottom", 0.0, 0.32, 0.42, 0.22, 0.0, 0.2),
        ("chin", 0.0, 0.15, 0.55, 0.28, 0.0, 0.2),
    ),
}
# unit -> (landmark, offset x, offset y, sigma x, sigma y, tilt in degrees, log gain of red, green, blue)
SHADES: dict[int, tuple[tuple[str, float, float, float, float, float, float, float, float], ...]] = {
    1: (
        ("forehead", 0.0, 0.22, 0.3, 0.035, 0, -0.2, -0.24, -0.24),
        ("forehead", 0.0, 0.34, 0.3, 0.035, 0, -0.25, -0.28, -0.28),
    ),
    2: (("brow_right_mid", 0.05, -0.22, 0.3, 0.035, 8, -0.2, -0.24, -0.24),),
    4: (("brow_right_inner", -0.17, -0.02, 0.035, 0.12, 8, -0.4, -0.45, -0.45),),
    6: (
        ("lid_right_low", 0.05, 0.13, 0.22, 0.035, -8, -0.35, -0.42, -0.42),
        ("eye_right_outer", 0.18, 0.06, 0.1, 0.1, 0, -0.2, -0.28, -0.28),
        ("lid_right_low", 0.1, 0.35, 0.22, 0.13, 0, 0.16, 0.1, 0.09),
    ),
    7: (
        ("eye_right", 0.0, 0.0, 0.24, 0.06, 0, -0.5, -0.5, -0.5),
        ("lid_right_low", 0.0, 0.1, 0.22, 0.035, 0, -0.22, -0.25, -0.25),
    ),
    10: (
        ("wing_right", 0.1, 0.05, 0.04, 0.2, -35, -0.4, -0.45, -0.45),
        ("nose_tip", 0.12, -0.25, 0.1, 0.05, 20, -0.22, -0.25, -0.25),
    ),
    12: (("mouth_right", 0.16, -0.22, 0.05, 0.25, -30, -0.35, -0.4, -0.4),),
    15: (
        ("mouth_right", 0.06, 0.16, 0.05, 0.13, 25, -0.42, -0.48, -0.48),
        ("lip_bottom", 0.0, 0.13, 0.3, 0.045, 0, -0.3, -0.32, -0.32),
    ),
    23: (
        ("mouth_right", 0.04, 0.0, 0.06, 0.1, 0, -0.35, -0.4, -0.4),
        ("lip_upper_inner", 0.0, 0.0, 0.24, 0.08, 0, -0.1, -0.5, -0.4),
    ),
    24: (
        ("lip_upper_inner", 0.0, -0.01, 0.36, 0.11, 0, 0.05, 0.3, 0.26),
        ("lip_upper_inner", 0.0, 0.0, 0.28, 0.03, 0, -0.7, -0.9, -0.9),
        ("lip_bottom", 0.0, 0.1, 0.35, 0.05, 0, -0.3, -0.32, -0.32),
    ),
}
