"""The files of a report: made, written, and compared with those that are there."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from meltrepro import untrusted
from meltrepro.atomic import reading, remove, write_bytes
from meltrepro.errors import RecordError, ReportDiffers
from meltrepro.report.content import Content, sections
from meltrepro.report.export import as_csv, as_latex
from meltrepro.report.page import render
from meltrepro.untrusted import load_json

_TABLE = re.compile(r"tables/[a-z-]+\.(csv|tex)")
PAGE, INDEX = "index.html", "report.json"
"""The page; and which campaigns the report is of, with the digests of its files."""


def report_files(content: Content) -> dict[str, bytes]:
    """Every file of a report by its path; the same content gives the same bytes, whenever and wherever."""
    parts = sections(content)
    files = {PAGE: render(content, parts).encode()}
    for table in (table for part in parts for table in part.tables):
        files[f"tables/{table.name}.csv"] = as_csv(table).encode()
        files[f"tables/{table.name}.tex"] = as_latex(table).encode()
    index = {
        "format": 1,
        **({"study": content.study.name} if content.study else {}),
        "campaigns": [one.id for one in content.campaigns],
        "files": {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())},
    }
    return files | {INDEX: json.dumps(index, indent=1).encode() + b"\n"}


def write_report(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write every file, the index last, and remove tables of an earlier report that this one lacks; raises `StoreError`."""
    for name in _earlier(folder) - files.keys():
        remove(folder / name)
    for name in sorted(files, key=lambda name: name == INDEX):
        write_bytes(folder / name, files[name], durable=False)


def _earlier(folder: Path) -> set[str]:
    """The tables that the index in a folder names; none where it cannot be read, for it is written anew."""
    try:
        named = load_json(untrusted.read(folder / INDEX))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in named if isinstance(name, str) and _TABLE.fullmatch(name)}


def campaigns_of(folder: Path) -> list[str]:
    """The study, or else the ids of the campaigns, that the report in a folder is of; raises `RecordError` where its index is damaged."""
    path = folder / INDEX
    try:
        with reading(path):
            index = load_json(untrusted.read(path))
            found = [index["study"]] if "study" in index else index["campaigns"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is damaged: {error}", hint="name the campaigns, or write the report anew") from error
    if not isinstance(found, list) or not all(isinstance(id, str) for id in found):
        raise RecordError(f"{path} is damaged: it names no campaigns", hint="write the report anew")
    return found


def holds_report(folder: Path) -> bool:
    return os.path.lexists(folder / INDEX)


def compare_report(folder: Path, files: Mapping[str, bytes]) -> None:
    """Compare a report on disk with one that was made anew; raises `ReportDiffers`, which names every file that differs."""
    problems = []
    for name, data in files.items():
        path = folder / name
        if not os.path.lexists(path):
            problems.append(f"{name} is missing")
            continue
        with reading(path):
            found = untrusted.read(path)
        if found != data:
            problems.append(f"{name} differs from byte {_first_difference(found, data)} on")
    present = sorted(path.relative_to(folder).as_posix() for path in (folder / "tables").glob("*.*"))
    problems += [f"{name} is not of this report" for name in present if name not in files]
    if problems:
        raise ReportDiffers(
            f"{folder}: the records give another report: {'; '.join(problems)}",
            hint="the file, the records or meltrepro itself changed since; write the records' report with: meltrepro report",
        )


def _first_difference(a: bytes, b: bytes) -> int:
    shorter = min(len(a), len(b))
    return next((i for i in range(shorter) if a[i] != b[i]), shorter)
