"""What the probe of media found: FFmpeg's decoders through PyAV, and OpenCV with the system libraries it needs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from abaw.errors import ExitCode
from abaw.stages.doctor.child import Outcome
from abaw.stages.doctor.findings import Finding, good, note, problem

REINSTALL = "install it again as a wheel: pip install --force-reinstall --only-binary :all: "
# What recordings of the challenge and of people's cameras are made of; AV1 by a decoder that needs no special hardware.
DECODERS = {
    "h264": ("h264",),
    "hevc": ("hevc",),
    "mpeg4": ("mpeg4",),
    "vp9": ("vp9", "libvpx-vp9"),
    "av1": ("libdav1d", "libaom-av1"),
    "aac": ("aac",),
    "mp3": ("mp3float", "mp3"),
    "flac": ("flac",),
}
# Library that the loader misses -> Debian's package
PACKAGES = {"libGL": "libgl1", "libgthread": "libglib2.0-0", "libglib": "libglib2.0-0", "libSM": "libsm6"}
LIBRARY = re.compile(r"(lib\w+)[-\w.]*\.so[.\d]*")


def findings(outcome: Outcome) -> Iterator[Finding]:
    """One finding about codecs, one about OpenCV."""
    yield _codecs(outcome)
    if "clip" in outcome:
        yield _opencv(outcome)


def _codecs(outcome: Outcome) -> Finding:
    install = REINSTALL + '"av>=14"'
    if "clip" not in outcome:
        during = "cannot be imported" if "av" not in outcome else "failed on a clip of H.264 and AAC"
        return problem("codecs", f"PyAV {during}: {outcome.failure}", fix=install, code=ExitCode.MISSING)
    version, missing, error = outcome["av"]["version"], outcome["av"]["missing"], outcome["clip"]["error"]
    if missing:
        text = f"PyAV {version} has no decoder of {', '.join(missing)}"
        return problem("codecs", text, fix=install, code=ExitCode.MISSING, missing=missing)
    if "UnknownCodec" in error:  # it encodes nothing of the kind, which only this check needs
        return note("codecs", f"PyAV {version} has all decoders; no clip could be made to try them ({error})", install)
    if error:
        text = f"PyAV {version} does not decode a clip of H.264 and AAC: {error}"
        return problem("codecs", text, fix=install, code=ExitCode.MISSING)
    text = f"PyAV {version} decodes {' '.join(DECODERS)}; a clip of H.264 and AAC came back"
    return good("codecs", text, version=version, missing=[])


def _opencv(outcome: Outcome) -> Finding:
    if "picture" not in outcome:
        during = "cannot be imported" if "cv2" not in outcome else "failed on a JPEG"
        return problem("opencv", f"it {during}: {outcome.failure}", fix=_fix(outcome.failure), code=ExitCode.MISSING)
    version, error = outcome["cv2"]["version"], outcome["picture"]["error"]
    if error:
        text = f"{version} does not bring back a JPEG: {error}"
        return problem("opencv", text, fix=_fix(""), code=ExitCode.MISSING)
    return good("opencv", f"{version} and its system libraries load; a JPEG came back", version=version)


def _fix(failure: str) -> str:
    """The system package that a loader's message asks for, or the package anew."""
    found = LIBRARY.search(failure)
    if found and "cannot open shared object" in failure:
        package = PACKAGES.get(found[1], "libgl1 libglib2.0-0")
        return f"apt-get install {package}\nor, without a screen: pip install opencv-python-headless"
    return REINSTALL + '"opencv-python>=4.9,<5"'
