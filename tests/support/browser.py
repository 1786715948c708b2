"""A headless Chromium: what a page shows, as text and as a picture."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
REAL_TIME = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1700,2200",
)
"""Flags of a page whose clock is everybody's."""
_FLAGS = (
    *REAL_TIME,
    # Milliseconds of the page's own clock, which stands still while it waits for the server.
    "--virtual-time-budget=25000",
)


def visible_text(url: str) -> str:
    """The texts of a page once its scripts have run, one a line."""
    source = _run("--dump-dom", url)
    body = re.sub(r"<(script|style).*?</\1>", "", source, flags=re.DOTALL)
    texts = (html.unescape(text).strip() for text in re.split(r"<[^>]*>", body))
    return "\n".join(text for text in texts if text)


def screenshot(url: str, path: Path) -> None:
    """Write a picture of a page as PNG."""
    _run(f"--screenshot={path}", url)


def _run(*arguments: str) -> str:
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [PROGRAM, *_FLAGS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
