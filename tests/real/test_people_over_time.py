"""Who is who over time, on real recordings given by --real-data. All videos but the GIF are compositions of them:
cut together, or put side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from abaw.media import cuts
from abaw.media.faces import DetectorOptions, build_detector
from abaw.media.identity import build_embedder
from abaw.media.people import AlignSettings, align_video
from abaw.media.video import read_frames
from abaw.store import Reason

pytestmark = pytest.mark.real
SPEAKERS = ("bbaf2n", "brbk7n", "lbax4n", "pwij3p", "lrwp9a")  # five people
PAIRS = tuple(zip(SPEAKERS, (*SPEAKERS[1:], SPEAKERS[0]), strict=True))
ALIKE = (("lbax4n", "lrwp9a"), ("pwij3p", "sbia1a"))  # thumbnails before and after these cuts differ by little


@pytest.fixture(scope="module")
def find(real_data):
    """``find(path, sides, ...)``: the arrays of each track, but for the crops."""
    detector, embedder = build_detector("mtcnn", DetectorOptions()), build_embedder(DetectorOptions())

    def find(path: Path, sides: Sequence[str | None] = (None,), *, all_faces: bool = False):
        found = align_video(path, list(sides), detector, AlignSettings(), embedder=embedder, all_faces=all_faces)
        with found:
            return [{name: array for name, array in track.items() if name != "jpeg"} for track in found.tracks]

    return find


@pytest.fixture(scope="module")
def speaker(real_data):
    """``speaker(name)``: the 75 pictures of a GRID clip, 360 x 288."""

    def pictures(name: str) -> list[np.ndarray]:
        return [frame.image for frame in read_frames(real_data / "videos" / f"grid_{name}.mpg")]

    return pictures


def write(path: Path, pictures: list[np.ndarray]) -> Path:
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (width, height))
    for picture in pictures:
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return path


def closer(picture: np.ndarray) -> np.ndarray:
    """Another framing and exposure: the inner part enlarged by a fifth, 15 % brighter."""
    height, width = picture.shape[:2]
    y, x = height // 12, width // 12
    inner = picture[y : height - y, x : width - x]
    return np.clip(cv2.resize(inner, (width, height)) * 1.15, 0, 255).astype(np.uint8)


def difference(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(cuts.thumbnail_of(one) - cuts.thumbnail_of(two)).mean())


def people(track: dict[str, np.ndarray]) -> list[int]:
    """People in the order seen: one number for each stretch of valid rows."""
    seen = track["person"][track["valid"]].tolist()
    return [one for row, one in enumerate(seen) if row == 0 or seen[row - 1] != one]


@pytest.mark.parametrize(("first", "second"), PAIRS + ALIKE)
def test_a_cut_to_another_speaker_and_back_is_two_switches(find, speaker, tmp_path, first, second):
    """A composition: a second of one speaker, a second of another, and a later second of the first."""
    one, two = speaker(first), speaker(second)
    (track,) = find(write(tmp_path / "cut.mp4", one[:25] + two[:25] + one[50:]))
    assert track["valid"].all()
    assert people(track) == [1, 2, 1]
    assert np.flatnonzero(np.diff(track["person"].astype(int))).tolist() == [24, 49]


@pytest.mark.parametrize("name", SPEAKERS)
def test_a_cut_to_another_moment_of_one_speaker_is_no_switch(find, speaker, tmp_path, name):
    """A composition: a second of a clip, and a later second of it in a closer, brighter picture."""
    one = speaker(name)
    later = [closer(picture) for picture in one[50:]]
    assert difference(one[24], later[0]) > cuts.LEVEL
    (track,) = find(write(tmp_path / "cut.mp4", one[:25] + later))
    assert track["valid"].all()
    assert people(track) == [1]


def test_one_speaker_recorded_twice_is_one_person(find, speaker, tmp_path):
    """A composition: two clips of one speaker, one after the other."""
    (track,) = find(write(tmp_path / "cut.mp4", speaker("pwij3p")[:40] + speaker("swwp2s")[:40]))
    assert people(track) == [1]


@pytest.mark.parametrize(("left", "right"), PAIRS[:3])
def test_two_speakers_side_by_side_keep_their_sides_in_every_frame(find, speaker, tmp_path, left, right):
    """A composition: two GRID clips side by side."""
    pictures = [np.hstack(pair) for pair in zip(speaker(left), speaker(right), strict=True)]
    tracks = find(write(tmp_path / "pair.mp4", pictures), ["left", "right"])
    for track, (low, high) in zip(tracks, ((0, 360), (360, 720)), strict=True):
        assert track["valid"].all()
        assert track["box"][:, 0].min() > low
        assert track["box"][:, 2].max() < high
        assert people(track) == [1]


def test_the_side_of_who_leaves_stays_empty_until_they_are_back(find, speaker, tmp_path):
    """A composition: side by side, and for 40 frames the picture on the left is without anybody."""
    left, right = speaker("bbaf2n"), speaker("lbax4n")
    wall = np.full_like(left[0], (60, 130, 150))
    pictures = [np.hstack([wall if 20 <= row < 60 else left[row], right[row]]) for row in range(75)]
    one, two = find(write(tmp_path / "pair.mp4", pictures), ["left", "right"])
    assert np.flatnonzero(~one["valid"]).tolist() == list(range(20, 60))
    assert set(one["reason"][20:60]) == {Reason.OTHER_PERSON}
    assert two["valid"].all()
    assert (people(one), people(two)) == ([1], [1])


def test_two_real_people_are_two_tracks_among_all_faces(find, real_data):
    tracks = find(real_data / "videos" / "intel_two_faces.gif", all_faces=True)
    assert len(tracks) == 2
    assert all(track["valid"].all() for track in tracks)
    assert all(people(track) == [1] for track in tracks)
    first, second = sorted(tracks, key=lambda track: track["box"][0, 0])
    assert first["box"][:, 2].max() < second["box"][:, 0].min()


def test_all_faces_of_a_cut_are_one_track_for_each_person(find, speaker, tmp_path):
    """A composition: a second of one speaker, 20 frames of another, and a later second of the first."""
    one, two = speaker("bbaf2n"), speaker("lrwp9a")
    first, second = find(write(tmp_path / "cut.mp4", one[:25] + two[:20] + one[50:]), all_faces=True)
    assert np.flatnonzero(first["valid"]).tolist() == [*range(25), *range(45, 70)]
    assert np.flatnonzero(second["valid"]).tolist() == list(range(25, 45))
    assert set(first["reason"][25:45]) == {Reason.OTHER_PERSON}


@pytest.mark.parametrize("name", ["intel_asl_again.mkv", "intel_asl_walk.mkv", "pyfeat_single_face.mp4"])
def test_one_real_person_never_switches(find, real_data, name):
    (track,) = find(real_data / "videos" / name)
    assert people(track) == [1]
