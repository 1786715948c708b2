"""Energy of the phases of whole trials whose power is known at every moment."""

from __future__ import annotations

import pytest

from meltrepro.measure.metrics import Metrics, compute
from meltrepro.record.events import parse_trace
from meltrepro.record.samples import Header, Recording
from meltrepro.record.series import SensorChannel, SensorSeries
from meltrepro.record.trace import Trace
from tests.support.campaigns import MS, Trial, Turn, as_lines, events

IDLE_W, PREFILL_W, GENERATION_W = 1.0, 6.0, 4.0
TURN = Turn(prompt_tokens=50, prefill_ns=2000 * MS, gaps_ns=(100 * MS,) * 30, thinking=(0, 10))
TRACE: Trace = parse_trace(as_lines(events(Trial(conversations=[[TURN, TURN]]))))
STEP_NS = 5 * MS


def watts(t_ns: int) -> float:
    for turn in TRACE.turns:
        assert turn.prefill is not None
        if turn.prefill.begin_ns <= t_ns < turn.prefill.end_ns:
            return PREFILL_W
        if turn.token_ns[0] <= t_ns < turn.token_ns[-1]:
            return GENERATION_W
    return IDLE_W


def measured(
    idle_s: float = 3.0, channel: SensorChannel | None = None, *, dead: bool = False, right: int | None = None
) -> Metrics:
    """What comes out with a meter of 200 Hz that was there from some time before the runner."""
    channel = channel or SensorChannel("meter.power", "W", "gauge", "virtual", None)
    end_ns = TRACE.turns[0].end_ns if dead else TRACE.done_ns + 1000 * MS
    times = tuple(range(TRACE.hello.t_ns - round(idle_s * 1e9), end_ns, STEP_NS))
    series = SensorSeries(channel, times, tuple(map(watts, times)))
    recording = Recording(Header("virtual", 200.0, (channel,), None), (series,), (), None, None, torn=False)
    return compute(TRACE, recording, right=right)


def test_energy_of_each_phase_raw_and_beyond_rest() -> None:
    metrics = measured()
    expected = {
        "idle_power_w": IDLE_W,
        "prefill_energy_j": 2 * 2 * PREFILL_W,
        "prefill_net_energy_j": 2 * 2 * (PREFILL_W - IDLE_W),
        "generation_energy_j": 2 * 3 * GENERATION_W,
        "generation_net_energy_j": 2 * 3 * (GENERATION_W - IDLE_W),
        "energy_per_prompt_token_j": 2 * 2 * PREFILL_W / 100,
        "energy_per_token_j": 2 * 3 * GENERATION_W / 60,
        "net_energy_per_token_j": 2 * 3 * (GENERATION_W - IDLE_W) / 60,
        "prefill_power_w": PREFILL_W,
        "generation_power_w": GENERATION_W,
        "generation_peak_power_w": GENERATION_W,
        "thinking_energy_j": 2 * 0.9 * GENERATION_W,
        "answer_energy_j": 2 * 2.1 * GENERATION_W,
    }
    for name, truth in expected.items():
        assert metrics.values[name] == pytest.approx(truth, rel=0.01), name
        assert abs(metrics.values[name] - truth) <= metrics.bounds[name] + 0.001 * truth, name
    assert metrics.unavailable["generation_charge_mah"] == "the device shows no current"


def test_what_a_right_answer_costs() -> None:
    """All of what turns took, from their begin to their end, by the answers that are right."""
    taken_s = sum((turn.end_ns - turn.begin_ns) / 1e9 for turn in TRACE.turns)
    rest_s = taken_s - 2 * 2 - 2 * 3
    taken_j = 2 * 2 * PREFILL_W + 2 * 3 * GENERATION_W + rest_s * IDLE_W
    metrics = measured(right=1)
    assert metrics.values["right_answers"] == 1
    assert metrics.values["answering_s"] == metrics.values["time_per_right_answer_s"] == pytest.approx(taken_s)
    assert metrics.values["answering_energy_j"] == pytest.approx(taken_j, rel=0.01)
    both = measured(right=2)
    for name in ("time_per_right_answer_s", "energy_per_right_answer_j"):
        assert both.values[name] == pytest.approx(metrics.values[name] / 2)
    assert both.bounds["energy_per_right_answer_j"] == pytest.approx(both.bounds["answering_energy_j"] / 2)


