"""Which campaigns, which devices, which cells; and what became of every cell."""

from __future__ import annotations

from meltrepro.report.cells import WHO, by_size, campaign_ids, campaign_number, ordered, software, who
from meltrepro.report.content import Content
from meltrepro.report.keys import DeviceKey, device_key
from meltrepro.report.results import CellResult, Device, State
from meltrepro.report.values import Absent, Column, Table, Tags, Value

_STATES: tuple[State, ...] = ("measured", "invalid", "failed", "skipped")
_NO_CELLS = "the campaigns of this report have no cells"


def campaigns(content: Content) -> Table:
    """Campaigns by number, with how many cells came to what."""
    known = {provenance.campaign: provenance for provenance in content.provenance}
    rows: list[tuple[Value, ...]] = []
    for number, id in enumerate(campaign_ids(content), 1):
        provenance = known.get(id)
        states = [cell.state for cell in content.results.cells if cell.campaign == id]
        rows.append(
            (
                number,
                content.results.names.get(id) or (provenance.name if provenance else ""),
                id,
                provenance.started if provenance else "",
                *(states.count(state) for state in _STATES),
            )
        )
    columns = (
        *(Column("campaign", "no.", "number"), Column("name", "name"), Column("id", "id")),
        *(Column("started_utc", "started (UTC)"), *(Column(state, state, "number") for state in _STATES)),
    )
    return Table("campaigns", "Campaigns", columns, tuple(rows), reason=None if rows else "no campaign was given")


def left_out(content: Content) -> tuple[Table, ...]:
    """Manifests of the study that could not be run, with the reasons; no table where there is no study."""
    if content.study is None:
        return ()
    entries = content.study.entries
    rows = tuple((entry.manifest, entry.reason) for entry in entries if entry.campaign is None)
    columns = (Column("manifest", "manifest"), Column("reason", "reason", "prose"))
    none = None if rows else "every manifest of the study was run"
    return (Table("left-out", "Left out", columns, rows, reason=none, gap="NOTHING"),)


def devices(content: Content) -> Table:
    """Every device that cells ran on, or should have."""
    found: dict[DeviceKey, Device] = {}
    for cell in ordered(content.results.cells):
        found.setdefault(device_key(cell.device), cell.device)
    columns = (
        *(Column("device", "device"), Column("kind", "kind"), Column("model", "hardware")),
        *(Column("memory_gb", "memory (GB)", "known"), Column("power_mode", "power mode")),
        *(Column("battery_mah", "battery (mAh)", "known"), Column("tags", "tags", "tags")),
    )
    rows = tuple(
        (
            content.title(device),
            device.kind,
            device.model,
            Absent("the device did not say") if device.memory_bytes is None else device.memory_bytes / 1e9,
            device.power_mode,
            device.battery_mah,
            Tags(("virtual",) if device.virtual else ()),
        )
        for device in found.values()
    )
    notes = ("Figures of virtual devices say nothing of real ones and are never in one row or series with them.",)
    return Table("devices", "Devices", columns, rows, notes if rows else (), None if rows else _NO_CELLS)


def coverage(content: Content) -> Table:
    """What became of every model in every place: the study's failures are results too."""
    cells = content.results.cells
    places = {_place(content, cell): None for cell in ordered(cells)}
    lines: dict[tuple[str, str, str], dict[tuple[str, str], list[CellResult]]] = {}
    for cell in by_size(cells):
        line = lines.setdefault((cell.model, cell.quantization, cell.workload), {})
        line.setdefault(_place(content, cell), []).append(cell)
    columns = (
        *(Column("model", "model"), Column("quantization", "quantization"), Column("workload", "workload")),
        *(Column(f"{device} / {program}", f"{device} · {program}") for device, program in places),
    )
    rows = tuple((*key, *(_outcome(content, line.get(place, [])) for place in places)) for key, line in lines.items())
    notes = ("An empty field: nobody asked for this cell.",) if rows else ()
    return Table("coverage", "Coverage", columns, rows, notes, None if rows else _NO_CELLS)


def _place(content: Content, cell: CellResult) -> tuple[str, str]:
    virtual = " (virtual)" if cell.device.virtual else ""
    return content.title(cell.device) + virtual, software(cell)


def _outcome(content: Content, cells: list[CellResult]) -> Value:
    """The best that became of a cell in any campaign."""
    if not cells:
        return None
    best = min(cells, key=lambda cell: (_STATES.index(cell.state), -campaign_number(content, cell.campaign)))
    if best.state == "measured":
        doubts = (doubt.partition(":")[0] for doubt in best.doubts)
        return ", ".join(["measured", *(["synthetic"] if best.synthetic else []), *doubts])
    return Absent(best.reason or "no reason given", best.state)


def _why(cell: CellResult) -> str:
    """The reason of a cell that was not measured, and what is to be known of its repetitions."""
    return "; ".join(dict.fromkeys(filter(None, (cell.reason, *cell.doubts))))


def cells(content: Content) -> Table:
    """Every cell with its state and reason."""
    rows = tuple((*who(content, cell), cell.state, _why(cell)) for cell in ordered(content.results.cells))
    columns = (*WHO, Column("state", "state"), Column("reason", "reason", "prose"))
    return Table("cells", "Every cell", columns, rows, reason=None if rows else _NO_CELLS, folded=True)
