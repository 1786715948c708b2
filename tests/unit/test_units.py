"""A metric's name says its unit, and wherever the metric is shown it is in that unit, or in the one that the heading names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meltrepro.cli.summary import _COLUMNS
from meltrepro.measure.metrics import METRICS
from meltrepro.measure.records import read_campaign
from meltrepro.replay.compare import compare
from meltrepro.replay.show import number, text
from meltrepro.report.comparison import html
from meltrepro.report.content import assemble, sections
from meltrepro.report.values import NUMERIC
from meltrepro.stats.equivalence import Design
from tests.support.campaigns import Cell, build_campaign

SUFFIXES = {
    "bytes_per_s": "bytes/s",
    "tps": "tokens/s",
    "ms": "ms",
    "s": "s",
    "us": "µs",
    "bytes": "bytes",
    "gb": "GB",
    "j": "J",
    "w": "W",
    "mah": "mAh",
    "mwh": "mWh",
    "c": "degC",
    "mhz": "MHz",
    "share": "share",
    "tokens": "tokens",
    "answers": "answers",
    "events": "1",
    "turns": "turns",
}
SCALED = {(1.0, "°C"): "degC", (1e-6, "MB"): "bytes"}
"""What columns may call a unit, by their scale."""


def unit_of(name: str) -> str | None:
    """The unit that a name ends with, the longest there is."""
    ends = [suffix for suffix in SUFFIXES if name == suffix or name.endswith(f"_{suffix}")]
    return SUFFIXES[max(ends, key=len)] if ends else None


@pytest.mark.parametrize("name", METRICS)
def test_a_name_ends_with_its_unit(name: str) -> None:
    assert unit_of(name) == METRICS[name].unit


def test_a_comparison_shows_each_metric_in_its_unit(tmp_path: Path) -> None:
    first, second = (read_campaign(build_campaign(tmp_path, [Cell("q4_0", 4000 + n)], number=n)) for n in range(2))
    found = compare(first, second, Design(), once=True)
    lines = {words[0]: words for line in text(found).splitlines() if (words := line.split()) and words[0] in METRICS}
    assert lines.keys() >= {"itl_p90_ms", "peak_memory_bytes", "load_s", "bandwidth_bytes_per_s"}
    for metric in found.cells[0].metrics:
        words = lines[metric.metric]
        assert words[1:3] == [number(metric.first), number(metric.second)]
        assert words[3:4] == [metric.unit]
    page = html([found])
    row = re.search(r">itl_p90_ms</td>\s*<td>(\w+)</td>", re.sub(r' (class|data-label)="[^"]*"', "", page))
    assert row is not None and row[1] == "ms"


@pytest.mark.parametrize("column", _COLUMNS, ids=lambda column: column.metric)
def test_the_console_names_the_unit(column: object) -> None:
    title, scale, metric = (getattr(column, name) for name in ("title", "scale", "metric"))
    shown = title.rsplit(" ", 1)[-1] if " " in title else title
    unit = METRICS[metric].unit
    assert (
        shown in (unit, f"{unit}/token")
        or SCALED.get((scale, shown)) == unit
        or (shown, unit) == ("tok/s", "tokens/s")
        or shown == "J/token"
    )


def test_every_number_of_a_report_names_the_unit_of_its_column(tmp_path: Path) -> None:
    content = assemble([read_campaign(build_campaign(tmp_path))])
    columns = [column for part in sections(content) for table in part.tables for column in table.columns]
    judged = 0
    for column in columns:
        unit, shown = unit_of(column.key), re.search(r"\((.*)\)$", column.title)
        if column.kind in NUMERIC and unit not in (None, "share", "tokens", "turns") and shown is not None:
            assert shown[1].split("/token")[0] in (unit, "°C" if unit == "degC" else unit), column
            judged += 1
    assert judged >= 10
