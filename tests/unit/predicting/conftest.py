"""One trained project for all tests of predicting; each works on a folder of results of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.unit.conftest import write_video
from tests.unit.predicting.project import make_project


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, face_pictures: list[np.ndarray], tone: np.ndarray) -> Path:
    """The project; nobody writes into it."""
    return make_project(tmp_path_factory.mktemp("predicting") / "project", face_pictures, tone)


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(trained, tmp_path / "project"))


@pytest.fixture
def clip(tmp_path: Path, face_pictures: list[np.ndarray], tone: np.ndarray) -> Callable[..., Path]:
    """``clip(name, pictures, sound)`` writes a video; the face and the tone of the project unless told otherwise."""

    def make(name: str, pictures: list[np.ndarray] | None = None, sound: np.ndarray | None = tone) -> Path:
        return write_video(tmp_path / name, pictures or face_pictures, sound=sound)

    return make
