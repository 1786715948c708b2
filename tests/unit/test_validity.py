"""The verdict on trials and cells: each reason by its own cause, and what is INVALID is in no summary."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.cli.summary import number
from meltrepro.manifest.protocol import Limits
from meltrepro.measure.metering import Metered
from meltrepro.measure.metrics import compute
from meltrepro.measure.records import read_campaign
from meltrepro.measure.validity import Reason, Validity, judge_cell, judge_trial
from meltrepro.record.campaign import MANIFEST
from meltrepro.record.events import parse_trace
from meltrepro.record.samples import FaultKind, Header, Recording, SensorFault
from meltrepro.record.series import Kind, SensorChannel, SensorSeries
from meltrepro.record.trace import Cached, Trace
from meltrepro.stats.summary import summarize
from meltrepro.track import content
from tests.support.campaigns import MS, Cell, Trial, Turn, as_lines, build_campaign, events
from tests.unit.test_results_table import shown

TRACE: Trace = parse_trace(as_lines(events(Trial(conversations=[[Turn(gaps_ns=(50 * MS,) * 99)]]))))
HZ = 10


def series(
    name: str, value: Callable[[float], float], kind: Kind = "gauge", *, skip: tuple[float, float] = (2, 2)
) -> SensorSeries:
    """Samples at 10 Hz from the runner's start until after its end; `skip` leaves out a part of that time, in shares of it."""
    begin, end = TRACE.hello.t_ns, TRACE.done_ns
    times = [begin + i * 10**9 // HZ for i in range((end - begin) * HZ // 10**9 + 5)]
    kept = tuple(t for t in times if not skip[0] <= (t - begin) / (end - begin) < skip[1])
    return SensorSeries(SensorChannel(name, "1", kind, name, None), kept, tuple(value((t - begin) / 1e9) for t in kept))


def judge(*channels: SensorSeries, limits: Limits | None = None, **changes: object) -> Validity:
    header = Header("test", HZ, tuple(each.channel for each in channels), None)
    recording = Recording(header, channels, (), TRACE.done_ns, 0.01, torn=False)
    recording = replace(recording, **changes)  # type: ignore[arg-type]
    return judge_trial(TRACE, compute(TRACE, recording), recording, limits or Limits())


def reasons(validity: Validity) -> list[str]:
    return [finding.reason for finding in validity.findings]


def test_a_good_trial_is_valid() -> None:
    assert str(judge(series("memory.available", lambda _: 1e9))) == "VALID"
    assert judge_trial(TRACE, compute(TRACE), None, Limits()).valid


@pytest.mark.parametrize(
    ("limits", "reason", "detail"),
    [
        (Limits(min_tokens=101), Reason.too_few_tokens, "100 generated, at least 101"),
        (Limits(min_generation_s=5), Reason.too_short, "4.95 s of generation, at least 5"),
    ],
)
def test_too_little_work(limits: Limits, reason: Reason, detail: str) -> None:
    (finding,) = judge(limits=limits).findings
    assert (finding.reason, finding.detail) == (reason, detail)


def test_an_answer_that_was_cut_off() -> None:
    (turn,) = TRACE.turns
    (conversation,) = TRACE.conversations
    cut = replace(TRACE, conversations=(replace(conversation, turns=(replace(turn, stop="context"),)),))
    assert reasons(judge_trial(cut, compute(cut), None, Limits())) == [Reason.truncated]
    assert judge_trial(cut, compute(cut), None, Limits(truncated=True)).valid


@pytest.mark.parametrize(
    ("name", "value", "kind", "limits", "reason"),
    [
        ("throttled.cpu0", lambda t: float(t > 2), "counter", Limits(), Reason.throttled),
        ("pressure.memory", lambda t: 0.2 * t, "counter", Limits(), Reason.memory_pressure),
        ("pressure.cpu", lambda t: 0.5 * t, "counter", Limits(cpu_pressure=0.4), Reason.cpu_pressure),
        ("temperature.cpu", lambda t: 50 + 10 * t, "gauge", Limits(temperature_c=60), Reason.too_hot),
    ],
)
def test_a_device_in_trouble(
    name: str, value: Callable[[float], float], kind: Kind, limits: Limits, reason: Reason
) -> None:
    assert reasons(judge(series(name, value, kind), limits=limits)) == [reason]
    assert judge(series(name, lambda _: 1.0, kind), limits=limits).valid
    generous = Limits(throttle_events=5, memory_pressure=0.9, cpu_pressure=0.9, temperature_c=140)
    assert judge(series(name, value, kind), limits=generous).valid


def test_what_a_device_does_not_show_is_not_judged() -> None:
    assert judge(limits=Limits(temperature_c=1, cpu_pressure=0, memory_pressure=0)).valid


def test_samples_that_are_missing_or_wrong() -> None:
    gap = judge(series("memory.available", lambda _: 1.0, skip=(0.3, 0.7)))
    (finding,) = gap.findings
    assert finding.reason is Reason.missing_samples
    assert "memory.available has " in finding.detail
    assert judge(series("memory.available", lambda _: 1.0, skip=(0.3, 0.4))).valid
    assert judge(series("process.rss_anon", lambda _: 1.0, skip=(0.3, 0.9))).valid, "a process comes and goes"
    good = series("memory.available", lambda _: 1.0)
    assert reasons(judge(good, end_ns=None)) == [Reason.sampler_died]
    fault = SensorFault(TRACE.hello.t_ns, 0, FaultKind.vanished, "No such file\n")
    (finding,) = judge(good, faults=(fault,)).findings
    assert str(finding) == "faulty-sensor: memory.available vanished: No such file"
    again = tuple(replace(fault, t_ns=fault.t_ns + i, detail=f"No such file {i}") for i in range(1, 500))
    other = replace(fault, kind=FaultKind.denied, detail="Permission denied")
    assert list(map(str, judge(good, faults=(fault, *again, other)).findings)) == [
        "faulty-sensor: memory.available vanished: No such file (500 times)",
        "faulty-sensor: memory.available denied: Permission denied",
    ]


@pytest.mark.parametrize("kind", [FaultKind.vanished, FaultKind.not_a_number, FaultKind.denied])
def test_a_thermometer_that_comes_and_goes_spoils_no_trial_that_has_another(kind: FaultKind) -> None:
    whole = series("temperature.cpu", lambda t: 40.0 + t)
    gap = series("temperature.modem", lambda _: 33.0, skip=(0.3, 0.9))
    faults = (SensorFault(TRACE.hello.t_ns, 1, kind, "Resource temporarily unavailable\n"),)
    assert judge(whole, gap, faults=faults).valid
    asked = Limits(temperature_c=90)
    assert reasons(judge(whole, gap, faults=faults, limits=asked))[0] is Reason.faulty_sensor
    alone = (SensorFault(TRACE.hello.t_ns, 0, kind, "Resource temporarily unavailable\n"),)
    assert Reason.faulty_sensor in reasons(judge(gap, faults=alone))


def test_a_figure_that_is_hardly_known() -> None:
    power = series("meter.power", lambda t: 5.0 + 5 * (round(t) % 2))
    power = replace(power, channel=replace(power.channel, unit="W"))
    assert judge(power, limits=Limits(bound=0.9)).valid
    (finding,) = judge(power, limits=Limits(bound=0.0001)).findings
    assert finding.reason is Reason.uncertain
    assert "is known to" in finding.detail


@given(st.lists(st.floats(1, 100), min_size=1, max_size=12))
def test_noise_over_repetitions(values: list[float]) -> None:
    mean = sum(values) / len(values)
    cv = (sum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1)) ** 0.5 / mean
    found = judge_cell(summarize(values), Limits(noise=0.2))
    assert found.valid == (len(values) < 3 or cv <= 0.2 + 1e-12)
    assert judge_cell(summarize(values), Limits(noise=None)).valid


