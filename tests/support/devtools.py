"""A page in a headless Chromium that is asked questions while it is open: sizes, themes, errors, pictures.

The browser's protocol is spoken over its pipe: messages are JSON, each ended by a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from tests.support import browser

_PATIENCE_S = 60.0
Scheme = Literal["light", "dark"]


class Page:
    """One tab."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out = into, out
        self._buffer = b""
        self._id = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """Everything that the browser told unasked."""

    def open(self) -> None:
        """Make a tab and listen to what goes wrong in it."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def load(self, url: str, *, width: int = 1280, height: int = 900, scheme: Scheme = "light") -> None:
        """Show an address in a window of this size and theme."""
        self.resize(width, height, scheme)
        self.events.clear()
        self.ask("Page.navigate", url=url)
        self._until(lambda: any(event["method"] == "Page.loadEventFired" for event in self.events))

    def resize(self, width: int, height: int = 900, scheme: Scheme = "light") -> None:
        """Change the window's size and theme."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media="screen", features=features)

    def print_layout(self) -> None:
        """Lay the page out as for a printer."""
        self.ask("Emulation.setEmulatedMedia", media="print", features=[])

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def problems(self) -> list[str]:
        """Errors of scripts, of the console and of the network since the page was loaded."""
        found = []
        for event in self.events:
            method, params = event["method"], event.get("params", {})
            if method in ("Runtime.exceptionThrown", "Network.loadingFailed"):
                found.append(f"{method}: {params}")
            if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(f"console: {params['args']}")
        return found

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was loaded."""
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]

    def picture(self, path: Path, *, selector: str | None = None) -> None:
        """Write the whole page, or one element of it, as PNG."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": True}
        script = (
            "(() => { const b = document.querySelector(%s).getBoundingClientRect();"
            " return {x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height} })()"
        )
        options["clip"] = self.evaluate(script % json.dumps(selector or "html")) | {"scale": 1}
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", **options)["data"]))

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._id += 1
        message: dict[str, Any] = {"id": self._id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._into, data) :]
        answers: list[dict[str, Any]] = []
        wanted = self._id

        def answered() -> bool:
            answers.extend(event for event in self.events if event.get("id") == wanted)
            return bool(answers)

        self._until(answered)
        self.events = [event for event in self.events if "method" in event]
        assert "error" not in answers[0], answers[0]
        result: dict[str, Any] = answers[0]["result"]
        return result

    def _until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not done():
            left = deadline - time.monotonic()
            assert left > 0, "the browser does not answer"
            if select.select([self._out], [], [], left)[0]:
                chunk = os.read(self._out, 1 << 20)
                assert chunk, "the browser ended"
                *messages, self._buffer = (self._buffer + chunk).split(b"\0")
                self.events += [json.loads(message) for message in messages]


@contextmanager
def page() -> Iterator[Page]:
    """A browser with one tab, gone afterwards."""
    assert browser.PROGRAM is not None
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser's ends must be its descriptors 3 and 4.
        script = f'exec "$@" 3<&{to_read} 4>&{from_write}'
        command = ["bash", "-c", script, "browser", browser.PROGRAM, *browser.REAL_TIME]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(to_read, from_write),
        )
        for end in (to_read, from_write):
            os.close(end)
        try:
            tab = Page(to_write, from_read)
            tab.open()
            yield tab
        finally:
            process.terminate()
            process.wait(timeout=60)
            os.close(to_write)
            os.close(from_read)
