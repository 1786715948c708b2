"""What an iPhone writes down when a program dies: crash reports, and who had to go when memory ran out (jetsam).

A report is a line of JSON that says what it is, and a JSON document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

_JETSAM, _CRASH = "298", "309"
"""Kinds of report, by Apple's numbers."""
_NAME = re.compile(r"(?P<title>.+)-(?P<time>\d{4}-\d{2}-\d{2}-\d{6})(\.\d+)?\.ips")
_PAGE = 16384


@dataclass(frozen=True)
class Report:
    """Why an app died."""

    kind: Literal["jetsam", "crash"]
    pid: int | None
    signal: int | None
    detail: str
    """In a few words, for people."""
    content: bytes


def report_time(name: str, programs: AbstractSet[str]) -> str | None:
    """When a report was written, if by its name it can be about a program of these names; sorts like the time."""
    found = _NAME.fullmatch(name)
    return found["time"] if found and found["title"] in {"JetsamEvent", *programs} else None


def parse_report(content: bytes, app: str, programs: AbstractSet[str]) -> Report | None:
    """What a report says of a program; `None` where it is about another one, or cannot be read."""
    head_text, _, body_text = content.partition(b"\n")
    try:
        head, body = json.loads(head_text), json.loads(body_text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(head, dict) or not isinstance(body, dict):
        return None
    kind = str(head.get("bug_type", ""))
    if kind == _JETSAM:
        return _jetsam(body, programs, content)
    return _crash(body, app, programs, content) if kind == _CRASH else None


def _jetsam(body: dict[str, Any], programs: AbstractSet[str], content: bytes) -> Report | None:
    memory, processes = body.get("memoryStatus"), body.get("processes")
    page = _whole(memory.get("pageSize")) if isinstance(memory, dict) else None
    for each in processes if isinstance(processes, list) else ():
        # All processes are listed; those that were killed have a reason.
        if isinstance(each, dict) and str(each.get("name")) in programs and isinstance(each.get("reason"), str):
            size = (_whole(each.get("rpages")) or 0) * (page or _PAGE)
            return Report("jetsam", _whole(each.get("pid")), 9, f"{each['reason']}, {size / 1e6:.0f} MB", content)
    return None


def _crash(body: dict[str, Any], app: str, programs: AbstractSet[str], content: bytes) -> Report | None:
    bundle, exception, end = (body.get(name) for name in ("bundleInfo", "exception", "termination"))
    named = bundle.get("CFBundleIdentifier") if isinstance(bundle, dict) else None
    if app != named and str(body.get("procName")) not in programs:
        return None
    number = _whole(end.get("code")) if isinstance(end, dict) and end.get("namespace") == "SIGNAL" else None
    said = exception.get("signal") if isinstance(exception, dict) else None
    told = exception.get("type") if isinstance(exception, dict) else None
    detail = ", ".join(str(word)[:80] for word in (told, said) if word) or "crashed"
    return Report("crash", _whole(body.get("pid")), number, detail, content)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
