"""Probe: which decoders there are, and do a clip and a picture made here come back from PyAV and OpenCV?"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

from abaw.stages.doctor.child import probe, say
from abaw.stages.doctor.media import DECODERS

SIDE, FRAMES, RATE = 64, 8, 16000
GREY = 128
TOLERANCE = 8  # grey levels that compression may change in a plain picture


def main() -> None:
    """PyAV first, then OpenCV, which needs libraries of the system."""
    import av

    say("av", version=av.__version__, missing=missing_decoders())
    say("clip", **_attempt(_clip))
    import cv2

    say("cv2", version=cv2.__version__)
    say("picture", **_attempt(_picture))


def missing_decoders() -> list[str]:
    """Formats of `DECODERS` that this FFmpeg cannot decode."""
    from av.codec import codecs_available

    return [name for name, decoders in DECODERS.items() if not any(_decodes(one, codecs_available) for one in decoders)]


def _decodes(name: str, available: set[str]) -> bool:
    from av.codec import Codec

    if name not in available:
        return False
    try:
        return Codec(name, "r").is_decoder
    except ValueError:  # an encoder of that name alone
        return False


def _attempt(work: Any) -> dict[str, Any]:
    try:
        return {"error": work()}
    except Exception as error:  # whatever a codec raises
        return {"error": f"{type(error).__name__}: {error}"}


def _clip() -> str:
    """H.264 and AAC in MP4, made and decoded in memory; what went wrong, "" for nothing."""
    import av
    import numpy as np

    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        for _ in range(FRAMES):
            picture = np.full((SIDE, SIDE, 3), GREY, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        tone = np.sin(np.arange(RATE // 4) / 10, dtype=np.float32)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    memory.seek(0)
    with av.open(memory, "r") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    memory.seek(0)
    with av.open(memory, "r") as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    if len(frames) != FRAMES or abs(int(frames[-1].mean()) - GREY) > TOLERANCE:
        return f"{len(frames)} of {FRAMES} frames came back"
    return "" if samples >= RATE // 4 else f"{samples} of {RATE // 4} samples of sound came back"


def _picture() -> str:
    """A JPEG of PyAV, decoded and reduced by OpenCV; what went wrong, "" for nothing."""
    import av
    import cv2
    import numpy as np

    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width = encoder.height = SIDE
    encoder.pix_fmt = "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame.from_ndarray(np.full((SIDE, SIDE, 3), GREY, np.uint8), format="rgb24").reformat(
        format="yuvj420p"
    )
    content = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if found is None or found.shape != (SIDE, SIDE, 3):
        return "OpenCV does not decode it"
    small = cv2.resize(found, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    return "" if abs(int(small.mean()) - GREY) <= TOLERANCE else "its colours changed"


if __name__ == "__main__":
    probe(main)
