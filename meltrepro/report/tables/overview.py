"""What was run: campaigns, devices, cells and what became of each; by digest; and how to check and repeat it."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence

from meltrepro.manifest.protocol import LIMITS, Limits
from meltrepro.measure.metrics import METRICS
from meltrepro.measure.validity import BUSY
from meltrepro.record.campaign import CampaignDocument, CellEntry
from meltrepro.record.study import StudyDocument
from meltrepro.record.trace import text_of
from meltrepro.report.cells import WHO, by_size, ordered, software, who
from meltrepro.report.results import STATES, CellResult, Device, DeviceKey, Results
from meltrepro.report.tables.measurements import ENERGIES
from meltrepro.report.values import Absent, Column, Table, Tags, Value, Word, named

_NO_SOURCE = hashlib.sha256(b"{}").hexdigest()
"""The digest of the sources of a release that has none."""
_NO_CELLS = "the campaigns of this report have no cells"
SHOWN = (
    *("prefill_tps", "generation_tps", "ttft_ms", "load_s", "peak_memory_bytes", *ENERGIES, "charge_per_token_mah"),
    *("idle_power_w", "prefill_power_w", "generation_power_w", "temperature_start_c", "temperature_max_c"),
    *("time_per_right_answer_s", "energy_per_right_answer_j"),
)
"""Metrics whose values stand in the report."""


def campaigns(results: Results, documents: Sequence[CampaignDocument]) -> Table:
    """Campaigns by number, with how many cells came to what."""
    started = {one.id: one.started_wall_ns // 10**9 for one in documents}
    rows: list[tuple[Value, ...]] = []
    for id, name in results.names.items():
        states = [cell.state for cell in results.cells if cell.campaign == id]
        at = f"{datetime.datetime.fromtimestamp(started[id], datetime.UTC):%Y-%m-%d %H:%M:%S}" if id in started else ""
        rows.append((results.number(id), name, id, at, *(states.count(state) for state in STATES)))
    columns = (
        *(Column("campaign", "no.", "number"), Column("name", "name"), Column("id", "id")),
        *(Column("started_utc", "started (UTC)"), *(Column(state, state, "number") for state in STATES)),
    )
    return Table("campaigns", "Campaigns", columns, tuple(rows), reason=None if rows else "no campaign was given")


def left_out(study: StudyDocument | None) -> tuple[Table, ...]:
    """Manifests of a study that could not be run, with the reasons; no table where there is no study."""
    if study is None:
        return ()
    rows = tuple((entry.manifest, entry.reason) for entry in study.entries if entry.campaign is None)
    columns = (Column("manifest", "manifest"), Column("reason", "reason", "prose"))
    none = None if rows else "every manifest of the study was run"
    return (Table("left-out", "Left out", columns, rows, reason=none, gap="NOTHING"),)


def devices(results: Results) -> Table:
    """Every device that cells ran on, or should have."""
    found: dict[DeviceKey, Device] = {}
    for cell in ordered(results.cells):
        found.setdefault(cell.device.key, cell.device)
    columns = (
        *(Column("device", "device"), Column("kind", "kind"), Column("model", "hardware")),
        *(Column("memory_gb", "memory (GB)", "known"), Column("power_mode", "power mode")),
        *(Column("battery_mah", "battery (mAh)", "known"), Column("tags", "tags", "tags")),
    )
    rows = tuple(
        (
            results.title(device),
            device.kind,
            device.model,
            Absent("the device did not say") if device.memory_bytes is None else device.memory_bytes / 1e9,
            device.power_mode,
            device.battery_mah,
            Tags(("virtual",) if device.virtual else ()),
        )
        for device in found.values()
    )
    note = "Figures of virtual devices say nothing of real ones and are never in one row or series with them."
    notes = (note,) if any(device.virtual for device in found.values()) else ()
    return Table("devices", "Devices", columns, rows, notes, None if rows else _NO_CELLS)


def options(results: Results) -> Table:
    """What manifests set: each option once for all cells that share its value."""
    cells = [cell for cell in ordered(results.cells) if cell.options]
    known = dict.fromkeys(name for cell in cells for name in cell.options)
    rows: list[tuple[Value, ...]] = []
    for name in known:
        values: dict[str, list[str]] = {}
        for cell in cells:
            if name in cell.options:
                values.setdefault(text_of(cell.options[name]), []).append(cell.cell)
        for value, ids in values.items():
            which = list(dict.fromkeys(ids))
            rows.append((name, value, "all" if len(ids) == len(cells) else ", ".join(which)))
    columns = (*named("option", "value"), Column("cells", "cells", "prose"))
    reason = None if rows else "no cell of these campaigns has run"
    return Table("options", "What the manifests set", columns, tuple(rows), reason=reason, folded=bool(rows))


def limits(results: Results) -> str:
    """By which limits cells were judged: which of them are not the defaults."""
    found: dict[str, dict[int, None]] = {}
    for cell in results.cells:
        for path, value in cell.options.items():
            if path.startswith(f"{LIMITS}."):
                found.setdefault(_limit(path.removeprefix(f"{LIMITS}."), value), {})[results.number(cell.campaign)] = (
                    None
                )
    if not found:
        return "No limit of validity was changed from its default."
    some = len(results.names) > 1
    told = [
        f"{limit} in campaign {', '.join(map(str, sorted(where)))}" if some else limit for limit, where in found.items()
    ]
    return f"Limits of validity that were changed: {'; '.join(told)}."


def _limit(name: str, value: str | int | float) -> str:
    usual = BUSY if name == "cpu_pressure" else getattr(Limits(), name, None)
    before = "not judged by default" if usual is None else f"default {text_of(usual)}"
    return f"{name} {'is not judged' if value == 'null' else text_of(value)} ({before})"


def coverage(results: Results) -> Table:
    """What became of every model in every place: the study's failures are results too."""
    cells = results.cells
    places = {_place(results, cell): None for cell in ordered(cells)}
    lines: dict[tuple[str, str, str], dict[tuple[str, str], list[CellResult]]] = {}
    for cell in by_size(cells):
        line = lines.setdefault((cell.model, cell.quantization, cell.workload), {})
        line.setdefault(_place(results, cell), []).append(cell)
    where = (Column(f"{device} / {program}", f"{device} · {program}") for device, program in places)
    columns = (*named("model", "quantization", "workload"), *where)
    rows = tuple((*key, *(_outcome(results, line.get(place, [])) for place in places)) for key, line in lines.items())
    notes = ("An empty field: nobody asked for this cell.",) if rows else ()
    return Table("coverage", "Coverage", columns, rows, notes, None if rows else _NO_CELLS)


