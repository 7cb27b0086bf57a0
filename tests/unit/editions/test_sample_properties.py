"""Damaged sample files: refused with a clear error, or read as a slow reader of its own reads them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw.editions import EDITIONS, read_sample
from abaw.errors import AbawError
from tests.unit.editions.mutations import damages

CASES = {
    "va": ("10", ["b-25/00001.jpg,0.1,-0.5", "b-25/00002.jpg,0,0", "a_left/00001.jpg,1,0", "a_left/00010.jpg"]),
    "mtl": ("11", [f"x/0000{number}.jpg,-5,-5,-1" + ",-1" * 12 for number in range(1, 6)]),
    "lsd": ("4", ["0.jpg,1", "1.jpg,2", "10.jpg,3", "sub/11.jpg,0"]),
}
BLANK = " \t\n\r\v\f\x1a"


class Refused(Exception):
    """By the slow reader."""


def slow_read(content: bytes, header: str, *, keyed: bool) -> list[tuple[str, str, int]]:
    """(image, track, row) of each line; by plain string operations, without regard to memory or speed."""
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError:
        raise Refused from None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip(BLANK):
        lines.pop()
    if not lines or "\0" in text:
        raise Refused
    names = [name.strip().strip('"').strip().lower() for name in lines[0].split(",")]
    while names and not names[-1]:
        names.pop()
    if names != header.lower().split(","):
        raise Refused
    found = [_slow_image(line.split(",")[0].strip(BLANK), keyed=keyed) for line in lines[1:]]
    identities = [image if keyed else (track, row) for image, track, row in found]
    if not found or len(set(identities)) < len(found):
        raise Refused
    return found


def _slow_image(image: str, *, keyed: bool) -> tuple[str, str, int]:
    stem, point, extension = image.rpartition(".")
    track, slash, number = stem.rpartition("/")
    if not point or extension.lower() not in ("jpg", "jpeg", "png", "bmp") or not stem:
        raise Refused
    if any(ord(character) < 32 or ord(character) == 127 for character in image):
        raise Refused
    if keyed:
        return image, "", 0
    if not track or not number or set(number) - set("0123456789") or not 1 <= int(number) <= 999_999_999:
        raise Refused
    return image, track, int(number) - 1


@pytest.mark.parametrize("task", CASES)
def test_damaged_samples_are_refused_or_read_as_they_are(task, tmp_path):
    edition, rows = CASES[task]
    submission = EDITIONS[edition].submissions[task]
    valid = "\n".join([submission.header, *rows, ""]).encode()
    path = tmp_path / "sample.txt"
    seen = {"all": 0, "past the header": 0, "accepted": 0}

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(damages(len(submission.header) + 1), st.sampled_from([1, 5, 33, 1 << 20]))
    def check(changes, block_bytes):
        content = valid
        for change in changes:
            content = change(content)
        path.write_bytes(content)
        seen["all"] += 1
        try:
            expected = slow_read(content, submission.header, keyed=submission.keyed)
        except Refused:
            with pytest.raises(AbawError) as caught:
                read_sample(path, submission, block_bytes=block_bytes)
            assert str(path) in caught.value.where
            line = re.search(r"line (\d+)$", caught.value.where)
            seen["past the header"] += line is not None and int(line[1]) > 1
            return
        sample = read_sample(path, submission, block_bytes=block_bytes)
        seen["past the header"] += 1
        seen["accepted"] += 1
        assert sample.images == [image for image, _, _ in expected]
        if not submission.keyed:
            tracks = [sample.tracks[index] for index in sample.track_index]
            assert list(zip(sample.images, tracks, sample.rows.tolist(), strict=True)) == expected
            assert sample.tracks == list(dict.fromkeys(tracks))

    check()
    assert seen["past the header"] > 0.3 * seen["all"]
    assert seen["accepted"] > 0.1 * seen["all"]


LIST = "b-25,12\na_left,3\nvideo45_1,120\n"


def slow_list(content: bytes) -> dict[str, int]:
    """Rows by video."""
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError:
        raise Refused from None
    found: dict[str, int] = {}
    lines = [line.strip(BLANK) for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    for line in lines:
        fields = [field.strip().strip('"').strip() for field in line.split(",")]
        while fields and not fields[-1]:
            fields.pop()
        if len(fields) != 2 or not fields[1] or set(fields[1]) - set("0123456789") or int(fields[1]) < 1:
            raise Refused
        video = re.sub(r"(?i)\.(mp4|avi|mov|mkv|webm|txt)$", "", fields[0])
        bad = any(character in "/\\" or ord(character) < 32 or ord(character) == 127 for character in video)
        if not video or video[0] == "." or bad or video in found:
            raise Refused
        found[video] = int(fields[1])
    if not found or sum(found.values()) > 5_000_000:
        raise Refused
    return found


def test_damaged_lists_of_videos_are_refused_or_read_as_they_are(tmp_path):
    path = tmp_path / "list.txt"
    accepted = []

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(damages(0), st.sampled_from([1, 5, 33, 1 << 20]))
    def check(changes, block_bytes):
        content = LIST.encode()
        for change in changes:
            content = change(content)
        path.write_bytes(content)
        submission = EDITIONS["3"].submissions["au"]
        try:
            expected = slow_list(content)
        except Refused:
            accepted.append(False)
            with pytest.raises(AbawError):
                read_sample(path, submission, block_bytes=block_bytes)
            return
        accepted.append(True)
        if sum(expected.values()) > 10_000:
            return  # as good, but slow
        sample = read_sample(path, submission, block_bytes=block_bytes)
        assert sample.images == [
            f"{video}/{row + 1:05d}.jpg" for video, rows in expected.items() for row in range(rows)
        ]
        assert sample.tracks == list(expected)

    check()
    assert sum(accepted) > 0.1 * len(accepted)
