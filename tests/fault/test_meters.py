"""External meters that fail in every way: each ends in a reason of its own, and the trial's other figures stay."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltrepro.campaign.conduct import CampaignResult
from meltrepro.campaign.meter import FileMeter
from meltrepro.errors import StoreError
from meltrepro.manifest.meters import Meter
from meltrepro.manifest.protocol import Want
from meltrepro.measure.records import CellRecord, read_campaign
from meltrepro.record import trial as record
from meltrepro.targets.host.target import HostTarget
from tests.fault import rig
from tests.fault.test_store_faults import mounted, root_only

ONCE = {"repetitions": 1, "warmups": 0, "timeout_s": 20, "retries": 0, "idle_s": 0.1}
PERIOD_S = 0.01
Row = Callable[[int], str | None]
"""Text of the n-th value; `None` ends the meter."""


def watts(n: int) -> str:
    return f"{5 + (n % 7) / 100:.3f}"


@contextmanager
def meter(path: Path, row: Row = watts, stamp: str = "{:.6f}") -> Iterator[None]:
    """A program that writes Unix time and a value every 10 ms, until the block ends."""
    stop = threading.Event()
    path.write_text("time,power\n")

    def write() -> None:
        n = 0
        with path.open("a", buffering=1) as file:
            while not stop.wait(PERIOD_S):
                stamped = stamp.format(time.time())
                value = row(n)
                if value is None:
                    return
                file.write(f"{stamped},{value}\n")
                n += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def campaign(
    folder: Path, *, required: bool = False, protocol: dict[str, Any] = ONCE, **changes: Any
) -> CampaignResult:
    """One trial with half a second of generation beside a meter."""
    setup = rig.make_setup(folder, rig.Spec({"c": "pace 300"}, protocol))
    wanted = {"file": "power.csv", "time": "time", "clock": "host", "columns": {"power": "W"}, "linger_s": 0.3}
    entry = Meter.model_validate({**wanted, **changes})
    if required:
        manifest = setup.plan.manifest
        measure = manifest.measure.model_copy(update={"energy": Want.required})
        setup = rig.with_manifest(setup, manifest.model_copy(update={"measure": measure}))
    return rig.run_setup(folder, replace(setup, meters={"host": FileMeter(folder / "power.csv", entry)}))


def test_a_file_that_was_recorded_as_a_whole_gives_what_one_that_grows_does(tmp_path: Path) -> None:
    """At rest is the device from the trial's start on: what it did before is left out, however long the rest."""
    now = time.time()
    rows = (f"{now - 60 + i / 100:.6f},{99 if i < 5900 else watts(i)}\n" for i in range(12_000))
    (tmp_path / "power.csv").write_text("time,power\n" + "".join(rows))
    found = cell(campaign(tmp_path, protocol={**ONCE, "idle_s": 6}))
    assert found.validity.valid, found.validity
    (trial,) = found.repetitions
    assert trial.metrics.values["idle_power_w"] == pytest.approx(5.03, rel=0.01)
    (recording,) = trial.recordings()
    times = recording.series[0].t_ns
    hello = trial.trace().hello.t_ns
    assert 6 <= (hello - times[0]) / 1e9 < 20, "from the trial's start on"
    assert (times[-1] - trial.trace().done_ns) / 1e9 == pytest.approx(5, abs=0.1)


def cell(result: CampaignResult) -> CellRecord:
    (found,) = read_campaign(result.campaign.folder).cells
    return found


def test_a_meter_that_works(tmp_path: Path) -> None:
    with meter(tmp_path / "power.csv"):
        found = cell(campaign(tmp_path, required=True))
    assert found.validity.valid, found.validity
    (trial,) = found.repetitions
    assert trial.metrics.values["generation_energy_j"] == pytest.approx(5.03 * 0.6, rel=0.1)
    assert 0 < trial.metrics.bounds["generation_energy_j"] < 0.2
    assert {record.METER, record.CLOCKS} <= set(trial.outcome.files)
    (recording,) = trial.recordings()
    begin, end = trial.trace().hello.t_ns, trial.trace().done_ns
    assert recording.series[0].t_ns[0] < begin and recording.series[0].t_ns[-1] > end