def _place(results: Results, cell: CellResult) -> tuple[str, str]:
    virtual = " (virtual)" if cell.device.virtual else ""
    return results.title(cell.device) + virtual, software(cell)


def _outcome(results: Results, cells: list[CellResult]) -> Value:
    """The best that became of a cell in any campaign."""
    if not cells:
        return None
    best = min(cells, key=lambda cell: (STATES.index(cell.state), -results.number(cell.campaign)))
    if best.state == "measured":
        besides = (*(["synthetic"] if best.synthetic else []), *(one.count for one in best.exclusions))
        return Word(", ".join(["measured", *besides]), "good")
    return Absent(best.reason or "no reason given", best.state)


def _state(cell: CellResult) -> Value:
    return Word("measured", "good") if cell.state == "measured" else cell.state


def _why(cell: CellResult) -> str:
    """The reason of a cell that was not measured, and what is to be known of its repetitions."""
    return "; ".join(dict.fromkeys(filter(None, (cell.reason, *map(str, cell.exclusions), *cell.remarks))))


def cells(results: Results) -> Table:
    """Every cell with its state and reason."""
    rows = tuple((*who(results, cell), _state(cell), _why(cell)) for cell in ordered(results.cells))
    columns = (*WHO, Column("state", "state"), Column("reason", "reason", "prose"))
    return Table("cells", "Every cell", columns, rows, reason=None if rows else _NO_CELLS, folded=True)


