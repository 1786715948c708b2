"""Crash reports as a phone keeps them: a line of JSON that says what it is, and a JSON document."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

from meltrepro.atomic import write_bytes
from meltrepro.lab.iphone.apps import App
from meltrepro.lab.iphone.identity import BUILD, VERSION

PAGE = 16384
_JETSAM = "298"
_CRASH = "309"


def report_jetsam(folder: Path, app: App, pid: int, footprint: int, reason: str) -> None:
    """Say that an app was killed for want of memory; `reason` as a phone's kernel names it."""
    process = {
        "pid": pid,
        "name": app.name,
        "rpages": -(-footprint // PAGE),
        "reason": reason,
        "states": ["frontmost"],
        "fds": 50,
        "uuid": str(uuid.uuid4()),
    }
    body = {
        "build": f"{VERSION} ({BUILD})",
        "product": "VirtualiPhone1,1",
        "largestProcess": app.name,
        "memoryStatus": {"pageSize": PAGE, "compressorSize": 0},
        "processes": [process],
    }
    _write(folder, "JetsamEvent", _JETSAM, body)


def report_crash(folder: Path, app: App, pid: int, number: int) -> None:
    """Say that an app died by a signal."""
    body = {
        "pid": pid,
        "procName": app.name,
        "bundleInfo": {"CFBundleIdentifier": app.identifier, "CFBundleShortVersionString": app.version},
        "exception": {"signal": number},
        "termination": {"namespace": "SIGNAL", "code": number},
    }
    _write(folder, app.name, _CRASH, body)


def _write(folder: Path, title: str, kind: str, body: dict[str, Any]) -> None:
    now = time.time()
    stamp = time.strftime("%Y-%m-%d-%H%M%S", time.gmtime(now))
    incident = str(uuid.uuid4()).upper()
    head = {
        "bug_type": kind,
        "timestamp": time.strftime("%Y-%m-%d %H:%M:%S.00 +0000", time.gmtime(now)),
        "os_version": f"Virtual iPhone OS {VERSION} ({BUILD})",
        "incident_id": incident,
        "meltrepro_virtual": True,
    }
    body = {"incident": incident, "date": head["timestamp"], "bug_type": kind, **body}
    path = folder / f"{title}-{stamp}.ips"
    number = 0
    while path.exists():  # several in one second
        number += 1
        path = folder / f"{title}-{stamp}.{number:03d}.ips"
    write_bytes(path, (json.dumps(head) + "\n" + json.dumps(body, indent=2) + "\n").encode(), durable=False)
