"""Damaged submissions: the verdict is that of a slow reader of its own, whatever is read at once."""

from __future__ import annotations

import contextlib
import io
import math
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw.editions import EDITIONS, check_submission, read_sample
from abaw.errors import AbawError
from tests.unit.editions.mutations import damages

CASES = {
    "va": ("10", ["0.500000,-0.250000", "-1.000000,-1.000000", "0.000000,1.000000", "0.1,1e-05"]),
    "expr": ("8", ["0", "7", "3", "4"]),
    "au": ("5", ["1,0,0,0,0,0,0,0,0,0,0,1", "0,0,0,0,0,0,0,0,0,0,0,0", "1,1,1,1,1,1,1,1,1,1,1,1", "0" + ",1" * 11]),
    "mtl": ("11", ["0.5,-1,7,1,0,0,0,0,0,0,0,0,0,0,1", *["-0.000001,1.0,0" + ",0" * 12] * 3]),
    "lsd": ("4", ["0", "5", "3", "4"]),
    "va-videos": ("3", ["0.500000,-0.250000", "-1.000000,-1.000000", "0.000000,1.000000", "0.1,0"]),
    "expr-videos": ("3", ["0", "7", "3", "4"]),
}
NAMES = ["b-25/00001.jpg", "b-25/00002.jpg", "é_left/00001.jpg", "a/00010.jpg"]
WHOLE = {"expr": [8], "lsd": [6], "au": [2] * 12, "mtl": [8] + [2] * 12, "va": []}  # behind any values


def slow_rows(content: bytes, header: str, names: list[str] | None, task: str) -> list[bool] | None:
    """Whether each line behind the header is right, or None where the lines are not those of the rows at all."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    lines = text.removesuffix("\n").split("\n")
    if "\r" in text or lines[0] != header or len(lines) != 1 + len(NAMES):
        return None
    if names is None and not all(map(str.strip, lines)):
        return None  # a blank line is no row, so one is missing
    rows = [line.split(",") for line in lines[1:]]
    if names is not None:
        if [row[0] for row in rows] != names:
            return None
        rows = [row[1:] for row in rows]
    return [_slow_row(row, task) for row in rows]


def _slow_row(row: list[str], task: str) -> bool:
    values = 2 if task in ("va", "mtl") else 0
    if len(row) != values + len(WHOLE[task]):
        return False
    for text in row[:values]:
        try:
            number = float(text)
        except ValueError:
            return False
        plain = text.isascii() and text == text.strip() and "_" not in text
        if not plain or math.isnan(number) or not -1 <= number <= 1:
            return False
    return all(text in map(str, range(limit)) for text, limit in zip(row[values:], WHOLE[task], strict=True))


@pytest.mark.parametrize("case", CASES)
def test_damaged_submissions_get_the_verdict_of_a_slow_reader(case, tmp_path):
    edition, rows = CASES[case]
    task = case.partition("-")[0]
    submission = EDITIONS[edition].submissions[task]
    videos = submission.layout == "videos"
    names = None if videos else [name.replace("/", "-") for name in NAMES] if submission.keyed else NAMES
    (tmp_path / "sample.txt").write_text(f"v,{len(NAMES)}" if names is None else "\n".join([submission.header, *names]))
    sample = read_sample(tmp_path / "sample.txt", submission)
    lines = rows if names is None else [f"{name},{row}" for name, row in zip(names, rows, strict=True)]
    valid = "\n".join([submission.header, *lines, ""]).encode()
    handed_in = tmp_path / ("out" if videos else "file.txt")
    if videos:
        handed_in.mkdir()
    seen = {"all": 0, "past the header": 0, "accepted": 0}

    @settings(max_examples=250, deadline=None, derandomize=True, database=None)
    @given(damages(len(submission.header) + 1), st.sampled_from([1, 9, 70]))
    def check(changes, block_bytes):
        content = valid
        for change in changes:
            content = change(content)
        (handed_in / "v.txt" if videos else handed_in).write_bytes(content)
        verdict = check_submission(handed_in, submission, sample)
        expected = slow_rows(content, submission.header, names, task)
        seen["all"] += 1
        seen["past the header"] += verdict.ok or all(offence.line != 1 for offence in verdict.offences)
        seen["accepted"] += verdict.ok
        assert verdict.ok == (expected is not None and all(expected)), (content, verdict)
        assert verdict.ok == (not verdict.offences)
        if expected is not None:
            wrong = [number + 2 for number, right in enumerate(expected) if not right]
            assert [offence.line for offence in verdict.offences] == wrong
            assert verdict.count == len(wrong)
        assert check_submission(handed_in, submission, sample, block_bytes=block_bytes) == verdict

    check()
    assert seen["past the header"] > 0.3 * seen["all"]
    assert seen["accepted"] > 0


def test_damaged_zips_are_refused_or_hold_what_was_put_in(tmp_path):
    submission = EDITIONS["8"].submissions["expr"]
    (tmp_path / "sample.txt").write_text("\n".join([submission.header, *NAMES]))
    sample = read_sample(tmp_path / "sample.txt", submission)
    text = "\n".join([submission.header, *(f"{name},3" for name in NAMES), ""])
    memory, handed_in = io.BytesIO(), tmp_path / "file.zip"
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        member = zipfile.ZipInfo("predictions.txt")  # of a fixed date: the same bytes in every run
        archive.writestr(member, text, zipfile.ZIP_DEFLATED)

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(damages(4))
    def check(changes):
        content = memory.getvalue()
        for change in changes:
            content = change(content)
        handed_in.write_bytes(content)
        with contextlib.suppress(AbawError):
            if check_submission(handed_in, submission, sample).ok:
                (name,) = zipfile.ZipFile(handed_in).namelist()
                assert zipfile.ZipFile(handed_in).read(name).decode() == text

    check()


def test_a_zip_with_a_list_that_no_zip_has_is_refused(tmp_path):
    submission = EDITIONS["8"].submissions["expr"]
    (tmp_path / "sample.txt").write_text("\n".join([submission.header, *NAMES]))
    sample = read_sample(tmp_path / "sample.txt", submission)
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr("p.txt", "text")
    content = memory.getvalue()
    entry = content.index(b"PK\x01\x02")  # of the list: the version needed is its bytes 6 and 7, the name's length 28
    for place, byte in ((6, 200), (28, 0)):
        damaged = bytearray(content)
        damaged[entry + place] = byte
        (tmp_path / "file.zip").write_bytes(damaged)
        with contextlib.suppress(AbawError):
            assert not check_submission(tmp_path / "file.zip", submission, sample).ok
