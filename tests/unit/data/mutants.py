"""Valid text files with a few edits, for tests that ask for a clear error or the right result."""

from hypothesis import strategies as st

from abaw.errors import AbawError

PIECES = [
    *(
        "\n",
        "\r\n",
        "\r",
        "\n\n",
        " ",
        "\t",
        ",",
        ",,",
        ";",
        "-",
        "-1",
        "-5",
        "+",
        ".",
        "0",
        "1",
        "9",
        "12",
        "0.5",
        "1.0",
    ),
    *("1e0", "1e-3", "1e400", "nan", "inf", "1_0", "0x1", "x", '"', "#", "/", "\\", "../", ":", "\x00", "\x0b", "\x1a"),
    *("\x1c", "\x85", "\u2028", "\ufeff", "é", "٣", "00001.jpg", "v/00001.jpg,", "valence,arousal\n"),
]


def mutants(valid: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Files with one to three edits, most of them behind the first line."""
    return st.builds(edited, valid, st.lists(edits(), min_size=1, max_size=3))


def edits():
    """A place as a share of the file from the end, how many bytes are cut there, and what is put in their place."""
    place = st.floats(0, 1, exclude_max=True)
    small = st.tuples(place, st.integers(0, 3), st.sampled_from([b"", *(piece.encode() for piece in PIECES)]))
    noise = st.tuples(place, st.integers(0, 1), st.binary(min_size=1, max_size=3))
    whole = st.sampled_from([(b"\n", b"\r\n"), (b"\n", b"\r"), (b"\n", b",\n"), (b",", b" , "), (b"\n", b"\n\n")])
    end = st.sampled_from([b"", b"\n\n", b" \r\n\x1a", b"\x00"])
    return st.one_of(small, small, noise, whole, end)


def edited(content: bytes, changes) -> bytes:
    """The file after its edits. A header of a hundred bytes in a file of four hundred gets a quarter of the places."""
    for change in changes:
        if isinstance(change, bytes):
            content += change
        elif len(change) == 2:
            content = content.replace(*change)
        else:
            place = len(content) - int(change[0] * len(content))
            content = content[:place] + change[2] + content[place + change[1] :]
    return content


def lines_of(content: bytes) -> list[str] | None:
    """Header and rows of a text, without spaces at their ends and one closing comma; None for what is no text."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    text = text.removeprefix("\ufeff").rstrip(" \t\r\n\x0b\x0c\x1a")
    return [line.rstrip().removesuffix(",") for line in text.splitlines()]


def same_names(line: str, names: list[str]) -> bool:
    """Whether a header holds these names, but for case, spaces and underscores."""

    def plain(name: str) -> str:
        return "".join(name.lower().replace("_", "").split())

    return [plain(name) for name in line.split(",")] == [plain(name) for name in names]


def number(text: str) -> float:
    """A decimal number. Raises ValueError for everything else that `float` reads."""
    if not set(text.strip(" \t")) <= set("0123456789+-.eE"):
        raise ValueError(text)
    return float(text)


def read_or_refuse(read, *args, **named):
    """What a reader gives; None where it refuses with an error that says what, where and how to fix it."""
    try:
        return read(*args, **named)
    except AbawError as error:
        if not (error.what and error.where and error.fix):
            raise
        return None
