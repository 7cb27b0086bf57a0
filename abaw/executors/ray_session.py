"""The connection to a Ray cluster: found or started, quiet, and left again."""

from __future__ import annotations

import io
import logging
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from abaw.errors import AbawError, ExitCode
from abaw.executors.processes import ending_by_sigterm, environment, raise_at_sigterm
from abaw.executors.resources import Resources
from abaw.publish import publish_text

logger = logging.getLogger(__name__)

STARTED_HERE = "local"  # Ray's word for a new instance on this machine
ANSWER_S = 10.0
STORE_BYTES = 1 << 28  # of a new instance: units and their results are small
# Read by Ray when it is imported or starts a process. No report of use leaves the cluster; lines of workers come as
# they are; GPUs are hidden from tasks that ask for none.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}


@contextmanager
def connected(resources: Resources) -> Iterator[Any]:
    """The module `ray`, connected to the cluster that the configuration or RAY_ADDRESS names, or to a new one here.

    A connection that the process has already is used and left open. Raises AbawError (missing) where Ray is not
    installed or the cluster is not reached.
    """
    with environment(QUIET), ending_by_sigterm():
        ray = _imported()
        if ray.is_initialized():
            yield ray
            return
        with redirect_stdout(_Reported()):  # what Ray says of nodes and workers goes there, where results belong
            try:
                _connect(ray, resources)
                raise_at_sigterm()
                yield ray
            finally:
                ray.shutdown()


def _imported() -> Any:
    if find_spec("ray") is None:
        raise AbawError(
            'run.executor = "ray" needs the package ray, which is not installed',
            where="run.executor",
            fix="pip install 'abaw[ray]', or set run.executor = \"local\"",
            code=ExitCode.MISSING,
        )
    return import_module("ray")


def _connect(ray: Any, resources: Resources) -> None:
    address = resources.address or os.environ.get("RAY_ADDRESS", "") or STARTED_HERE
    if address.startswith("ray://"):
        raise _not_reached(address, "that is the address of a Ray client server")
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    if address == STARTED_HERE:
        options["num_cpus"] = resources.at_once * resources.cpus or None
    else:  # these are settled where the cluster was started
        options = {}
        _require_listening(address)
    try:
        ray.init(address, log_to_driver=resources.live, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise _not_reached(address, str(error).strip().splitlines()[0]) from error


def _require_listening(address: str) -> None:
    """AbawError where nobody answers at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):  # "auto": a cluster that this machine is in
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise _not_reached(address, error.strerror or str(error)) from error


def _not_reached(address: str, why: str) -> AbawError:
    return AbawError(
        f"no Ray cluster is reached at {address}: {why}",
        where="run.ray_address or RAY_ADDRESS",
        fix="start one with `ray start --head` and give its address (HOST:6379), and start this command on one of "
        'its nodes; or leave the address empty: ray_address = ""',
        code=ExitCode.MISSING,
    )


class _Reported(io.TextIOBase):
    """A text stream whose lines are debug lines of the log."""

    def write(self, text: str) -> int:
        for line in filter(None, map(str.strip, text.splitlines())):
            logger.debug("ray: %s", line)
        return len(text)


@contextmanager
def marked(folder: Path | None) -> Iterator[Path | None]:
    """A file in a folder by which other machines know that theirs is the same; gone at the end."""
    if folder is None:
        yield None
        return
    marker = folder / f".{uuid.uuid4().hex}.tmp"
    publish_text(marker, "")
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)
