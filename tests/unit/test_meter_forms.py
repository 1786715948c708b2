"""Meters' files in the forms in which instruments and their programs write them: read as declared, or refused with the key to set.

The samples are made up; headings and layouts are those that the programs are known for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meltrepro.campaign.meter import require_meters
from meltrepro.errors import ManifestError, RecordError
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.meters import Meter
from meltrepro.measure.meterfile import check_meter, complete_bytes, read_meter
from meltrepro.record.samples import FaultKind, Recording
from tests.support.manifests import GOOD, write

S = 10**9
NOON = 1767268800  # 2026-01-01 12:00:00 UTC


def meter(**changes: Any) -> Meter:
    return Meter.model_validate({"file": "m.csv", "time": "t", "columns": {"P": "W"}, **changes})


def read(folder: Path, content: str | bytes, **changes: Any) -> Recording:
    path = folder / "m.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_meter(path, meter(**changes))


def seen(recording: Recording) -> list[tuple[float, Any]]:
    """Seconds and values of the first column."""
    series = recording.series[0]
    return [(t / S, pytest.approx(value)) for t, value in zip(series.t_ns, series.values, strict=True)]


CURRENT = {"columns": {"Current (µA)": "uA"}, "time": "Time (s)"}
MW = {"time": "Time (s)", "columns": {"Power (mW)": "mW"}}
FNIRSI = {"time": "timestamp", "columns": {"energy_Ws": "J"}, "delimiter": " ", "clock": "host"}
FNIRSI_ROWS = """\
timestamp sample_in_packet voltage_V current_A dp_V dn_V temp_C_ema energy_Ws capacity_As
1667765030.189 0 5.10000 0.50000 1.404 1.191  9.700 100.000000 20.000000
1667765030.199 1 5.10000 0.50000 1.404 1.191 10.000 100.025500 20.005000
"""
UA = [(0.0, 1e-4), (0.1, 1.01e-4)]
HALF = [(0.0, 0.1), (0.1, 0.101)]
MICRO = "Time (s),Current (µA)\n0.0,100\n0.1,101\n"
DATES = [(NOON + 0.5, 1.5), (NOON + 1.5, 1.6)]


@pytest.mark.parametrize(
    ("content", "how", "expected"),
    [
        pytest.param(FNIRSI_ROWS, FNIRSI, [(1667765030.189, 100.0), (1667765030.199, 100.0255)], id="aligned by spaces"),
        pytest.param("  t   P\n\t0  1 \n 1\t\t2\n", {"delimiter": " "}, [(0, 1), (1, 2)], id="tabs among the spaces"),
        pytest.param("t\tP\n0\t1\n1\t2\n", {"delimiter": "\t"}, [(0, 1), (1, 2)], id="tabs"),
        pytest.param(MICRO.encode("cp1252"), CURRENT, UA, id="windows-1252"),
        pytest.param(MICRO.encode("cp1252"), {**CURRENT, "encoding": "latin-1"}, UA, id="latin-1, declared"),
        pytest.param(MICRO.encode("utf-8-sig"), CURRENT, UA, id="utf-8 with its mark"),
        pytest.param(MICRO.encode("utf-16"), CURRENT, UA, id="utf-16"),
        pytest.param(b"\xfe\xff" + MICRO.encode("utf-16-be"), CURRENT, UA, id="utf-16, big end first"),
        pytest.param(MICRO.encode("utf-16-le"), {**CURRENT, "encoding": "utf-16"}, UA, id="utf-16 without its mark"),
        pytest.param(MICRO.replace("µ", "\u03bc"), CURRENT, UA, id="the Greek letter"),
        pytest.param(MICRO.replace(" (", "\u00a0("), CURRENT, UA, id="a space that does not break"),
        pytest.param("时间,P\n0,1\n1,2\n".encode("gb18030"), {"time": "时间", "encoding": "gb18030"}, [(0, 1), (1, 2)], id="gb18030"),
        pytest.param("Ċਊ,P,t\r\n,1,0\r\n,2,1\r\n".encode("utf-16"), {}, [(0, 1), (1, 2)], id="bytes of a line end in a letter"),
        pytest.param("Time (s);Power (mW)\n0,0;100\n0,1;101,0\n", {**MW, "delimiter": ";", "decimal": ","}, HALF, id="decimal comma"),
        pytest.param('"Time (s)","Power (mW)"\n"0,0","100"\n"0,1","101"\n', {**MW, "decimal": ","}, HALF, id="commas in quotes"),
        pytest.param("sep=;\r\nTime (s);Power (mW)\r\n0.0;100\r\n0.1;101\r\n", {**MW, "delimiter": ";"}, HALF, id="Excel"),
        pytest.param("t,P\r\r\n0,1\r\r\n1,2\r\r\n", {}, [(0, 1), (1, 2)], id="CR twice"),
        pytest.param("Time (s),Power (mW)\n0.0,100\n0.1,101\nAverage,100.5\n", MW, HALF, id="footer"),
        pytest.param("t,P\n0,1\n1,2\n\n,\nTotal,,3\n--- end ---\n", {}, [(0, 1), (1, 2)], id="a longer footer"),
        pytest.param("t,P\n(s),(W)\nfloat,float\n0,1\n1,2\n", {}, [(0, 1), (1, 2)], id="units below the heading"),
        pytest.param("t,P\n0,1\n# mark\n// mark\n1,2\n", {}, [(0, 1), (1, 2)], id="comments"),
        pytest.param("# a\nmodel,X\nrate,50\nt,P\n0,1\n1,2\n", {}, [(0, 1), (1, 2)], id="a preamble"),
        pytest.param("t,P,\n0,1,\n1,2\n2,3,,\n", {}, [(0, 1), (1, 2), (2, 3)], id="delimiters at the end"),
        pytest.param("t,P\n0,1\n1,2\nTool 5\nserial,12\nt,P\n2,3\n", {}, [(0, 1), (1, 2), (2, 3)], id="begun again, on one clock"),
        pytest.param("t,P\n0,1\n1,2\nP,t\n3,2\n", {}, [(0, 1), (1, 2), (2, 3)], id="begun again in another order"),
        pytest.param("t,P,P\n0,1,9\n1,2,9\n", {"columns": {"#2": "W"}}, [(0, 1), (1, 2)], id="two equal headings"),
        pytest.param("0 1\n1 2\n", {"time": "#1", "columns": {"#2": "W"}, "delimiter": " "}, [(0, 1), (1, 2)], id="no heading"),
        pytest.param("log of today\n0,1\n1,2\n", {"time": "#1", "columns": {"#2": "W"}}, [(0, 1), (1, 2)], id="text and no heading"),
        pytest.param("t,P\n0,1 W\n1,2W\n", {}, [(0, 1), (1, 2)], id="the unit in the cell"),
        pytest.param("t,P\n0,100µW\n1,100 \u03bcW\n", {"columns": {"P": "uW"}}, [(0, 1e-4), (1, 1e-4)], id="a micro sign in the cell"),
        pytest.param("t,P\n0,\u22121\n1,+2e0\n", {}, [(0, -1), (1, 2)], id="a minus sign"),
        pytest.param("t,P\n0,1\n1,nan\n2,---\n3,\n4,N/A\n5,2\n", {}, [(0, 1), (5, 2)], id="no value"),
        pytest.param("t,P\n-1.5,1\n0,2\n", {"time_offset_s": 2}, [(0.5, 1), (2, 2)], id="before the trigger"),
        pytest.param("t,P\n1e3,1\n2e3,2\n", {"time_unit": "ms"}, [(1, 1), (2, 2)], id="times with exponents"),
        pytest.param(
            "t,P\n2026-01-01 12:00:00.5,1.5\n2026-01-01 12:00:01.5,1.6\n", {"time_format": "iso"}, DATES, id="ISO 8601"
        ),
        pytest.param(
            "t,P\n2026-01-01T14:00:00,5+02:00,1.5\n", {"time_format": "iso"}, "line 2 has 3 cells", id="a comma that is none of its cell"
        ),
        pytest.param(
            "t;P\n2026-01-01T14:00:00,5+02:00;1.5\n2026-01-01T12:00:01.500000000Z;1.6\n",
            {"time_format": "iso", "clock": "host", "delimiter": ";"},
            DATES,
            id="ISO 8601 with zones",
        ),
        pytest.param(
            "t,P\n2026-01-01 13:00:00.5,1.5\n2026-01-01 13:00:01.5,1.6\n",
            {"time_format": "iso", "clock": "host", "time_zone": "Europe/Berlin"},
            DATES,
            id="the time of a place",
        ),
        pytest.param(
            "Date,t,P\n01.01.2026,07:00:00,1.5\n01.01.2026,07:00:01,1.6\n",
            {"date": "Date", "time_format": "%d.%m.%Y %H:%M:%S", "clock": "host", "time_zone": "-05"},
            [(NOON, 1.5), (NOON + 1, 1.6)],
            id="date and time apart",
        ),
        pytest.param(
            "2026-01-01 12:00:00.5 1.5\n2026-01-01 12:00:01.5 1.6\n",
            {"date": "#1", "time": "#2", "columns": {"#3": "W"}, "delimiter": " ", "time_format": "iso"},
            DATES,
            id="date and time apart by a space",
        ),
        pytest.param(
            "t,P\n1/1/2026 12:00:00 PM,1\n1/1/2026 1:00:00 PM,2\n",
            {"time_format": "%m/%d/%Y %I:%M:%S %p"},
            [(NOON, 1), (NOON + 3600, 2)],
            id="noon and after",
        ),
        pytest.param(
            "t,P\n23:59:59.25,1\n00:00:00.25,2\n00:00:01,3\n",
            {"time_format": "%H:%M:%S.%f"},
            [(86399.25, 1), (86400.25, 2), (86401, 3)],
            id="midnight",
        ),
        pytest.param(
            "t,P\n2026-10-25 02:59:59,1\n2026-10-25 02:00:00,2\n",
            {"time_format": "iso", "time_zone": "Europe/Berlin"},
            [(1792889999, 1), (1792890000, 2)],
            id="the end of summer time",
        ),
        pytest.param(
            "t,P\n00:00:01:500,1\n00:00:02:250,2\n",
            {"time_format": "%H:%M:%S:%f"},
            [(1.5, 1), (2.25, 2)],
            id="milliseconds behind a colon",
        ),
    ],
)  # fmt: skip
def test_what_is_read(tmp_path: Path, content: str | bytes, how: dict[str, Any], expected: Any) -> None:
    if isinstance(expected, str):
        with pytest.raises(RecordError, match=expected):
            read(tmp_path, content, **how)
        return
    recording = read(tmp_path, content, **how)
    assert seen(recording) == expected
    assert not recording.faults
    check_meter(tmp_path / "m.csv", meter(**how))


PLACES = {"time": "#1", "columns": {"#2": "W"}}


@pytest.mark.parametrize(
    ("content", "how", "said", "hint"),
    [
        ("t;P\n0,0;1\n0,1;2\n", {"delimiter": ";"}, "m.csv:2: '0,0' is no time", "decimal: ','"),
        ("t;P\n0;1,5\n1;2,5\n", {"delimiter": ";"}, "expected numbers, no row has one in 'P'", "decimal: ','"),
        ("t;P\n0.5;1\n1.5;2\n", {"delimiter": ";", "decimal": ","}, "'0.5' is no time", "leave targets.NAME.meter.decimal out"),
        ("t;P\n0;1.234,5\n1;1.234,5\n", {"delimiter": ";", "decimal": ","}, "expected numbers", "separators of thousands"),
        ('t,P\n0,"1,234.5"\n1,"1,234.5"\n', {}, "expected numbers", "separators of thousands"),
        ("t;P\n0;1'234.5\n1;1'234.5\n", {"delimiter": ";"}, "expected numbers", "separators of thousands"),
        ("t,P\n0,0,100,5\n0,1,101,5\n", {"decimal": ","}, "line 2 has 4 cells, its heading 2", "seem to be a comma both"),
        ("t;P\n0;1\n1;2\n", {}, "no line has the headings 't', 'P'", "set targets.NAME.meter.delimiter: ';'"),
        ("t\tP\n0\t1\n", {}, "no line has the headings", 'set targets.NAME.meter.delimiter: "\\t"'),
        ("T,p\n0,1\n1,2\n", {}, "missing are 't', 'P', found was 'T', 'p'", "the file writes 'T', 'p'"),
        ("t,µ\n0,1\n".encode("cp1252") + b"\xb5,\xf6\n", {}, "missing are 'P'", "encoding"),
        ("t,P\n0,1\n1,2\n".encode("utf-16-le"), {}, "no line has the headings", "encoding: utf-16-le"),
        (b"\x1f\x8b\x08\x00" + b"x" * 50, {}, "it is compressed", "CSV"),
        (b"PK\x03\x04" + b"x" * 50 + b"\n", {}, "it is an archive", "CSV"),
        ("t,P\r0,1\r1,2\r", {}, "no line has the headings", "CR alone"),
        ("t,P\n2026-01-01 12:00:00,1\n2026-01-01 12:00:01,2\n", {}, "m.csv:2: '2026-01-01 12:00:00' is no time", "time_format: 'iso'"),
        ("t,P\n(s),(W)\n25.12.2026 12:00:00,1\n", {}, "m.csv:3: '25.12.2026 12:00:00' is no time", "'%d.%m.%Y %H:%M:%S'"),
        ("t,P\n01/02/2026 12:00:00,1\n", {}, "is no time", "'%d/%m/%Y %H:%M:%S' or '%m/%d/%Y %H:%M:%S'"),
        ("t,P\n00:01.5,1\n", {}, "is no time", "'%M:%S'"),
        ("t,P\n2026-01-01 12:00:00,1\n", {"time_format": "iso", "clock": "host"}, "is no time", "time_zone: UTC, +02:00"),
        ("t,P\n2026-01-01 12:00:00,1\n", {"time_format": "%d.%m.%Y %H:%M:%S"}, "is no time", "time_format: 'iso'"),
        ("t,P\n0,1\n", {"time_format": "iso", "time_zone": "Europe/Atlantis"}, "knows no time zone 'Europe/Atlantis'", "UTC"),
        ("t,P\n0,0x1f\n1,0x20\n", {}, "expected numbers", "hexadecimal"),
        ("t,P\n0,1 A\n1,2 A\n", {}, "expected numbers", "not the one that targets.NAME.meter.columns says"),
        ("t,P\n-1,1\n0,2\n", {}, "m.csv:2: the time is negative, '-1'", "time_offset_s"),
        ("t,P,P\n0,1,2\n1,1,2\n", {}, "several columns have the heading 'P'", "'#2' or '#3'"),
        ("t,P\n0,1\n1,2\n", {"columns": {"#3": "W"}}, "column '#3' of a heading of 2 cells", "count the columns"),
        ("t,P\n0,1\n1,2\n", {"columns": {"P": "W", "#2": "W"}}, "names two columns that are one", "count the columns"),
        ("t,P\n0,1\n1,2\nnoon,3\n3,4\n", {}, "m.csv:4: 'noon' is no time", "the line is damaged"),
        ("t,P\n0,1\n1,2\n\x00\x00,\n3,4\n", {}, r"m.csv:4: '\x00\x00' is no time", "NUL bytes"),
        ("t,P\n0,1\n1,2\n" + "x,y\n" * 60, {}, "m.csv:4: 'x' is no time", "targets.NAME.meter.time"),
        ("t,P\n5,1\n6,2\nt,P\n0,1\n1,2\n", {}, "m.csv:5: the time does not increase", "started again in line 4"),
        ("t,P\n5,1\n6,2\n5.5,1\n", {}, "m.csv:4: the time does not increase", "begin a new file"),
        ("t,P\n5,1\n5,2\n5,1\n", {}, "m.csv:3: the time is that of the row before", "more digits"),
        ("t,P\n08:00:00,1\n07:00:00,2\n", {"time_format": "%H:%M:%S"}, "m.csv:3: the time does not increase", "clock was set"),
        ("a,b\n0,1,2\n", PLACES, "fewer than two samples", "still writing"),
        ("a b\nc d\n", PLACES, "'a b' is no time", "targets.NAME.meter.time"),
    ],
)  # fmt: skip
def test_what_is_refused_says_what_to_set(
    tmp_path: Path, content: str | bytes, how: dict[str, Any], said: str, hint: str
) -> None:
    with pytest.raises(RecordError) as caught:
        read(tmp_path, content, **how)
    assert said in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ("2,3,9", "line 4 has 3 cells, its heading 2"),
        ("2", "no cell"),
        ("2,OL", "'OL'"),
        ("2,inf", "'inf'"),
        ("2,1_0", "'1_0'"),
        ('2,"1,234.5"', "'1,234.5'"),
        ("2,3 mW", "'3 mW'"),
    ],
)
def test_a_row_that_says_something_else_is_a_fault(tmp_path: Path, row: str, detail: str) -> None:
    recording = read(tmp_path, f"t,P\n0,1\n1,2\n{row}\n3,4\n")
    assert seen(recording) == [(0, 1), (1, 2), (3, 4)]
    (fault,) = recording.faults
    assert (fault.t_ns, fault.kind, fault.detail) == (2 * S, FaultKind.not_a_number, detail)


def test_a_row_that_is_too_short_tells_nothing(tmp_path: Path) -> None:
    """Whose cell is missing nobody knows."""
    how = {"columns": {"U": "V", "I": "A"}, "delimiter": " "}
    recording = read(tmp_path, "t U I\n0 5 1\n1   1\n2 5 1\n", **how)
    assert [series.values for series in recording.series] == [(5, 5), (1, 1)]
    assert [fault.detail for fault in recording.faults] == ["line 3 has 2 cells, its heading 3", "no cell"]


def test_rows_of_one_time_are_one_sample(tmp_path: Path) -> None:
    """Stamps of whole seconds: the mean of what moves, the last of what adds up; how coarse they are is a bound of the clock."""
    rows = "t,P,E\n0,1,0\n0,2,1\n0,6,2\n1,4,3\n2,5,4\n2,7,5\n2,,6\n"
    how = {"columns": {"P": "W", "E": "J"}, "clock": "host", "clock_bound_s": 0.5}
    power, energy = read(tmp_path, rows, **how).series
    assert power.t_ns == energy.t_ns == (0, S, 2 * S)
    assert power.values == pytest.approx((3, 4, 6))
    assert energy.values == (2, 3, 6)
    assert power.channel.source == "m.csv: P (W), mean of rows with one time (4 more)"
    assert energy.channel.source == "m.csv: E (J), last of rows with one time (4 more)"
    header = read(tmp_path, rows, **how).header
    assert header.clock_bound_s == 1.5 and header.rate_hz == 1
    assert power.channel.refresh_s == 1, "its value is a mean over the second"
    own = read(tmp_path, rows, **{**how, "clock": "own", "clock_bound_s": 0})
    assert own.header.clock_bound_s == 0, "sync marks show where samples belong"


def test_a_file_without_equal_times_is_recorded_as_ever(tmp_path: Path) -> None:
    recording = read(tmp_path, "t,P\n0,1\n1,2\n", clock="host", clock_bound_s=0.5)
    assert recording.header.clock_bound_s == 0.5
    (channel,) = recording.header.channels
    assert (channel.source, channel.refresh_s) == ("m.csv: P (W)", None)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_only_what_was_added_is_read_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    path, unit = tmp_path / "m.csv", meter(columns={"P (µW)": "uW"})
    first = "t,P (µW)\n" + "".join(f"{i},{i}\n" for i in range(3000))
    whole = first + "3000,1\n3001,2\n3002,"
    path.write_bytes(first.encode(encoding))
    start = complete_bytes(path, unit)
    assert start == len(first.encode(encoding))
    path.write_bytes(whole.encode(encoding))
    assert complete_bytes(path, unit) == len(whole.removesuffix("3002,").encode(encoding))
    recording = read_meter(path, unit, start)
    assert recording.torn
    assert recording.series[0].t_ns == (3000 * S, 3001 * S)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_the_end_of_the_last_line_is_found_between_bytes_that_look_like_it(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "m.csv").write_bytes("a\nĊਊ਀".encode(encoding))
    assert complete_bytes(tmp_path / "m.csv", meter(encoding=encoding)) == 4


# -- before the first trial ------------------------------------------------------------------------------------------


def test_lines_that_never_end_are_seen_before_the_first_trial(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("t,P\r0,1\r1,2\r", newline="")
    with pytest.raises(RecordError, match="no line has the headings") as caught:
        check_meter(tmp_path / "m.csv", meter())
    assert "CR alone" in (caught.value.hint or "")


@pytest.mark.parametrize("content", ["", "t,P", "t,P\n", "t,P\n0,1\n", "# log\nt,P\n(s),(W)\n", "t,P\n0,1\n1,2\n2,"])
def test_a_file_that_has_only_begun_is_left_for_later(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.csv").write_text(content)
    check_meter(tmp_path / "m.csv", meter())


def test_what_was_before_the_last_heading_does_not_count(tmp_path: Path) -> None:
    """The program was started again on a clock that begins at 0, as it will go on."""
    (tmp_path / "m.csv").write_text("t,P\n5,1\n6,x\nnoon,2\nt,P\n0,1\n1,2\n")
    check_meter(tmp_path / "m.csv", meter())


def test_the_end_of_a_long_file_is_looked_at(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i % 7}\n" for i in range(20_000))
    (tmp_path / "m.csv").write_text(f"t,P\n{rows}")
    check_meter(tmp_path / "m.csv", meter())
    (tmp_path / "m.csv").write_text(f"t,P\n{rows}5,1\n")
    with pytest.raises(RecordError, match="m.csv:20002: the time does not increase, from 19999"):
        check_meter(tmp_path / "m.csv", meter())


def test_a_campaign_says_what_is_wrong_with_a_meter_before_it_begins(tmp_path: Path) -> None:
    entry = (
        "targets: {host: {meter: {file: m.csv, time: t, columns: {P: W}, delimiter: ;}}, other: {kind: host, meter: "
    )
    entry += "{file: none.csv, time: t, columns: {P: W}}}}\n"
    loaded = load_manifest(write(tmp_path, GOOD + entry))
    (tmp_path / "m.csv").write_text("t;P\n0,0;100,5\n0,1;101,5\n")
    with pytest.raises(ManifestError) as caught:
        require_meters(loaded, ["host", "other"])
    first, second = caught.value.problems
    assert first.field == "targets.host.meter" and first.line
    assert "m.csv:2: '0,0' is no time" in first.message
    assert first.suggestion is not None and "set targets.host.meter.decimal: ','" in first.suggestion
    assert "none.csv does not exist" in second.message and "start the program" in (second.suggestion or "")
    (tmp_path / "m.csv").write_text("t;P\n0;1\n")
    require_meters(loaded, ["host"])


def test_a_meter_that_writes_faster_than_it_is_read_ends_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there when reading begins is read, and what comes meanwhile is left for the next trial."""
    path = tmp_path / "m.csv"
    path.write_text("t,P\n0,1\n1,2\n")

    def cells(line: str, delimiter: str) -> list[str]:
        with path.open("a") as file:
            file.write("".join(f"{path.stat().st_size + i},3\n" for i in range(2)))
        return line.strip().split(delimiter)

    monkeypatch.setattr("meltrepro.measure.meterrows.cells_of", cells)
    assert seen(read_meter(path, meter())) == [(0, 1), (1, 2)]