def test_what_is_invalid_is_shown_and_in_no_summary(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell("q8_0", 40), Cell("q4_0", trial=Trial(conversations=[[Turn(gaps_ns=())]]))])
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["measure"]["limits"]["min_tokens"] = 5
    path.write_text(json.dumps(manifest))
    campaign = read_campaign(folder)
    good, bad = campaign.cells
    assert good.validity.valid
    assert set(bad.invalid) == {"r000", "r001", "r002"}
    assert bad.summaries == {}
    assert len(bad.repetitions) == 3
    assert "r001 1 generated, at least 5" in str(bad.validity)
    assert replace(bad, with_invalid=True).summaries["prompt_tokens"].n == 3
    text = shown(folder)
    assert "q4_0: 3 of 3 repetitions INVALID: r000 too-few-tokens: 1 generated, at least 5" in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("q4_0 ")]
    assert row[1:5] == ["0", "of", "3", "-"]
    assert number(good.summaries["generation_tps"].median) in text
    tags = content.cell_tags(campaign, bad, content.status_of(campaign, bad), "host")
    assert tags["meltrepro.validity"].startswith("INVALID(too-few-tokens")
    assert content.summary_points(bad) == []


def test_a_trial_that_failed_is_a_reason_of_its_cell(tmp_path: Path) -> None:
    failing = {1: "gate-closed: not ready after 9 s: cpu has 71.0 degC, at most 60 wanted\n  more"}
    folder = build_campaign(tmp_path, [Cell("q8_0", failing=failing)])
    (cell,) = read_campaign(folder).cells
    (finding,) = cell.validity.findings
    assert finding.reason == "gate-closed"
    assert finding.detail == "r001 not ready after 9 s: cpu has 71.0 degC, at most 60 wanted"
    assert "q8_0/llama.cpp/host/chat: 1 of 3 repetitions failed: r001 gate-closed: not ready" in shown(folder)


