"""A headless Chromium for tests, spoken to through its driver by the WebDriver protocol (W3C), without any package.

Nothing is downloaded: browser and driver are those of the system.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)
START_SECONDS = 30
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def missing() -> str:
    """Why there is no browser to test with; empty where there is one."""
    if not _found(BROWSERS):
        return "no chromium on this machine: apt-get install chromium chromium-driver"
    if not _found(DRIVERS):
        return "no chromedriver on this machine: apt-get install chromium-driver"
    return ""


def _found(names: tuple[str, ...]) -> str | None:
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """One window of a running Chromium."""

    def __init__(self, address: str, profile: Path, *, scripts: bool) -> None:
        self._address = address
        options: dict[str, Any] = {
            "binary": _found(BROWSERS),
            "args": [*FLAGS, f"--user-data-dir={profile}"],
            "perfLoggingPrefs": {"enableNetwork": True},
        }
        if not scripts:
            options["prefs"] = {"profile.managed_default_content_settings.javascript": 2}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        started = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{started['sessionId']}"

    def _call(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        # No proxy: the driver is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            msg = f"{path}: {error.read().decode(errors='replace')[:500]}"
            raise RuntimeError(msg) from error

    def quit(self) -> None:
        """Close the window and end the browser."""
        self._call("DELETE", self._session)

    def open(self, path: Path, *, width: int, height: int = 900) -> None:
        """Load a file in a window of so many pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self._call("POST", f"{self._session}/url", {"url": path.resolve().as_uri()})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def evaluate(self, expression: str) -> Any:
        """Value of an expression in the page; works where the page's own scripts are off."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": f"return {expression};", "args": []})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Entries since the last call: "browser" (console) or "performance" (network)."""
        return self._call("POST", f"{self._session}/se/log", {"type": kind})

    def clear(self) -> None:
        """Leave the browser's first page, and forget what it asked for."""
        self._call("POST", f"{self._session}/url", {"url": "about:blank"})
        for kind in ("performance", "browser"):
            self.log(kind)

    def requested(self) -> list[str]:
        """Addresses asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save what the window shows, or the whole page, as PNG."""
        found = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def running(folder: Path, *, scripts: bool = False) -> Iterator[Browser]:
    """A browser with a fresh profile in ``folder``; ``scripts``: whether pages may run any."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(
        [str(_found(DRIVERS)), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(port)
        browser = Browser(f"http://127.0.0.1:{port}", folder / "profile", scripts=scripts)
        try:
            browser.clear()
            yield browser
        finally:
            browser.quit()
    finally:
        driver.terminate()
        driver.wait(timeout=START_SECONDS)


def _wait(port: int) -> None:
    """Until the driver listens."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