@pytest.mark.parametrize(
    ("content", "changes", "reason"),
    [
        (None, {}, "meter-error: the meter's file "),
        ("", {}, "meter-error: "),
        ("time,volts\n1,2\n2,3\n", {}, "missing are 'power', found was 'time', 'volts'"),
        ("time,power\n", {}, "fewer than two samples"),
        (
            "time,power\n1,2\n2,3\n",
            {},
            "did not grow while the trial ran, and none of its samples is of the trial's time",
        ),
        ("time,power\n1,x\n2,y\n", {}, "power.csv: expected numbers, no row has one in 'power'; name the columns"),
        ("time,power\n1,2\n2,3\n1,3\n", {}, "power.csv:4: the time does not increase"),
    ],
)
def test_a_file_that_cannot_be_used_fails_the_trial(
    tmp_path: Path, content: str | None, changes: dict[str, Any], reason: str
) -> None:
    if content is not None:
        (tmp_path / "power.csv").write_text(content)
    result = campaign(tmp_path, **changes)
    ((_, failure),) = result.tally.failed
    said = str(failure)
    assert said.startswith("meter-error: ")
    assert reason in said
    verdict = cell(result).validity
    assert [finding.reason for finding in verdict.findings] == ["meter-error"]


@pytest.mark.parametrize(
    ("row", "changes", "reason", "detail"),
    [
        (lambda n: watts(n) if n % 20 else "OVERLOAD", {}, "faulty-sensor", "meter.power not_a_number: 'OVERLOAD'"),
        (lambda n: "5.000", {"linger_s": 1}, "faulty-sensor", "meter.power stuck: the same value for "),
    ],
)
def test_a_sensor_that_lies_makes_the_trial_invalid(
    tmp_path: Path, row: Row, changes: dict[str, Any], reason: str, detail: str
) -> None:
    with meter(tmp_path / "power.csv", row):
        found = cell(campaign(tmp_path, **changes))
    first = next(finding for finding in found.validity.findings if finding.reason == reason)
    assert detail in first.detail
    assert "generation_tps" in found.repetitions[0].metrics.values, "what the meter did not touch is still there"
    assert found.summaries == {}, "but in no summary"


@pytest.mark.parametrize(
    "changes", [{"clock": "device"}, {"time_unit": "ms"}], ids=["of another clock", "of another unit"]
)
def test_times_that_are_none_of_the_trials(tmp_path: Path, changes: dict[str, Any]) -> None:
    with meter(tmp_path / "power.csv"):
        result = campaign(tmp_path, **changes)
    ((_, failure),) = result.tally.failed
    said = str(failure)
    assert said.startswith("meter-error: ")
    assert "none of its samples is of the trial's time; are targets.NAME.meter.clock and time_unit right?" in said


def test_a_meter_that_dies_while_the_runner_runs(tmp_path: Path) -> None:
    def until_the_second_token(n: int) -> str | None:
        said = "".join(path.read_text() for path in tmp_path.rglob("events.jsonl"))
        return None if said.count('"token"') == 2 else watts(n)

    with meter(tmp_path / "power.csv", until_the_second_token):
        found = cell(campaign(tmp_path))
    (finding,) = found.validity.findings
    assert finding.reason == "missing-samples" and "meter.power has " in finding.detail


def test_a_meter_that_died_before_the_runner_began(tmp_path: Path) -> None:
    with meter(tmp_path / "power.csv", lambda n: watts(n) if n < 5 else None):
        result = campaign(tmp_path)
    ((_, failure),) = result.tally.failed
    said = str(failure)
    assert "none of its samples is of the trial's time" in said


def test_a_column_without_a_number(tmp_path: Path) -> None:
    with meter(tmp_path / "power.csv", lambda n: "OVERLOAD"):
        result = campaign(tmp_path)
    ((_, failure),) = result.tally.failed
    said = str(failure)
    assert "expected numbers, no row has one in 'power'" in said