@pytest.mark.parametrize(("right", "reason"), [(0, "no answer is right"), (None, "its answers are not checked")])
def test_without_a_right_answer_none_has_a_cost(right: int | None, reason: str) -> None:
    metrics = measured(right=right)
    for name in ("time_per_right_answer_s", "energy_per_right_answer_j"):
        assert metrics.unavailable[name] == reason
    assert ("answering_energy_j" in metrics.values) is (right == 0)
    assert "energy_per_right_answer_j" in compute(TRACE, right=2).unavailable, "nor where energy is not measured"


def test_without_rest_there_is_no_baseline_and_the_raw_figures_stay() -> None:
    metrics = measured(idle_s=0.5)
    assert "protocol.idle_s" in metrics.unavailable["generation_net_energy_j"]
    assert "protocol.idle_s" in metrics.unavailable["idle_power_w"]
    assert metrics.values["generation_energy_j"] == pytest.approx(24, rel=0.01)


def test_a_meter_that_stopped_in_the_middle_gives_no_figure() -> None:
    metrics = measured(dead=True)
    assert "do not cover the phase" in metrics.unavailable["generation_energy_j"]
    assert metrics.values["idle_power_w"] == pytest.approx(IDLE_W)


def test_a_unit_that_is_off_by_a_thousand() -> None:
    channel = SensorChannel("meter.power", "W", "gauge", "virtual", None)
    times = tuple(range(TRACE.hello.t_ns, TRACE.done_ns, STEP_NS))
    series = SensorSeries(channel, times, tuple(1000 * watts(t) for t in times))
    recording = Recording(Header("virtual", 200.0, (channel,), None), (series,), (), None, None, torn=False)
    assert "it is another unit" in compute(TRACE, recording).unavailable["generation_energy_j"]


def test_a_thermometer_is_no_meter() -> None:
    metrics = measured(channel=SensorChannel("temperature.x", "degC", "gauge", "virtual", None))
    assert "shows neither power" in metrics.unavailable["energy_per_token_j"]


def test_a_series_that_begins_with_the_runner_does_not_shorten_the_rest_before_it() -> None:
    power = SensorChannel("meter.power", "W", "gauge", "virtual", None)
    memory = SensorChannel("process.rss_anon", "B", "gauge", "virtual", None)
    times = tuple(range(TRACE.hello.t_ns - 3000 * MS, TRACE.done_ns, STEP_NS))
    late = tuple(t for t in times if t > TRACE.hello.t_ns)
    series = (SensorSeries(power, times, tuple(map(watts, times))), SensorSeries(memory, late, (1.0,) * len(late)))
    recording = Recording(Header("virtual", 200.0, (power, memory), None), series, (), None, None, torn=False)
    assert compute(TRACE, recording).values["idle_power_w"] == pytest.approx(IDLE_W)


def test_charge_of_each_phase_from_a_current_or_from_a_counter() -> None:
    """Watts taken for amperes: 24 C each for reading and for writing."""
    times = tuple(range(TRACE.hello.t_ns, TRACE.done_ns + 1000 * MS, STEP_NS))
    amperes = tuple(map(watts, times))
    total, drawn = 0.0, []
    for value in amperes:
        drawn.append(total)
        total += value * STEP_NS / 1e9
    current, counter = SensorChannel("c", "A", "gauge", "x", None), SensorChannel("q", "C", "counter", "x", None)
    power = SensorSeries(SensorChannel("p", "W", "gauge", "x", None), times, amperes)
    for series in (SensorSeries(current, times, amperes), SensorSeries(counter, times, tuple(drawn))):
        header = Header("virtual", 200.0, (power.channel, series.channel), None)
        found = compute(TRACE, Recording(header, (power, series), (), None, None, torn=False))
        assert found.values["prefill_charge_mah"] == pytest.approx(24 / 3.6, rel=0.01)
        assert found.values["generation_charge_mah"] == pytest.approx(24 / 3.6, rel=0.01)
        assert found.values["charge_per_token_mah"] == pytest.approx(24 / 3.6 / 60, rel=0.01)
        assert found.bounds["generation_charge_mah"] < 0.2
        assert found.values["load_energy_j"] == pytest.approx(0.4 * IDLE_W, rel=0.02)
