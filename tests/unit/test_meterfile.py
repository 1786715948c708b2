"""CSV files of external meters: what is read, and what is wrong with a file said with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import RecordError
from meltrepro.manifest.meters import Meter
from meltrepro.measure.meterfile import clipped, complete_bytes, in_order, read_meter
from meltrepro.record.samples import FaultKind, Recording, SampleWriter, SensorFault, read_samples

METER = Meter(file="m.csv", time="t", columns={"P": "mW"})
HEAD = "t,P\n"


def read(folder: Path, text: str, meter: Meter = METER, start: int = 0) -> Recording:
    path = folder / "m.csv"
    path.write_text(text)
    return read_meter(path, meter, start)


def test_units_names_and_the_rate(tmp_path: Path) -> None:
    meter = Meter(
        file="m.csv",
        time="Time(ms)",
        time_unit="s",
        clock="host",
        clock_bound_s=0.01,
        columns={"Main(mW)": "mW", "Aux(mW)": "mW", "Main Voltage(V)": "V", "Used(mWh)": "mWh"},
    )
    text = (
        "Time(ms),Main(mW),Aux(mW),Main Voltage(V),Used(mWh),\n1.5,100,1,4.2,0,\n1.75,200,1,4.1,0.5,\n2.0,300,1,4,1,\n"
    )
    recording = read(tmp_path, text, meter)
    assert recording.header.clock == "host" and recording.header.clock_bound_s == 0.01
    assert recording.header.rate_hz == pytest.approx(4)
    found: dict[str, object] = {s.channel.name: (s.channel.unit, s.channel.kind, s.values) for s in recording.series}
    assert found["meter.power.0"] == ("W", "gauge", pytest.approx((0.1, 0.2, 0.3)))
    assert found["meter.power.1"] == ("W", "gauge", pytest.approx((0.001,) * 3))
    assert found["meter.voltage"] == ("V", "gauge", (4.2, 4.1, 4.0))
    assert found["meter.energy"] == ("J", "counter", pytest.approx((0, 1.8, 3.6)))
    assert recording.series[0].t_ns == (1_500_000_000, 1_750_000_000, 2_000_000_000)
    assert recording.series[0].channel.source == "m.csv: Main(mW) (mW)"


def test_a_preamble_a_byte_order_mark_and_another_delimiter(tmp_path: Path) -> None:
    meter = Meter(file="m.csv", time="t", columns={"P": "W"}, delimiter=";")
    recording = read(tmp_path, "\ufeffPower tool 5\nserial;123\n t ; P \n0;1\n\n1;2\n", meter)
    assert recording.series[0].values == (1.0, 2.0)


def test_unix_times_lose_no_nanoseconds(tmp_path: Path) -> None:
    recording = read(tmp_path, HEAD + "1795406462.123456789,1\n1795406462.123456790,1\n")
    assert recording.series[0].t_ns == (1795406462123456789, 1795406462123456790)


def test_a_line_that_is_still_being_written_is_left(tmp_path: Path) -> None:
    recording = read(tmp_path, HEAD + "0,1\n1,2\n2,30")
    assert recording.torn and recording.series[0].values == (0.001, 0.002)
    assert complete_bytes(tmp_path / "m.csv") == len(HEAD) + 8
    assert complete_bytes(tmp_path / "none.csv") == 0


def test_only_what_was_added_is_read(tmp_path: Path) -> None:
    first = HEAD + "0,1\n1,2\n"
    recording = read(tmp_path, first + "2,3\n3,4\n", start=len(first))
    assert recording.series[0].t_ns == (2_000_000_000, 3_000_000_000)


def test_the_lines_of_messages_count_from_the_beginning_of_the_file(tmp_path: Path) -> None:
    first = HEAD + "0,1\n1,2\n"
    with pytest.raises(RecordError, match=r"m\.csv:5: 'noon' is no time"):
        read(tmp_path, first + "2,3\nnoon,4\n", start=len(first))


def test_the_last_heading_before_what_is_read_counts(tmp_path: Path) -> None:
    """A program that was started again may write its columns in another order."""
    first = HEAD + "0,1\n" * 60 + "P,t\n"
    recording = read(tmp_path, first + "7,2\n8,3\n", start=len(first))
    assert recording.series[0].t_ns == (2_000_000_000, 3_000_000_000)
    assert recording.series[0].values == (0.007, 0.008)


def test_a_heading_that_came_late(tmp_path: Path) -> None:
    recording = read(tmp_path, "#\n" + HEAD + "0,1\n1,2\n", start=2)
    assert recording.series[0].values == (0.001, 0.002)


@pytest.mark.parametrize("start", [len(HEAD) + 1, 1000])
def test_a_file_that_was_rewritten_meanwhile(tmp_path: Path, start: int) -> None:
    with pytest.raises(RecordError, match=r"m\.csv: the file was rewritten while the trial ran"):
        read(tmp_path, HEAD + "0,1\n1,2\n", start=start)


def test_a_quote_that_is_never_closed_spoils_its_own_line_only(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i}\n" for i in range(3, 40_000))
    recording = read(tmp_path, f'{HEAD}0,0\n1,"x\n2,2\n{rows}')
    assert recording.faults == (SensorFault(10**9, 0, FaultKind.not_a_number, "'x'"),)
    assert len(recording.series[0]) == 39_999


def test_a_preamble_may_hold_anything(tmp_path: Path) -> None:
    recording = read(tmp_path, f'Power\rtool\n"{"x" * 200_000}\n{HEAD}0,1\n1,2\n')
    assert recording.series[0].values == (0.001, 0.002)


def test_text_where_a_number_should_be_is_a_fault(tmp_path: Path) -> None:
    recording = read(tmp_path, HEAD + "0,1\n1,OVERLOAD\n2,\n3,4\n4\n5,nan\n6,7\n")
    assert recording.series[0].values == (0.001, 0.004, 0.007)
    kind = FaultKind.not_a_number
    assert recording.faults == (SensorFault(10**9, 0, kind, "'OVERLOAD'"), SensorFault(4 * 10**9, 0, kind, "no cell"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line has the headings 't', 'P'; missing are 't', 'P', found was nothing"),
        ("t,Q\n0,1\n", "no line has the headings 't', 'P'; missing are 'P', found was 't', 'Q'"),
        (HEAD, "fewer than two samples"),
        (HEAD + "0,1\n", "fewer than two samples"),
        (
            HEAD + "0.5,1\n0.5,2\n",
            "m.csv:3: the time is that of the row before, 500000000 ns: the times are too coarse",
        ),
        (HEAD + "5,1\n1,2\n", "m.csv:3: the time does not increase, from 5000000000 to 1000000000 ns"),
        (HEAD + "-1,1\n1,2\n", "m.csv:2: the time is negative, '-1'"),
        (HEAD + "1795406462123,1\n1795406462124,2\n", "m.csv:2: '1795406462123' is no time in s"),
        (HEAD + "0,1\n1e300,2\n", "m.csv:3: '1e300' is no time in s"),
        (HEAD + "0,1\nnoon,2\n", "m.csv:3: 'noon' is no time"),
        (HEAD + "0,1\n1,2\r3\n2,3\n", r"m.csv:3: expected a row of cells, got '1,2\r3\n'"),
        (HEAD + "0,1\n1," + "2" * 200_000 + "\n", "m.csv:3: expected a row of cells, got '1,222"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        read(tmp_path, text)
    assert message in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"none\.csv cannot be read: No such file"):
        read_meter(tmp_path / "none.csv", METER)


@given(st.lists(st.tuples(st.integers(1, 10**12), st.floats(-1e6, 1e6)), min_size=2, max_size=40))
def test_what_is_written_to_a_record_is_what_was_read(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, float]]
) -> None:
    folder = tmp_path_factory.mktemp("meter")
    t, lines = 0, []
    for step, value in steps:
        t += step
        lines.append(f"{t},{value!r}")
    meter = Meter(file="m.csv", time="t", time_unit="ns", columns={"P": "W"})
    recording = read(folder, HEAD + "\n".join(lines) + "\n", meter)
    with SampleWriter(folder / "meter.jsonl", recording.header) as writer:
        writer.samples(in_order(recording))
    again = read_samples(folder / "meter.jsonl")
    assert again.series == recording.series
    middle = recording.series[0].t_ns[len(steps) // 2]
    part = clipped(recording, middle, t)
    assert part.series[0].t_ns == recording.series[0].t_ns[len(steps) // 2 :]


@given(st.binary(max_size=300))
def test_no_file_makes_it_crash(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("meter") / "m.csv"
    path.write_bytes(b"t,P\n" + content)
    try:
        read_meter(path, METER)
    except RecordError as error:
        assert "m.csv" in error.message
