"""Feature stores joined on the frame clock and cut into windows; `stitch` puts windows together again.

Numpy only; knows nothing of models.
"""

from abaw.data.windows.cutting import STITCHES, Stitcher, Window, check_cut, cut, stitch, window_starts
from abaw.data.windows.stream import Stream
from abaw.data.windows.streams import FeatureStreams

__all__ = [
    "STITCHES",
    "FeatureStreams",
    "Stitcher",
    "Stream",
    "Window",
    "check_cut",
    "cut",
    "stitch",
    "window_starts",
]
