"""What a gate says of a change: which metrics of which cells got worse, as text, Markdown and JUnit's XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from meltrepro.measure.metrics import METRICS
from meltrepro.measure.records import CampaignRecord, CellRecord
from meltrepro.replay.compare import CellComparison, Comparison, MetricComparison
from meltrepro.replay.context import DEVICE, Difference, differences
from meltrepro.replay.show import doubts, number, tokens_in_words
from meltrepro.stats.equivalence import ReplayVerdict
from meltrepro.words import visible

_OF_GATES = ("protocol.repetitions", "protocol.order")
"""What gates decide by themselves."""


class Gate(StrEnum):
    """What became of a metric."""

    worse = "worse"
    better = "better"
    same = "same"
    undecided = "undecided"


@dataclass(frozen=True)
class GatedMetric:
    """One metric of one cell, before and after."""

    cell: str
    metric: str
    unit: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    gate: Gate
    why: str


@dataclass(frozen=True)
class GateResult:
    """All of them, and what else must be known."""

    margin: float
    metrics: tuple[GatedMetric, ...]
    remarks: tuple[str, ...]
    """Cells that were not compared or whose figures are not believed, and other tokens than before."""
    uncompared: bool
    """Whether there is any such cell."""

    def of(self, gate: Gate) -> tuple[GatedMetric, ...]:
        return tuple(each for each in self.metrics if each.gate is gate)

    @property
    def worse(self) -> bool:
        return bool(self.of(Gate.worse))

    @property
    def undecided(self) -> bool:
        """Whether anything was asked and not answered."""
        return bool(self.of(Gate.undecided)) or self.uncompared or not self.metrics


def changed_settings(recorded: CampaignRecord, campaign: CampaignRecord) -> tuple[str, ...]:
    """By cell what is asked otherwise than it was recorded: recorded artifacts, too, then run with the settings of today."""
    old = {cell.id: _settings(cell) for cell in recorded.cells}
    changed = {cell.id: differences(old[cell.id], _settings(cell)) for cell in campaign.cells if cell.id in old}
    return tuple(
        f"{cell}: changed since {recorded.id}, and both sides ran with today's: "
        + ", ".join(f"{each.name} {each.first} -> {each.second}" for each in _told(found))
        for cell, found in changed.items()
        if found
    )


def _told(found: Sequence[Difference]) -> Sequence[Difference]:
    """The digest of what is asked follows from other settings, except where prompts alone were changed."""
    return [each for each in found if each.name != "request_digest"] or found


def _settings(cell: CellRecord) -> dict[str, object]:
    asked = cell.entry.params.items()
    return {name: value for name, value in asked if not name.startswith(DEVICE) and name not in _OF_GATES}


def judged(comparison: Comparison, missing: tuple[str, ...] = (), changed: tuple[str, ...] = ()) -> GateResult:
    """What a comparison says of a change.

    `missing` are the cells that nothing was compared with, `changed` what is known of settings (`changed_settings`).
    """
    metrics = tuple(
        _judged(cell, metric) for cell in comparison.cells for metric in cell.metrics if metric.decision is not None
    )
    remarks = [
        *changed,
        *(f"{cell}: not compared: the other side has no such cell that could run here" for cell in missing),
    ]
    for cell in comparison.cells:
        remarks += [f"{cell.cell}: {doubt}" for doubt in doubts(cell)]
        if cell.tokens is not None and not cell.tokens.exact:
            remarks.append(f"{cell.cell}: other tokens than before: {tokens_in_words(cell)}")
    uncompared = bool(missing) or any(cell.invalid for cell in comparison.cells)
    return GateResult(comparison.margin, metrics, tuple(remarks), uncompared)


def _judged(cell: CellComparison, metric: MetricComparison) -> GatedMetric:
    decision = metric.decision
    assert decision is not None
    gate = Gate.undecided
    if decision.verdict is ReplayVerdict.reproduced:
        gate = Gate.same
    elif decision.verdict is ReplayVerdict.differs:
        lower = METRICS[metric.metric].better == "lower"
        gate = Gate.worse if (decision.ratio > 1) is lower else Gate.better
    values = (metric.first, metric.second, decision.ratio, decision.low, decision.high)
    return GatedMetric(cell.cell, metric.metric, metric.unit, *values, gate, decision.reason)


def headline(result: GateResult) -> str:
    """What came out, in one line."""
    counts = [f"{len(found)} {gate}" for gate in Gate if (found := result.of(gate))]
    said = f"margin {result.margin:.0%}: {', '.join(counts) or 'nothing was compared'}"
    return f"{said}; {len(result.remarks)} to know" if result.remarks else said


def text(result: GateResult) -> Iterator[str]:
    """For a terminal or a log."""
    for cell in dict.fromkeys(each.cell for each in result.metrics):
        yield cell
        for each in (each for each in result.metrics if each.cell == cell):
            unit = "" if each.unit == "1" else each.unit
            values = f"{number(each.before):>12} {number(each.after):>12} {unit:8}"
            yield f"  {each.gate:10}{each.metric:20} {values} ratio {_interval(each)}"
    yield from result.remarks
    yield headline(result)


def markdown(result: GateResult) -> str:
    """The summary of a job: GitHub and GitLab show it."""
    rows = [
        f"| {_cell(each.cell)} | {each.metric} | {number(each.before)} | {number(each.after)} | {_interval(each)} | "
        f"{'**worse**' if each.gate is Gate.worse else each.gate} |"
        for each in result.metrics
    ]
    table = ["| cell | metric | before | after | ratio | |", "| --- | --- | ---: | ---: | ---: | --- |", *rows]
    remarks = [f"- {_cell(remark)}" for remark in result.remarks]
    return "\n".join(["### meltrepro gate", "", headline(result), "", *table, "", *remarks]).rstrip() + "\n"


def junit(result: GateResult) -> bytes:
    """JUnit's XML: a suite a cell, a case a metric; what is undecided was skipped."""
    root = ET.Element("testsuites", name="meltrepro gate")
    for cell in dict.fromkeys(each.cell for each in result.metrics):
        cases = [each for each in result.metrics if each.cell == cell]
        counts = {"tests": len(cases), "failures": sum(each.gate is Gate.worse for each in cases), "errors": 0}
        skipped = sum(each.gate is Gate.undecided for each in cases)
        attributes = {name: str(count) for name, count in (counts | {"skipped": skipped}).items()}
        suite = ET.SubElement(root, "testsuite", {"name": _plain(cell), **attributes})
        for each in cases:
            case = ET.SubElement(suite, "testcase", classname=_plain(cell), name=each.metric)
            said = f"{number(each.before)} -> {number(each.after)} {each.unit}, ratio {_interval(each)}: {each.why}"
            if each.gate is Gate.worse:
                ET.SubElement(case, "failure", message=_plain(said))
            elif each.gate is Gate.undecided:
                ET.SubElement(case, "skipped", message=_plain(said))
            else:
                ET.SubElement(case, "system-out").text = _plain(f"{each.gate}: {said}")
    if result.remarks:
        suite = ET.SubElement(root, "testsuite", name="remarks", tests="0", failures="0", errors="0", skipped="0")
        ET.SubElement(suite, "system-out").text = _plain("\n".join(result.remarks))
    ET.indent(root)
    found: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return found + b"\n"


def _interval(each: GatedMetric) -> str:
    return f"{each.ratio:.3f} [{each.low:.3f}, {each.high:.3f}]"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """Without what XML and a terminal cannot show: names of cells may come from a stranger's record."""
    return "\n".join(visible(line) for line in text.splitlines())
