"""Shared fixtures and the option that points at real recordings."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--real-data", default=None, metavar="DIR", help="folder of real clips (videos/, images/)")


@pytest.fixture(scope="session")
def real_data(request: pytest.FixtureRequest) -> Path:
    """Folder of the real recordings; the test skips, saying why, where none is given."""
    given = request.config.getoption("--real-data")
    if given is None:
        pytest.skip("no real recordings: pass --real-data=DIR (make test REAL=DIR)")
    path = Path(given).resolve()
    if not (path / "videos").is_dir():
        pytest.fail(f"--real-data {path} has no folder videos/")
    return path
