"""What surrounded trials: a busy machine makes them INVALID at any number, what only changes figures is said everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltrepro.campaign import gates
from meltrepro.campaign.conduct import tell_busy
from meltrepro.cli.console import describe
from meltrepro.manifest.protocol import Limits
from meltrepro.measure.metrics import Metrics, compute
from meltrepro.measure.records import read_campaign
from meltrepro.measure.surroundings import cpus_of, remarks
from meltrepro.measure.validity import BUSY, Reason, judge_trial
from meltrepro.record import trial as record
from meltrepro.record.campaign import CAMPAIGN
from meltrepro.record.events import parse_trace
from meltrepro.report.content import assemble, sections
from meltrepro.steps import Step
from meltrepro.targets.base import DeviceState
from meltrepro.track import content, notes
from tests.support.campaigns import Cell, Trial, as_lines, build_campaign, events
from tests.unit.test_results_table import shown


def judged(pressure: float | None, *, cpus: int | None, limit: float | None = None, threads: int = 2) -> list[str]:
    trace = parse_trace(as_lines(events(Trial())))
    trace = replace(trace, context=replace(trace.context, threads=threads))
    values = {} if pressure is None else {"cpu_pressure_share": pressure}
    metrics = replace(compute(trace), values={**compute(trace).values, **values})
    found = judge_trial(trace, metrics, None, Limits(cpu_pressure=limit), cpus=cpus).findings
    return [flaw.reason for flaw in found]


@pytest.mark.parametrize(
    ("pressure", "more", "invalid"),
    [
        (0.93, {"cpus": 2}, True),
        (0.93, {"cpus": None}, True),
        (BUSY, {"cpus": 2}, False),
        (0.05, {"cpus": 2}, False),
        (None, {"cpus": 2}, False),
        (0.93, {"cpus": 1}, False),  # its own threads wait for each other
        (0.93, {"cpus": 2, "limit": 1.0}, False),
        (0.2, {"cpus": 2, "limit": 0.1}, True),
    ],
)
def test_a_busy_machine_is_seen_in_a_single_trial(pressure: float | None, more: dict[str, Any], invalid: bool) -> None:
    assert judged(pressure, **more) == ([Reason.cpu_pressure] if invalid else [])


@pytest.mark.parametrize(
    ("said", "cores", "cpus"),
    [
        ({"process.cpus": "0-1"}, 64, 2),
        ({"process.cpus": "0,2-3,7"}, 64, 4),
        ({"process.cpus": "5"}, None, 1),
        ({"process.cpus": "all"}, 8, 8),
        ({"process.cpus": "1-2-3"}, 8, 8),
        ({}, 8, 8),
        ({}, "8", None),
        ({}, 0, None),
    ],
)
def test_how_many_cpus_a_runner_could_use(said: dict[str, Any], cores: object, cpus: int | None) -> None:
    assert cpus_of(said, cores) == cpus


@pytest.mark.parametrize(
    ("ran_as", "values", "remark"),
    [
        ({}, {"cpu_steal_share": 0.042}, "a hypervisor gave up to 4.2% of the CPUs' time to others"),
        ({"process.nice": 5}, {}, "niceness 5"),
        ({"process.nice": -5}, {}, "niceness -5"),
        ({"process.scheduler": "batch"}, {}, "scheduled as batch"),
        ({"process.nice": 0, "process.scheduler": "other"}, {"cpu_steal_share": 0.004}, None),
    ],
)
def test_what_changes_a_figure_is_a_remark(
    ran_as: dict[str, Any], values: dict[str, float], remark: str | None
) -> None:
    found = list(remarks(ran_as, {}, [Metrics({}, {}), Metrics(values, {})]))
    assert found == [] if remark is None else len(found) == 1 and remark in found[0]


def test_pressure_that_cannot_be_seen_is_not_judged_and_said() -> None:
    unseen = Metrics(
        {"sampler_overhead_share": 0.001}, {"cpu_pressure_share": "the device has no pressure.cpu to sample"}
    )
    assert list(remarks({}, {}, [unseen])) == [
        "whether anything else kept the CPUs busy is not judged: the device has no pressure.cpu to sample"
    ]


def test_remarks_are_shown_wherever_the_cell_is(tmp_path: Path) -> None:
    trial = Trial(process={"nice": 7, "cpus": "0"}, effective={"flash_attention": "on", "mmap": True})
    folder = build_campaign(tmp_path, [Cell("q4_0", trial=trial), Cell("q8_0", trial=trial)], repetitions=2)
    campaign = read_campaign(folder)
    lines = shown(folder).splitlines()
    assert "all cells: 2 repetitions: too few to judge" in lines
    assert any(line.startswith("all cells: the runner ran at niceness 7") for line in lines)
    assert any("more threads than its 1 CPU" in line for line in lines)
    assert "all cells: used flash_attention on, mmap true" in lines
    cell = campaign.cells[0]
    how = content.status_of(campaign, cell)
    tags = content.cell_tags(campaign, cell, how, "host")
    assert "too few to judge" in tags["meltrepro.remarks"] and "- 2 repetitions: too few" in notes.cell_note(cell, how)
    params = content.ran_params(cell)
    assert (params["effective.flash_attention"], params["process.nice"]) == ("on", "7")
    tables = {table.name: table for part in sections(assemble([campaign])) for table in part.tables}
    assert "too few to judge" in str(tables["throughput"].rows[0])
    assert "niceness 7" in str(tables["cells"].rows[0])
    assert "on" in tables["ran-as"].rows[0]


@pytest.mark.parametrize(
    ("calibration", "virtual", "told"), [("none", False, True), ("none", True, False), ("4 sessions", False, False)]
)
def test_a_device_of_which_nobody_knows_how_steady_it_is(
    tmp_path: Path, calibration: str, virtual: bool, told: bool
) -> None:
    folder = build_campaign(tmp_path, [Cell("q4_0")], virtual=virtual)
    place = folder / CAMPAIGN
    said = place.read_text().replace('"threads": 2', f'"threads": 2, "device.calibration": "{calibration}"')
    place.write_text(said)
    remark = "how much two sessions of host differ is not known: meltrepro calibrate host"
    assert (remark in read_campaign(folder).cells[0].remarks) is told
    assert (remark in shown(folder)) is told


def test_repetitions_that_ran_unlike_are_told_apart(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell("q4_0", trial=Trial(process={"nice": 0}))])
    place = read_campaign(folder).cells[0].repetitions[1].folder / record.EVENTS
    place.write_bytes(place.read_bytes().replace(b'"nice": 0', b'"nice": 3'))
    assert "repetitions differ in process.nice: 0 and 3" in read_campaign(folder).cells[0].remarks


@pytest.mark.parametrize(("repetitions", "few"), [(1, True), (2, True), (3, False)])
def test_a_result_of_fewer_than_three_says_so(tmp_path: Path, repetitions: int, few: bool) -> None:
    folder = build_campaign(tmp_path, repetitions=repetitions)
    campaign = read_campaign(folder)
    assert ("too few to judge" in shown(folder)) is few
    assert campaign.cells[0].too_few is few
    rows = {table.name: table for part in sections(assemble([campaign])) for table in part.tables}["throughput"].rows
    assert ("too few to judge" in str(rows)) is few


# -- before the first trial ---------------------------------------------------------------------------------------


class Looked:
    """A device that was looked at twice, half a second apart."""

    def __init__(self, idle_s: float | None) -> None:
        second = None if idle_s is None else 100 + idle_s
        self._states = [self._at(0, None if idle_s is None else 100.0), self._at(0.5, second)]

    def _at(self, seconds: float, idle_s: float | None) -> DeviceState:
        return DeviceState(wall_ns=0, monotonic_ns=round(seconds * 1e9), cpu_idle_s=idle_s)

    def state(self) -> DeviceState:
        return self._states.pop(0)


@pytest.mark.parametrize(
    ("idle_s", "threads", "said"),
    [
        (0.0, 2, "others keep 2.0 of 2 CPUs busy; trials of 2 threads will wait"),
        (0.5, 2, "others keep 1.0 of 2 CPUs busy"),
        (0.5, 1, None),  # there is a CPU left
        (0.98, 2, None),
        (0.0, 64, "others keep 2.0"),
        (None, 2, None),
    ],
)
def test_a_busy_device_is_said_before_the_first_trial(
    monkeypatch: pytest.MonkeyPatch, idle_s: float | None, threads: int, said: str | None
) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("meltrepro.campaign.conduct.LOOK_S", 0.0)
    run = SimpleNamespace(
        target=Looked(idle_s),
        facts=SimpleNamespace(id="host-1", cores=2),
        request=SimpleNamespace(threads=threads),
    )
    steps: list[Step] = []
    tell_busy({"m/q/f/here/w": run}, steps.append)  # type: ignore[dict-item]
    lines = [describe(step) for step in steps]
    assert (
        lines == [] if said is None else len(lines) == 1 and said in str(lines[0]) and str(lines[0]).startswith("here")
    )


def test_what_is_used_between_two_looks() -> None:
    before, now = Looked(0.25)._states
    assert gates.busy_cores(before, now, 2) == pytest.approx(1.5)
    assert gates.busy_cores(before, before, 2) is None