@pytest.mark.parametrize("keep", [False, True], ids=["begun anew", "rewritten whole"])
def test_a_file_that_is_another_one_when_the_trial_ends(tmp_path: Path, keep: bool) -> None:
    """What there is of the trial's time is taken, from the beginning of a row."""
    path = tmp_path / "power.csv"
    stop = threading.Event()

    def write() -> None:
        rows: list[str] = []
        while not stop.wait(PERIOD_S):
            rows.append(f"{time.time():.6f},{watts(len(rows))}\n")
            shown = rows if keep else rows[-20:]
            whole = tmp_path / "power.new"
            whole.write_text(f"# {'rows' * (len(rows) % 9)}\ntime,power\n" + "".join(shown))
            whole.replace(path)

    path.write_text("time,power\n")
    thread = threading.Thread(target=write)
    thread.start()
    try:
        found = cell(campaign(tmp_path))
    finally:
        stop.set()
        thread.join()
    reasons = [finding.reason for finding in found.validity.findings]
    assert reasons == ([] if keep else ["meter-error"]), found.validity


@pytest.mark.parametrize(("unit", "text"), [("mW", "0.00506 W at most"), ("Wh", "the counter")])
def test_a_unit_that_is_wrong_gives_no_energy(tmp_path: Path, unit: str, text: str) -> None:
    with meter(tmp_path / "power.csv"):
        result = campaign(tmp_path, required=True, columns={"power": unit})
    ((_, failure),) = result.tally.failed
    said = str(failure)
    assert said.startswith("metric-unavailable: energy is required, but ")
    assert text in said


def test_a_column_in_milliwatts_that_is_called_watts(tmp_path: Path) -> None:
    """As a phone's 1.5 W: 1500 W is a power that some machine has, and this one has not."""
    with meter(tmp_path / "power.csv", lambda n: f"{1500 + n % 7}"):
        result = campaign(tmp_path)
        record = cell(result)
    (finding,) = record.validity.findings
    assert finding.reason == "implausible-power"
    assert "shows 1506 W at most, more than the " in finding.detail and "is the column in mW" in finding.detail
    (trial,) = record.repetitions
    assert "generation_energy_j" not in trial.metrics.values and "generation_tps" in trial.metrics.values
    assert record.entry.params["device.most_w"] == record.entry.most_w


def test_times_of_whole_seconds(tmp_path: Path) -> None:
    """Rows of one second are one sample, and how coarse that is is part of the bound."""
    with meter(tmp_path / "power.csv", lambda n: f"{5 + n % 7 / 100}", "{:.0f}"):
        found = cell(campaign(tmp_path, protocol={**ONCE, "idle_s": 3}))
    (trial,) = found.repetitions
    (recording,) = trial.recordings()
    assert recording.header.clock_bound_s == 1
    assert "mean of rows with one time" in recording.series[0].channel.source
    assert "the clocks may disagree by" in trial.metrics.unavailable["generation_energy_j"], "of half a second"


def test_a_device_whose_clock_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does when the device is suspended: the host's clocks go on, the device's stands still."""
    asked: list[None] = []

    def clock_ns(self: HostTarget) -> int:
        asked.append(None)
        return time.monotonic_ns() - (5 * 10**9 if len(asked) > 8 else 0)

    monkeypatch.setattr(HostTarget, "clock_ns", clock_ns)
    with meter(tmp_path / "power.csv"):
        found = cell(campaign(tmp_path))
    reasons = [finding.reason for finding in found.validity.findings]
    assert reasons == ["clock-jumped", "clock-unknown"]
    assert "or the device was suspended" in str(found.validity)


@root_only
def test_a_disk_that_fills_up_with_samples(tmp_path: Path) -> None:
    """The campaign stops, nothing of the trial is left, and the same command goes on once there is room."""
    records = tmp_path / "home" / "records"
    records.mkdir(parents=True)
    (tmp_path / "power.csv").write_text("time,power\n")

    def flood(n: int) -> str:
        """More than there is room for: 1000 rows within the time of one."""
        now = time.time()
        return "\n".join(["5", *(f"{now + 0.007 + i * 2e-6:.6f},{5 + i % 7 / 100}" for i in range(1, 1000))])

    with mounted(records, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        with meter(tmp_path / "power.csv", flood), pytest.raises(StoreError, match="space left"):
            campaign(tmp_path)
        assert not [path for path in records.rglob("r000*") if path.is_dir()]
