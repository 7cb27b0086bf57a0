"""What the validator finds in files that somebody made."""

import tracemalloc
import zipfile

import pytest

from abaw.editions import EDITIONS, check_submission, read_sample
from abaw.errors import AbawError

ROWS = {
    "va": "0.5,-0.25",
    "expr": "7",
    "au": "1,0,0,0,0,0,0,0,0,0,0,1",
    "mtl": "0.5,-1,7,1,0,0,0,0,0,0,0,0,0,0,1",
    "ce": "6",
    "lsd": "5",
}
EDITION = {"va": "10", "expr": "10", "au": "10", "mtl": "11", "ce": "9", "lsd": "4"}
NAMES = ["a/00001.jpg", "a/00002.jpg", "b/00001.jpg", "b/00002.jpg"]


class Case:
    """A task's sample of four rows, and files that are checked against it."""

    def __init__(self, folder, task):
        self.folder, self.task = folder, task
        self.submission = EDITIONS[EDITION[task]].submissions[task]
        path = folder / "sample.txt"
        self.names = [name.replace("/", "-") for name in NAMES] if task == "lsd" else NAMES
        path.write_text("\n".join([self.submission.header, *self.names]))
        self.sample = read_sample(path, self.submission)
        self.lines = [self.submission.header, *(f"{name},{ROWS[task]}" for name in self.names)]

    def check(self, content=None, **options):
        content = "\n".join(self.lines) + "\n" if content is None else content
        path = self.folder / "predictions.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return check_submission(path, self.submission, self.sample, **options)

    def offence(self, content=None):
        verdict = self.check(content)
        assert not verdict.ok
        assert verdict.count == len(verdict.offences) == 1
        return verdict.offences[0].line, verdict.offences[0].message


@pytest.fixture
def va(tmp_path):
    return Case(tmp_path, "va")


@pytest.mark.parametrize("task", ROWS)
def test_a_file_as_it_should_be_is_accepted(tmp_path, task):
    verdict = Case(tmp_path, task).check()
    assert verdict.ok
    assert (verdict.rows, verdict.count, verdict.offences, verdict.notes) == (4, 0, [], [])


@pytest.mark.parametrize(
    ("task", "values", "message"),
    [
        ("va", "0.5,1.5", "arousal is '1.5', outside [-1, 1]"),
        ("va", "-5,-5", "valence is '-5', outside [-1, 1]; arousal is '-5', outside [-1, 1]"),
        ("va", "nan,0", "valence is 'nan', not a finite number"),
        ("va", "0,-Infinity", "arousal is '-Infinity', not a finite number"),
        ("va", "0,1e999", "arousal is '1e999', outside [-1, 1]"),
        ("va", "0,", "arousal is '', not a number"),
        ("va", "0, 0.5", "arousal is ' 0.5', not a number"),
        ("va", "0,0_1", "arousal is '0_1', not a number"),
        ("va", "0,0.5-", "arousal is '0.5-', not a number"),
        ("va", "0", "has 1 instead of 2 values"),
        ("va", "0,0,0", "has 3 instead of 2 values"),
        ("va", "0,0 # note", "arousal is '0 # note', not a number"),
        ("expr", "8", "expr is '8', not one of 0 to 7"),
        ("expr", "-1", "expr is -1, which labels use for unknown; every row needs one of 0 to 7"),
        ("expr", "3.0", "expr is '3.0', not one of 0 to 7"),
        ("expr", "03", "expr is '03', not one of 0 to 7"),
        ("expr", "", "expr is '', not one of 0 to 7"),
        ("expr", "\u0663", "expr is '\u0663', not one of 0 to 7"),
        ("expr", "0,0,0,1,0,0,0,0", "has 8 instead of 1 value"),
        ("ce", "7", "ce is '7', not one of 0 to 6"),
        ("lsd", "6", "lsd is '6', not one of 0 to 5"),
        ("au", "1,0,0,0,0,0,0,0,0,0,0,2", "AU26 is '2', not 0 or 1"),
        ("au", "1,-1,0,0,0,0,0,0,0,0,0,1", "AU2 is -1, which labels use for unknown; every row needs 0 or 1"),
        ("au", "1,0,0,0,0,0,0,0,0,0,0", "has 11 instead of 12 values"),
        ("mtl", "0.5,-1,8,1,0,0,0,0,0,0,0,0,0,0,1", "expr is '8', not one of 0 to 7"),
        ("mtl", "0.5,-1,7,1,0", "has 5 instead of 15 values"),
    ],
)
def test_wrong_values_are_found_with_their_line(tmp_path, task, values, message):
    case = Case(tmp_path, task)
    case.lines[3] = f"{case.names[2]},{values}"
    assert case.offence() == (4, message)