def test_invalid_repetitions_count_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = build_campaign(tmp_path, [Cell("q8_0")])
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["measure"]["limits"]["min_tokens"] = 1000
    path.write_text(json.dumps(manifest))
    (without,), (with_them,) = read_campaign(folder).cells, read_campaign(folder, with_invalid=True).cells
    assert without.summaries == {}
    assert with_them.summaries["generation_tps"].n == 3
    assert not with_them.validity.valid, "the verdict stays"
    (restricted,) = read_campaign(folder, with_invalid=True).restricted(lambda id: True).cells
    assert restricted.summaries.keys() == with_them.summaries.keys()


def test_a_meter_that_shows_the_same_value_again_and_again() -> None:
    unit = {"power": "W", "level": "%", "rail.VDD_IN.power": "W"}

    def gauge(name: str, value: Callable[[float], float]) -> SensorSeries:
        given = series(name, value)
        return SensorSeries(replace(given.channel, unit=unit[name]), given.t_ns, given.values)

    assert reasons(judge(gauge("power", lambda t: 5.0))) == [Reason.faulty_sensor]
    assert judge(gauge("power", lambda t: 5 + t / 100)).valid
    assert judge(gauge("power", lambda t: 0.0)).valid, "a rail that is off"
    assert judge(gauge("level", lambda t: 80.0)).valid, "a charge level may well stand still"
    assert judge(gauge("rail.VDD_IN.power", lambda t: 5.0)).valid, "a monitor with steps of 40 mW may well, too"


@pytest.mark.parametrize(("plateau_s", "valid"), [(0.5, True), (1.5, False)])
def test_a_fast_meter_with_coarse_steps(plateau_s: float, valid: bool) -> None:
    """Twenty samples in a row are the same soon: only a value that stays for a while is stuck."""
    times = tuple(range(TRACE.hello.t_ns, TRACE.done_ns + 10**6, 10**6))
    values = tuple(1.0 + int((t - times[0]) / 1e9 / plateau_s) % 3 for t in times)
    meter = SensorSeries(SensorChannel("meter.power", "W", "gauge", "x", None), times, values)
    header = Header("meter", 1000.0, (meter.channel,), None, "device")
    recording = Recording(header, (meter,), (), times[-1], None, torn=False)
    metered = Metered(recording)
    verdict = judge_trial(TRACE, compute(TRACE, metered=metered), None, Limits(), metered)
    assert verdict.valid == valid, verdict
    if not valid:
        (finding,) = verdict.findings
        assert finding.reason is Reason.faulty_sensor
        assert "less often than it writes one, say how often: meter.refresh_s" in finding.detail


@pytest.mark.parametrize(
    ("asked", "share", "detail"),
    [
        (None, 0.5, None),
        ("cold", 0.0, None),
        ("warm", 1.0, None),
        ("cold", 0.25, "a cold load is asked for, 25.0% of the model's files lay in the page cache"),
        ("warm", 0.5, "a warm load is asked for, 50.0% of the model's files lay in the page cache"),
        ("cold", None, "a cold load is asked for, the runner does not say what was cached"),
    ],
)
def test_a_load_is_as_cold_as_was_asked(asked: Cached | None, share: float | None, detail: str | None) -> None:
    trace = replace(TRACE, load=replace(TRACE.load, asked=asked, cached_share=share))
    found = judge_trial(trace, compute(trace), None, Limits()).findings
    expected = [(Reason.page_cache, detail)] if detail else []
    assert [(each.reason, each.detail) for each in found] == expected


def test_prompts_may_be_all_that_is_measured() -> None:
    alone = parse_trace(as_lines(events(Trial(conversations=[[Turn(gaps_ns=())]]))))
    assert judge_trial(alone, compute(alone), None, Limits()).valid == (alone.turns[0].stop == "length")
    asked = replace(alone.conversations[0].turns[0], stop="length")
    ended = replace(asked, stop="eog")
    for turn, valid in ((asked, True), (ended, False)):
        trace = replace(alone, conversations=(replace(alone.conversations[0], turns=(turn,)),))
        assert judge_trial(trace, compute(trace), None, Limits()).valid is valid
