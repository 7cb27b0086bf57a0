"""Probe: how many frames do the headers of some recordings promise? Nothing is decoded.

Its arguments are the recordings' paths.
"""

from __future__ import annotations

from abaw.stages.doctor.child import probe, say


def main(*paths: str) -> None:
    """Say the frames of each recording that has a readable header."""
    import av

    found = {}
    for path in paths:
        try:
            with av.open(path, metadata_errors="replace") as container:
                stream = container.streams.video[0]
                seconds = (container.duration or 0) / av.time_base
                frames = stream.frames or round(seconds * float(stream.average_rate or 0))
        except (av.error.FFmpegError, OSError, ValueError, IndexError):
            continue
        if frames > 0:
            found[path] = frames
    say("frames", found=found)


if __name__ == "__main__":
    probe(main)
