"""The names of ready-made crops: ``00001.jpg`` is the first picture of its track.

Knows nothing of folders or pictures.
"""

from __future__ import annotations

import re

NAME = re.compile(r"0*(?P<number>[1-9][0-9]*)\.(jpg|jpeg|png|bmp)", re.IGNORECASE)


def crop_number(name: str) -> int | None:
    """The one-based number in a file's name; None where it is not a crop's."""
    match = NAME.fullmatch(name)
    return int(match["number"]) if match else None