def how_run(documents: Sequence[CampaignDocument]) -> Table:
    """How each campaign was run."""
    columns = (
        *(Column("campaign", "campaign", "number"), Column("version", "meltrepro"), Column("engine", "engine")),
        *(Column("seed", "seed", "number"), Column("order", "order")),
        *(Column("manifest", "manifest", "digest"), Column("plan", "plan", "digest")),
    )
    rows = tuple(
        (number, one.meltrepro_version, one.engine, one.seed, one.order, one.manifest_digest, one.plan_digest)
        for number, one in enumerate(documents, 1)
    )
    reason = None if rows else "no campaign was given"
    return Table("campaign-digests", "How campaigns were run", columns, rows, reason=reason)


def digests(documents: Sequence[CampaignDocument]) -> Table:
    """sha256 of everything that cells ran."""
    columns = (
        *(
            Column("campaign", "campaign", "number"),
            Column("cell", "cell"),
            Column("framework", "framework"),
            Column("release", "release"),
        ),
        *(Column("commit", "commit", "digest"), Column("isa", "variant"), Column("model", "model", "digest")),
        *(Column("bundle", "runner bundle", "digest"), Column("runner", "runner", "digest")),
        Column("source", "framework's source", "digest"),
    )
    rows = tuple(
        (
            *(number, cell.id, cell.framework_kind, cell.release, cell.commit, cell.isa),
            *(cell.model_digest, cell.bundle_digest, cell.runner_digest, _source(cell)),
        )
        for number, one in enumerate(documents, 1)
        for cell in one.cells
    )
    reason = None if rows else _NO_CELLS
    return Table("cell-digests", "What cells ran (sha256)", columns, rows, reason=reason, folded=bool(rows))


def _source(cell: CellEntry) -> Value:
    """The digest of what a framework was built from; the programs of some releases are taken as they were published."""
    if cell.source_digest != _NO_SOURCE:
        return cell.source_digest
    return Absent(
        f"{cell.framework} {cell.release} (commit {cell.commit[:12]}) is taken as its programs were published"
    )


def ran_as(results: Results) -> Table:
    """How the kernel treated runners, and what engines made of requests."""
    cells = [cell for cell in ordered(results.cells) if cell.ran_as]
    known = dict.fromkeys(name for cell in cells for name in cell.ran_as)
    columns = (*WHO, *(Column(name, name, "prose") for name in known))
    rows = tuple((*who(results, cell), *(_told(cell, name) for name in known)) for cell in cells)
    none = None if rows else "no runner of these campaigns says so"
    return Table("ran-as", "How runners ran", columns, rows, reason=none, folded=bool(rows))


def _told(cell: CellResult, name: str) -> str:
    return text_of(cell.ran_as[name]) if name in cell.ran_as else ""


def definitions() -> Table:
    """What the metrics of this report mean."""
    prose = (Column(key, key, "prose") for key in ("meaning", "formula"))
    columns = (*named("metric", "unit"), *prose)
    found = [METRICS[name] for name in SHOWN]
    rows = tuple((one.name, one.unit, one.meaning, one.formula) for one in found)
    return Table("definitions", "Definitions", columns, rows, folded=True)


def commands(documents: Sequence[CampaignDocument], study: StudyDocument | None) -> tuple[str, ...]:
    """What to type to check and to repeat this report."""
    ids = [one.id for one in documents]
    if not ids:
        return ()
    what = study.name if study else " ".join(ids)
    return (f"meltrepro report --from-records {what} -o FOLDER", *(f"meltrepro replay {id}" for id in ids))
