"""A gallery as a static site: one page that needs nothing from outside, and the entries that it is made of."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from meltrepro import __version__, report
from meltrepro.build.render import render_text
from meltrepro.publish.collect import Collected, Collection, Standing
from meltrepro.publish.entry import PublicFigure
from meltrepro.publish.rows import ENERGY, MEMORY, PREFILL, SPEED, WAIT, GalleryRow, Reproductions, rows
from meltrepro.publish.signature import NAMESPACE, SUFFIX
from meltrepro.report.values import number, plain
from meltrepro.words import counted

PAGE, ENTRIES = "index.html", "entries"
"""The page; the folder of the entries beside it."""
_TEMPLATES = Path(__file__).with_name("templates")
_STYLE = Path(report.__file__).with_name("templates") / "style.css"
_AXES = {
    "speed": ("generation, tokens/s", SPEED, 1.0),
    "prefill": ("prefill, tokens/s", PREFILL, 1.0),
    "wait": ("time to first token, ms", WAIT, 1.0),
    "memory": ("peak memory, GB", MEMORY, 1e-9),
    "energy": ("energy, J/token", ENERGY, 1.0),
}
"""What is drawn and sorted by: title, metric, scale."""
_FILTERS = {
    "model": "model",
    "quantization": "quantization",
    "engine": "engine",
    "device": "device",
    "kind": "kind of device",
    "workload": "workload",
    "weights": "weights",
    "verdict": "verdict",
    "standing": "entry",
    "repeated": "repeated",
}
_REPEATED = {"reproduced": "reproduced by others", "differs": "differs for others", "no": "not by others"}
_OWN = re.compile(rf"[0-9a-f]{{12}}-[0-9a-f]{{12}}\.json({re.escape(SUFFIX)})?")
_MOST_SCORES = 20


class _Field(NamedTuple):
    """What stands in a field of a row; a tuple, for the sandbox of templates looks at every attribute that one asks for."""

    label: str
    text: str = ""
    class_: str = ""
    below: str = ""
    tags: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class _Head:
    text: str
    sort: str = ""
    class_: str = ""
    down: int = 0
    """Whether the first click puts the largest first."""


@dataclass(frozen=True)
class _Line:
    id: str
    virtual: bool
    data: str
    """What scripts sort, filter and draw by."""
    cells: tuple[_Field, ...]
    commands: tuple[str, ...]
    details: tuple[tuple[str, str], ...]
    entry: str
    signature: str


def gallery_files(collection: Collection, title: str) -> dict[str, bytes]:
    """Every file of the site by its path; the same entries give the same bytes."""
    found = rows(collection.taken)
    names = {one.file: _name(one) for one in collection.taken}
    files: dict[str, bytes] = {}
    for one in collection.taken:
        files[names[one.file]] = one.content
        if one.signature is not None:
            files[names[one.file] + SUFFIX] = one.signature
    return {PAGE: _page(collection, found, names, title).encode(), **files}


def earlier(out: Path) -> set[str]:
    """The entries that a site in a folder has of an earlier time, by path."""
    folder = out / ENTRIES
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return {f"{ENTRIES}/{name}" for name in names if _OWN.fullmatch(name)}


def _name(one: Collected) -> str:
    return f"{ENTRIES}/{one.entry.id}-{str(one.entry.seal)[:12]}.json"


def _page(collection: Collection, found: Sequence[GalleryRow], names: Mapping[str, str], title: str) -> str:
    style = _STYLE.read_text(encoding="utf-8") + (_TEMPLATES / "gallery.css").read_text(encoding="utf-8")
    script = (_TEMPLATES / "gallery.js").read_text(encoding="utf-8")
    scores = _scores(found)
    axes = [(key, name) for key, (name, *_) in _AXES.items()] + [(f"score:{name}", name) for name in scores]
    return render_text(
        (_TEMPLATES / "gallery.html.j2").read_text(encoding="utf-8"),
        {
            "title": plain(title),
            "policy": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'",
            "style": style,
            "script": script,
            "facts": _facts(collection, found),
            "has_virtual": any(row.device.virtual for row in found),
            "filters": list(_FILTERS.items()),
            "axes": axes,
            "sorts": [
                *axes,
                ("reproduced", "reproduced"),
                ("measured", "day"),
                ("model", "model"),
                ("device", "device"),
                ("engine", "engine"),
                ("workload", "workload"),
            ],
            "heads": _HEADS,
            "rows": [_line(number, row, names[row.source.file]) for number, row in enumerate(found, 1)],
            "refused": collection.refused,
            "namespace": NAMESPACE,
            "version": __version__,
            "files": counted(len(collection.taken), "entry", "entries"),
        },
        name=PAGE,
        escape=True,
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _facts(collection: Collection, found: Sequence[GalleryRow]) -> list[tuple[str, int, str]]:
    standing = [one.standing for one in collection.taken]
    facts = [
        ("measured", len(standing), "entries" if len(standing) != 1 else "entry"),
        ("measured", len(found), "cells" if len(found) != 1 else "cell"),
        *(("measured" if each is Standing.known else "", standing.count(each), str(each)) for each in Standing),
        ("failed", len(collection.refused), "not taken"),
    ]
    return [fact for fact in facts if fact[1]]


def _scores(found: Sequence[GalleryRow]) -> list[str]:
    """The scores that most rows have."""
    names = [name for row in found for name in row.quality]
    return sorted(dict.fromkeys(names), key=lambda name: (-names.count(name), name))[:_MOST_SCORES]


_HEADS = (
    *(_Head("model", "model"), _Head("engine", "engine"), _Head("device", "device")),
    *(_Head("generation, tokens/s", "speed", "n", 1), _Head("prefill, tokens/s", "prefill", "n", 1)),
    *(_Head("peak memory, GB", "memory", "n"), _Head("J/token", "energy", "n"), _Head("quality")),
    *(_Head("verdict", "verdict"), _Head("reproduced", "reproduced", "", 1), _Head("signer", "standing")),
)


def _line(place: int, row: GalleryRow, name: str) -> _Line:
    cell, entry = row.cell, row.source.entry
    engine = plain(f"{cell.engine} {cell.release}")
    device = plain(row.device.model) + (
        f" [{plain(str(mode))}]" if (mode := row.device.facts.get("power_mode")) else ""
    )
    values = {key: figure.median * scale for key, (_, metric, scale) in _AXES.items() if (figure := row.figure(metric))}
    values |= {f"score:{score}": value for score, value in row.quality.items()}
    if row.tally.tried:
        values["reproduced"] = float(row.tally.reproduced)
    texts = {
        "model": cell.model,
        "quantization": cell.quantization,
        "engine": engine,
        "device": device,
        "kind": row.device.kind + (", virtual" if row.device.virtual else ""),
        "workload": cell.workload,
        "weights": "made up" if cell.synthetic else "real",
        "verdict": cell.verdict,
        "standing": str(row.source.standing),
        "repeated": _REPEATED["differs" if row.tally.differs else "reproduced" if row.tally.reproduced else "no"],
        "measured": entry.campaign.measured,
    }
    data = json.dumps({"v": values, "f": texts}, separators=(",", ":"))
    signature = name + SUFFIX if row.source.signature is not None else ""
    return _Line(
        f"row-{place}",
        row.device.virtual,
        data,
        tuple(_fields(row, engine, device)),
        row.commands,
        tuple(_details(row)),
        name,
        signature,
    )


def _fields(row: GalleryRow, engine: str, device: str) -> Iterator[_Field]:
    cell = row.cell
    yield _Field("model", cell.model, "who", below=f"{cell.quantization}, {cell.workload}", tags=row.tags)
    yield _Field("engine", engine, "who", below=plain(cell.variant))
    yield _Field("device", device, "who", below=row.device.kind)
    for key in ("speed", "prefill", "memory", "energy"):
        title, metric, scale = _AXES[key]
        yield _figure(title, row.figure(metric), scale)
    quality = [f"{name.rpartition('.')[2]} {number(value)}" for name, value in row.quality.items()]
    yield _Field("quality", "; ".join(quality), "who", title=", ".join(row.quality))
    causes = ", ".join(cell.causes)
    believed, asked = cell.repetitions.believed, cell.repetitions.asked
    yield _Field(
        "verdict", cell.verdict, "good" if cell.verdict == "VALID" else "bad", below=causes or f"{believed} of {asked}"
    )
    yield _reproduced(row.tally)
    standing = row.source.standing
    signed_by = row.source.key
    signer = plain(row.source.signer) if standing is Standing.known else str(standing)
    yield _Field(
        "signer",
        signer,
        "who" if standing is Standing.known else "who none",
        below=row.source.entry.campaign.measured,
        title=signed_by.fingerprint if signed_by else "",
    )


def _figure(title: str, found: PublicFigure | None, scale: float) -> _Field:
    if found is None:
        return _Field(title, "–", "n none")
    around = f"{number(found.low * scale)}–{number(found.high * scale)}" if found.n > 1 else ""
    return _Field(title, number(found.median * scale), "n", below=around, title=f"n = {found.n}")


def _reproduced(tally: Reproductions) -> _Field:
    more = f"{tally.others} not counted" if tally.others else ""
    if not tally.tried:
        return _Field("reproduced", "not repeated", "none", below=more)
    tone = "bad" if tally.differs else "good" if tally.reproduced else "none"
    undecided = f"{tally.undecided} undecided" if tally.undecided else ""
    differs = f"differs for {tally.differs}" if tally.differs else ""
    below = ", ".join(filter(None, (differs, undecided, more)))
    return _Field("reproduced", f"by {tally.reproduced} of {tally.tried}", tone, below=below)


def _details(row: GalleryRow) -> Iterator[tuple[str, str]]:
    entry, cell = row.source.entry, row.cell
    if entry.bundle is not None:
        yield "bundle", f"{entry.bundle.sha256}, {entry.bundle.bytes:,} bytes"
    yield "record", f"{entry.campaign.record}, cell {cell.number}"
    if entry.replay is not None and cell.replay is not None:
        yield (
            "repeats",
            f"{entry.replay.record}, cell {cell.replay.number}: {cell.replay.verdict}, margin {entry.replay.margin:.0%}",
        )
    yield "model", cell.digests.model
    yield "runner", cell.digests.runner
    if cell.source is not None:
        yield "weights", plain(cell.source)
    said = {**entry.settings, **cell.settings, **entry.effective, **cell.effective}
    yield "settings", plain(", ".join(f"{name} {value}" for name, value in said.items()))
    yield "device", plain(", ".join(f"{name} {value}" for name, value in row.device.facts.items()))
    if row.device.calibration:
        yield "calibration", plain(json.dumps(row.device.calibration))
