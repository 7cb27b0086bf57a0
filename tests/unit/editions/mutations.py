"""Small damages to a text file, as programs, editors and people make them."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

PIECES = [
    *(b"\r", b"\n", b"\r\n", b",", b" ", b"\t", b"-", b".", b"/", b'"', b"_", b"\0", b"\xff", b"\x1a", b"\v", b"\x1f"),
    *("\ufeff".encode(), "é".encode(), "\u2028".encode(), "\u0663".encode(), "\u00a0".encode()),
    *(b"0", b"1", b"7", b"8", b"-1", b"00", b"1.5", b"nan", b"inf", b"e5", b"E-3", b".jpg", b".PNG", b"00001", b"a/"),
]

Change = Callable[[bytes], bytes]


def _insert(place: float, piece: bytes, start: int) -> Change:
    def change(text: bytes) -> bytes:
        at = _at(text, place, start)
        return text[:at] + piece + text[at:]

    return change


def _replace(place: float, piece: bytes, start: int) -> Change:
    def change(text: bytes) -> bytes:
        at = _at(text, place, start)
        return text[:at] + piece + text[at + len(piece) :]

    return change


def _delete(place: float, count: int, start: int) -> Change:
    def change(text: bytes) -> bytes:
        at = _at(text, place, start)
        return text[:at] + text[at + count :]

    return change


def _lines(place: float, kind: str, start: int) -> Change:
    def change(text: bytes) -> bytes:
        lines = text.split(b"\n")
        first = 1 if start else 0
        at = first + int(place * max(len(lines) - 1 - first, 1))
        if at + 1 >= len(lines):
            return text
        if kind == "double":
            lines.insert(at, lines[at])
        elif kind == "swap":
            lines[at], lines[at + 1] = lines[at + 1], lines[at]
        elif kind == "drop":
            del lines[at]
        else:
            lines[at] = lines[at].rpartition(b",")[0]
        return b"\n".join(lines)

    return change


def _at(text: bytes, place: float, start: int) -> int:
    start = min(start, len(text))
    return start + int(place * (len(text) - start))


def damages(start: int) -> st.SearchStrategy[list[Change]]:
    """One to three changes; most of them lie behind byte ``start``, the end of the header."""
    begin = st.sampled_from([start] * 9 + [0])
    place = st.floats(0, 1)
    change = st.one_of(
        st.builds(_insert, place, st.sampled_from(PIECES), begin),
        st.builds(_replace, place, st.sampled_from(PIECES), begin),
        st.builds(_delete, place, st.integers(1, 12), begin),
        st.builds(_lines, place, st.sampled_from(["double", "swap", "drop", "cut"]), begin),
    )
    return st.lists(change, min_size=1, max_size=3)
