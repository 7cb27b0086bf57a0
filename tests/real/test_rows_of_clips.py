"""Every real clip gives one row for each frame of a plain decode, in order of time."""

from __future__ import annotations

import av
import numpy as np
import pytest

from abaw.media.faces import DetectorOptions, build_detector
from abaw.media.people import AlignSettings, align_video

pytestmark = pytest.mark.real


def test_rows_are_those_of_a_plain_decode_and_times_increase_strictly(real_data):
    detector = build_detector("center", DetectorOptions())
    paths = sorted((real_data / "videos").iterdir())
    rows, expected, standing = {}, {}, []
    for path in paths:
        with align_video(path, [None], detector, AlignSettings()) as found:
            times = np.asarray(found.tracks[0]["time"])
        with av.open(str(path)) as container:
            expected[path.name] = sum(1 for _ in container.decode(video=0))
        rows[path.name] = len(times)
        if not np.all(np.diff(times) > 0):
            standing.append(path.name)
    assert len(paths) > 0
    assert rows == expected
    assert standing == []
