"""What MTCNN runs with: its constants, and its weights inside the installed `mtcnn` package, which itself is never
imported. No torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from abaw.errors import AbawError, ExitCode

# Score thresholds of the proposal, refinement and output networks.
THRESHOLDS = (0.6, 0.7, 0.7)
PYRAMID_FACTOR = 0.709  # the published factor: area halves from level to level
MAX_PROPOSALS = 300


def weight_files() -> list[Path]:
    """The files of the proposal, refinement and output networks; AbawError (missing) without the package."""
    spec = importlib.util.find_spec("mtcnn")
    folder = Path(spec.origin).parent / "assets" / "weights" if spec and spec.origin else Path()
    files = [folder / f"{name}.lz4" for name in ("pnet", "rnet", "onet")]
    if spec is None or not all(file.is_file() for file in files):
        what = "the face detector's weights are missing (package mtcnn 1.x)"
        fix = 'pip install "mtcnn>=1.0,<2"'
        raise AbawError(what, where='[align] detector = "mtcnn"', fix=fix, code=ExitCode.MISSING)
    return files


def weights_sha256() -> str:
    """Hash over the three files, for the settings of a store."""
    digest = hashlib.sha256()
    for file in weight_files():
        digest.update(file.read_bytes())
    return digest.hexdigest()