def test_numbers_may_be_written_in_other_ways(va):
    va.lines[1:] = [f"{name},{value}" for name, value in zip(NAMES, ["1,-1", "+.5,1.", "1e-05,-0", "0,0"], strict=True)]
    assert va.check().ok


def test_a_missing_row_is_one_offence_where_it_should_have_been(va):
    del va.lines[2]
    assert va.offence() == (3, "row a/00002.jpg is missing before this line")


def test_missing_rows_side_by_side_are_one_offence(va):
    del va.lines[3:]
    assert va.offence() == (4, "2 rows are missing before this line: b/00001.jpg to b/00002.jpg")


def test_rows_in_another_order_are_found(va):
    va.lines[2], va.lines[3] = va.lines[3], va.lines[2]
    assert va.offence() == (4, "names a/00002.jpg, which the sample has before b/00001.jpg, not after it")


def test_a_repeated_row_is_found(va):
    va.lines.insert(3, va.lines[2])
    assert va.offence() == (4, "names a/00002.jpg again, as line 3 does")


def test_an_unknown_row_is_found(va):
    va.lines.append("c/00001.jpg,0,0")
    assert va.offence() == (6, "names 'c/00001.jpg', which the sample does not")


def test_a_name_with_blanks_around_it_is_unknown_and_missing(va):
    va.lines[2] = f" {va.lines[2]}"
    found = [(offence.line, offence.message) for offence in va.check().offences]
    assert found == [
        (3, "names ' a/00002.jpg', which the sample does not: the sample's row is a/00002.jpg"),
        (4, "row a/00002.jpg is missing before this line"),
    ]


def test_a_file_of_the_header_alone_lacks_all_rows(va):
    assert va.offence(va.lines[0]) == (2, "4 rows are missing before this line: a/00001.jpg to b/00002.jpg")


def test_an_empty_file_is_an_offence(va):
    assert va.offence("") == (1, "the file is empty")


def test_a_missing_header_is_one_offence(va):
    line, message = va.offence("\n".join(va.lines[1:]) + "\n")
    assert (line, message) == (1, "the header is missing: image_location,valence,arousal")


def test_the_header_of_another_task_is_recognised(va):
    va.lines[0] = "image,expression"
    assert va.offence() == (1, "is the header of task lsd, edition 4, not image_location,valence,arousal")


@pytest.mark.parametrize("header", ["image_location,Valence,Arousal", "image_location,valence,arousal ", "x"])
def test_a_header_that_is_nearly_right_is_wrong(va, header):
    va.lines[0] = header
    assert va.offence() == (1, f"the header is {header!r}, not image_location,valence,arousal")


def test_carriage_returns_are_found_in_every_line(va):
    verdict = va.check("\r\n".join([*va.lines, ""]))
    assert verdict.count == 5
    assert {offence.message for offence in verdict.offences} == {"ends with a carriage return"}


def test_a_byte_order_mark_is_found(va):
    assert va.offence("\ufeff" + "\n".join(va.lines) + "\n") == (1, "begins with a byte order mark")


def test_other_encodings_are_found(va):
    assert va.offence("\n".join(va.lines).encode("utf-16")) == (1, "is not UTF-8 text")
    broken = "\n".join(va.lines).encode().replace(b"-0.25\nb/00001", b"-0.25\xff\nb/00001")
    assert va.check(broken).offences[0].line == 3
    assert va.check(broken).offences[0].message == "is not UTF-8 text"


@pytest.mark.parametrize("place", [2, 5])
def test_blank_lines_are_found_between_rows_and_at_the_end(va, place):
    va.lines.insert(place, "")
    assert va.offence() == (place + 1, "is blank")


def test_a_line_feed_that_is_not_there_is_a_note(va):
    verdict = va.check("\n".join(va.lines))
    assert verdict.ok
    assert verdict.notes == ["the last line has no line feed at the end"]


