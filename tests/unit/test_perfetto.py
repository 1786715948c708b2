"""Perfetto traces of synthetic trials: decoded, they say what the trial was made from."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as Proto
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent

from meltrepro.cli.app import main
from meltrepro.measure.perfetto import perfetto_trace
from meltrepro.record.events import parse_trace
from meltrepro.record.samples import FaultKind, Header, Recording, SensorFault
from meltrepro.record.series import SensorChannel, SensorSeries
from meltrepro.record.trace import OperatorCall, Span, Trace
from tests.support.campaigns import MS, START_WALL_NS, Cell, Trial, Turn, as_lines, build_campaign, events

turns = st.builds(
    Turn,
    prompt_tokens=st.integers(1, 500),
    tokenize_ns=st.integers(0, 10**6),
    prefill_ns=st.integers(0, 10**9),
    first_ns=st.integers(0, 10**6),
    gaps_ns=st.lists(st.integers(0, 10**8), max_size=8).map(tuple),
    tail_ns=st.integers(0, 10**6),
    fits=st.booleans(),
)


def trace_of(trial: Trial) -> Trace:
    return parse_trace(as_lines(events(trial)))


def decoded(trace: Trace, recording: Recording | None = None) -> Any:
    proto = Proto()
    proto.ParseFromString(perfetto_trace(trace, (recording,) if recording else (), "cell r000"))
    return proto


def tracks(proto: Any) -> dict[int, Any]:
    return {p.track_descriptor.uuid: p.track_descriptor for p in proto.packet if p.HasField("track_descriptor")}


def slices(proto: Any, track: str) -> list[tuple[str, int, int, int]]:
    """Name, begin, end and depth of every slice on a track."""
    (uuid,) = [uuid for uuid, descriptor in tracks(proto).items() if descriptor.name == track]
    found, stack = [], []
    for packet in proto.packet:
        event = packet.track_event
        if not packet.HasField("track_event") or event.track_uuid != uuid:
            continue
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            stack.append((event.name, packet.timestamp))
        else:
            name, begin = stack.pop()
            found.append((name, begin, packet.timestamp, len(stack)))
    assert stack == [], "every slice ends"
    return found


@settings(deadline=None)
@given(st.lists(st.lists(turns, max_size=3), max_size=3))
def test_slices_nest_and_stand_at_their_times(held: list[list[Turn]]) -> None:
    trace = trace_of(Trial(conversations=held))
    proto = decoded(trace)
    stamps = [packet.timestamp for packet in proto.packet if packet.HasField("track_event")]
    assert stamps == sorted(stamps)
    found = slices(proto, "phases")
    names = Counter(name.split()[0] for name, *_ in found)
    assert names["turn"] == len(trace.turns)
    assert names["conversation"] == len(held)
    assert names["prefill"] == sum(turn.prefill is not None for turn in trace.turns)
    depths = {"load": 0, "warm-up": 0, "conversation": 0, "turn": 1, "prefill": 2, "generation": 2}
    assert all(depth == depths[name.split()[0]] for name, _, _, depth in found)
    spans = {(begin, end) for name, begin, end, _ in found if name == "prefill"}
    assert spans == {(t.prefill.begin_ns, t.prefill.end_ns) for t in trace.turns if t.prefill is not None}
    tokens = slices(proto, "tokens")
    assert [end for _, _, end, _ in tokens] == [t for turn in trace.turns for t in turn.token_ns]
    assert {depth for *_, depth in tokens} <= {0}


def test_wall_time_follows_from_the_clock_snapshot() -> None:
    (snapshot,) = [
        packet.clock_snapshot for packet in decoded(trace_of(Trial())).packet if packet.HasField("clock_snapshot")
    ]
    times = {clock.clock_id: clock.timestamp for clock in snapshot.clocks}
    assert snapshot.primary_trace_clock == 3
    assert times[1] == START_WALL_NS
    assert times[3] == times[6] == trace_of(Trial()).hello.t_ns


def test_what_a_meter_saw_before_the_devices_clock_began_is_left_out() -> None:
    trace = trace_of(Trial())
    power = SensorSeries(SensorChannel("meter.power", "W", "gauge", "x", None), (-5, trace.done_ns), (1.5, 2.5))
    early = SensorSeries(SensorChannel("meter.voltage", "V", "gauge", "x", None), (-5,), (1.5,))
    fault = SensorFault(-3, 0, FaultKind.not_a_number, "OVERLOAD")
    header = Header("x", 1.0, (power.channel, early.channel), None)
    proto = decoded(trace, Recording(header, (power, early), (fault,), None, None, torn=False))
    names = {descriptor.name: uuid for uuid, descriptor in tracks(proto).items()}
    assert "meter.voltage" not in names and "faults of sensors" not in names
    times = [p.timestamp for p in proto.packet if p.track_event.track_uuid == names["meter.power"]]
    assert times == [trace.done_ns]


def test_channels_are_counters_with_units_and_faults_are_shown() -> None:
    trace = trace_of(Trial())
    power = SensorSeries(
        SensorChannel("meter.power", "W", "gauge", "x", None), (trace.load.begin_ns, trace.done_ns), (1.5, 2.5)
    )
    heat = SensorSeries(SensorChannel("temperature.cpu", "degC", "gauge", "x", None), (trace.load.begin_ns,), (40.0,))
    fault = SensorFault(trace.load.end_ns, 1, FaultKind.vanished, "No such file")
    header = Header("x", 1.0, (power.channel, heat.channel), None)
    proto = decoded(trace, Recording(header, (power, heat), (fault,), None, None, torn=False))
    counters = {d.name: (uuid, d.counter.unit_name) for uuid, d in tracks(proto).items() if d.HasField("counter")}
    assert {name: unit for name, (_, unit) in counters.items()} == {
        "meter.power": "W",
        "temperature.cpu": "°C",
        "runner rss_anon": "B",
        "runner rss_file": "B",
        "runner swap": "B",
    }
    values = [
        (packet.timestamp, packet.track_event.double_counter_value)
        for packet in proto.packet
        if packet.track_event.track_uuid == counters["meter.power"][0]
    ]
    assert values == [(trace.load.begin_ns, 1.5), (trace.done_ns, 2.5)]
    assert slices(proto, "faults of sensors") == [("temperature.cpu vanished", fault.t_ns, fault.t_ns, 0)]


def test_operators_of_a_profiled_trial() -> None:
    trace = trace_of(Trial())
    nodes = tuple(
        OperatorCall("generation", "MUL_MAT", module, Span(trace.done_ns - at * MS, trace.done_ns - (at - 1) * MS))
        for at, module in ((3, "ffn_up"), (2, ""))
    )
    found = slices(decoded(replace(trace, nodes=nodes)), "operators, generation")
    assert [name for name, *_ in found] == ["MUL_MAT ffn_up", "MUL_MAT"]


def test_the_same_trial_gives_the_same_bytes() -> None:
    trace = trace_of(Trial())
    assert perfetto_trace(trace, (), "a") == perfetto_trace(trace, (), "a")
    assert perfetto_trace(trace, (), "a") != perfetto_trace(trace, (), "b")


@pytest.mark.parametrize(("flags", "files"), [((), ["p000", "r000"]), (("--all",), ["p000", "r000", "r001", "w000"])])
def test_the_command_writes_a_file_per_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], files: list[str]
) -> None:
    home = tmp_path / "home"
    build_campaign(home, [Cell("q8_0", operators={"x": (1, 10)}), Cell("q4_0")], repetitions=2)
    monkeypatch.setenv("MELTREPRO_HOME", str(home))
    out = tmp_path / "out"
    assert main(["trace", "last", "--only", "*/q8_0/*", "-o", str(out), *flags]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"smollm2-135m,q8_0,llama.cpp,host,chat,{trial}.perfetto-trace" for trial in files]
    proto = Proto()
    proto.ParseFromString((out / names[-1]).read_bytes())
    assert len(proto.packet) > 10
