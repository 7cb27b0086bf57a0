"""Frames of a video: people in front of a background, with head motion, light, noise, and stretches without a face.

Knows nothing of files and labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from abaw.stages.synth.activations import band_limited
from abaw.stages.synth.expressive import Expressive
from abaw.stages.synth.plan import Video
from abaw.stages.synth.plate import UNIT_PX, plate_points

NUM_NOISES = 6
MAX_NOISE = 4.0  # standard deviation, grey levels


@dataclass
class Actor:
    """A person of a video: how to draw it, its activations [T, 12], its motion and where it is seen.

    ``poses`` [T, 2, 3] maps plate pixels to frame pixels; ``turns`` [T, 2] yaw and pitch; ``visible`` bool [T].
    ``landmarks`` float32 [T, 5, 2] (frame pixels) is filled while drawing.
    """

    expressive: Expressive
    activations: np.ndarray
    poses: np.ndarray
    turns: np.ndarray
    visible: np.ndarray
    landmarks: np.ndarray = field(default_factory=lambda: np.zeros(0))


def build_actor(
    rng: np.random.Generator, video: Video, expressive: Expressive, activations: np.ndarray, *, seat: int
) -> Actor:
    """Draw head motion and disappearances of the person in ``seat`` (0 = left) of ``video``."""
    num_frames, fps = video.num_frames, float(video.fps)
    slow = band_limited(rng, num_frames, fps, cutoff_hz=0.5, channels=6)
    slow = np.tanh(slow / 2) * 2
    distance = rng.uniform(58, 70) if len(video.people) == 1 else rng.uniform(50, 57)
    scale = distance / UNIT_PX * (1 + 0.05 * slow[:, 0])
    angle = np.deg2rad(rng.uniform(-2, 2) + 3.0 * slow[:, 1])
    share = (seat + 0.5) / len(video.people)
    x = video.width * share + rng.uniform(-8, 8) + 7 * slow[:, 2]
    y = video.height * 0.42 + rng.uniform(-6, 6) + 5 * slow[:, 3]
    visible = np.ones(num_frames, bool)
    if video.is_interrupted:
        length = max(3, int(num_frames * rng.uniform(0.06, 0.12)))
        start = int(rng.integers(num_frames // 4, max(num_frames // 4 + 1, num_frames - length)))
        visible[start : start + length] = False
    pivot = plate_points(np.zeros(2))
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    poses = np.zeros((num_frames, 2, 3))
    poses[:, 0, 0], poses[:, 0, 1], poses[:, 1, 0], poses[:, 1, 1] = cosine, -sine, sine, cosine
    poses[:, :, 2] = np.stack([x, y], axis=1) - poses[:, :, :2] @ pivot
    return Actor(expressive, activations, poses, 0.5 * slow[:, 4:6], visible)


def background(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A room out of focus: a wall in two tones with soft shapes; float32 [H, W, 3]."""
    import cv2

    low, high = (rng.uniform(50, 205) + rng.uniform(-22, 22, 3) for _ in range(2))
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    wall = np.broadcast_to(low * (1 - ramp) + high * ramp, (height, width, 3)).astype(np.float32).copy()
    for _ in range(int(rng.integers(3, 8))):
        x, y = rng.integers(0, width), rng.integers(0, height)
        w, h = rng.integers(20, width // 3), rng.integers(20, height // 2)
        colour = [float(c) for c in rng.uniform(30, 225) + rng.uniform(-28, 28, 3)]
        cv2.rectangle(wall, (int(x), int(y)), (int(x + w), int(y + h)), colour, -1)
    blurred = cv2.GaussianBlur(wall, (0, 0), float(rng.uniform(4, 12)))
    grain = cv2.GaussianBlur(rng.normal(0, 12, (height, width)).astype(np.float32), (0, 0), 1.5)
    return np.clip(blurred + grain[..., None], 0, 255)


def frames(rng: np.random.Generator, video: Video, actors: list[Actor]) -> Iterator[np.ndarray]:
    """RGB frames uint8 [H, W, 3] of ``video``; fills the actors' landmarks."""
    import cv2

    size = (video.width, video.height)
    wall = np.clip(background(rng, *size), 0, 255).astype(np.uint8)
    light = band_limited(rng, video.num_frames, float(video.fps), cutoff_hz=0.4, channels=1)[:, 0]
    gains = rng.uniform(0.9, 1.1) * (1 + 0.06 * np.tanh(light))
    strength = rng.uniform(1.5, MAX_NOISE)
    shape = (video.height, video.width, 3)
    grains = [rng.standard_normal(shape, np.float32) for _ in range(NUM_NOISES)]
    noises = [np.clip(strength * grain + 128.5, 0, 255).astype(np.uint8) for grain in grains]
    for actor in actors:
        actor.landmarks = np.zeros((video.num_frames, 5, 2), np.float32)
    for row in range(video.num_frames):
        picture = wall
        for actor in actors:
            picture = _placed(picture, actor, row, size)
        noise = noises[int(rng.integers(NUM_NOISES))]
        noise = np.roll(noise, int(rng.integers(video.height)), axis=0)
        # gain * picture + noise - 128 in one saturating step
        yield cv2.addWeighted(picture, float(gains[row]), noise, 1.0, -128.0)


def _placed(picture: np.ndarray, actor: Actor, row: int, size: tuple[int, int]) -> np.ndarray:
    """``picture`` with the actor in front of it, as in frame ``row``."""
    import cv2

    yaw, pitch = actor.turns[row]
    plate, five = actor.expressive.draw(actor.activations[row], yaw=float(yaw), pitch=float(pitch))
    pose = actor.poses[row]
    actor.landmarks[row] = five @ pose[:, :2].T + pose[:, 2]
    if not actor.visible[row]:
        return picture
    layer = cv2.warpAffine(plate, pose, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    through = cv2.bitwise_not(cv2.extractChannel(layer, 3))
    behind = cv2.multiply(picture, cv2.merge([through] * 3), scale=1 / 255)
    return cv2.add(behind, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB))