def test_rows_that_look_like_a_marker_are_a_note(va):
    va.lines[1] = "a/00001.jpg,-1,-1"
    va.lines[2] = "a/00002.jpg,-1.000000,-1.0"
    verdict = va.check()
    note = "2 rows are exactly -1,-1, which some programs write for frames without a face"
    assert verdict.ok
    assert verdict.notes == [note]


def test_all_offences_are_counted_and_the_first_ten_shown_in_order(tmp_path):
    submission = EDITIONS["10"].submissions["expr"]
    names = [f"a/{number:05d}.jpg" for number in range(1, 101)]
    (tmp_path / "sample.txt").write_text("\n".join([submission.header, *names]))
    sample = read_sample(tmp_path / "sample.txt", submission)
    kept = [f"{name},{'-1' if number % 2 else '3'}" for number, name in enumerate(names) if number not in (2, 6)]
    (tmp_path / "file.txt").write_text("\n".join([submission.header, *kept, ""]))
    verdict = check_submission(tmp_path / "file.txt", submission, sample)
    assert verdict.count == 50 + 2
    assert [offence.line for offence in verdict.offences] == [3, 4, 4, 6, 7, 7, 9, 11, 13, 15]
    assert "a/00003.jpg is missing" in verdict.offences[2].message


def test_what_is_no_submission_at_all_is_not_read_to_its_end(va):
    verdict = va.check(va.lines[0] + "\n" + "x\n" * 300_000)
    assert verdict.count == 100_000
    assert verdict.notes == ["reading stopped after 100000 offences: there may be more"]


def test_a_line_without_end_stops_the_reading(va):
    path = va.folder / "long.txt"
    path.write_text("\n".join(va.lines[:3]) + "\n")
    with path.open("r+b") as file:
        file.truncate(1 << 30)  # a gigabyte of NUL that takes no space
    tracemalloc.start()
    verdict = check_submission(path, va.submission, va.sample)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (verdict.count, verdict.offences[0].line) == (1, 4)
    assert verdict.offences[0].message == "has more than 4096 bytes; what follows was not read"
    assert peak < 10e6


def test_a_zip_with_the_file_is_checked(va):
    archive = va.folder / "handed-in.zip"
    va.lines[1] = "a/00001.jpg,2,0"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("predictions.txt", "\n".join([*va.lines, ""]))
        file.writestr("__MACOSX/._predictions.txt", b"\0")
    verdict = check_submission(archive, va.submission, va.sample)
    assert [(offence.file, offence.line) for offence in verdict.offences] == [("predictions.txt", 2)]


def test_a_zip_with_more_than_the_file_is_refused(va):
    archive = va.folder / "handed-in.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("notes.md", "x")
        file.writestr("predictions.txt", "\n".join([*va.lines, ""]))
    verdict = check_submission(archive, va.submission, va.sample)
    assert [(offence.file, offence.line) for offence in verdict.offences] == [("notes.md", 0)]
    assert verdict.rows == 4


def test_an_empty_zip_is_refused(va):
    archive = va.folder / "handed-in.zip"
    zipfile.ZipFile(archive, "w").close()
    assert check_submission(archive, va.submission, va.sample).offences[0].message == "the archive is empty"


def test_a_damaged_zip_is_an_error(va):
    archive = va.folder / "handed-in.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("predictions.txt", "\n".join([*va.lines, ""]))
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(AbawError, match="zip is damaged"):
        check_submission(archive, va.submission, va.sample)


def test_the_folder_of_a_submission_is_checked(va):
    va.check()  # writes predictions.txt
    (va.folder / "statement.md").write_text("x")
    assert check_submission(va.folder, va.submission, va.sample).ok


def test_a_folder_with_several_texts_is_an_error(va):
    (va.folder / "a.txt").write_text("x")
    with pytest.raises(AbawError, match="2 text files"):
        check_submission(va.folder, va.submission, va.sample)


def test_a_file_that_is_not_there_is_an_error(va):
    with pytest.raises(AbawError, match="cannot be read"):
        check_submission(va.folder / "none.txt", va.submission, va.sample)


def test_carriage_returns_alone_as_line_ends_are_named(va):
    line, message = va.offence("\r".join([va.lines[0], *(f"t/{row:05d}.jpg,0,0" for row in range(1, 400))]))
    assert (line, message) == (1, "has more than 4096 bytes: its lines end in carriage returns alone")
