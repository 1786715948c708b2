"""Fields of tables, and how they are written: for people, for programs, for TeX, whatever a record holds."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.report.export import _ESCAPES, as_csv, as_latex, escape
from meltrepro.report.values import Absent, Column, Median, Table, Tags, exact, narrowed, number, plain, quantity
from tests.support.reports import HOSTILE

ESTIMATE = Median(108.23, 105.9, 109.04, 5)
TABLE = Table(
    "sample",
    "A sample",
    (
        Column("model", "model"),
        Column("workload", "workload"),
        Column("speed_tps", "speed (tokens/s)", "estimate"),
        Column("energy_j", "energy (J)", "estimate"),
        Column("size_gb", "size (GB)", "known"),
        Column("tags", "tags", "tags"),
    ),
    (
        ("tiny", "chat", ESTIMATE, Absent("no meter"), 0.27, Tags(("virtual", "synthetic"))),
        ("large", "chat", ESTIMATE, Absent("no meter"), 8.0, Tags(())),
    ),
    notes=("A note.",),
)

TEX = re.compile(r"\\[{}$&#%_]|\\text[a-z]+\{\}|\{[\[\]-]\}|[^\\{}$&#%_^~<>|\"`'\[\]-]")
"""What a text may consist of that TeX sets as it stands."""


@pytest.mark.parametrize(
    ("value", "shown", "known"),
    [
        (0, "0", "0"),
        (8.0, "8.000", "8"),
        (108.23, "108.2", "108.2"),
        (999.96, "1,000", "1,000"),
        (12345.6, "12,346", "12,346"),
        (0.0123456, "0.01235", "0.01235"),
        (0.27, "0.2700", "0.27"),
        (-2.5, "-2.500", "-2.5"),
        (0.000012, "1.2e-05", "1.2e-05"),
        (3.2e12, "3.2e+12", "3.2e+12"),
        (float("inf"), "not finite", "not finite"),
    ],
)
def test_numbers_have_four_digits_that_count(value: float, shown: str, known: str) -> None:
    assert number(value) == shown
    assert quantity(value) == known


def test_a_table_has_rows_or_a_reason() -> None:
    columns = (Column("a", "a"),)
    with pytest.raises(ValueError, match="rows or a reason"):
        Table("x", "x", columns, ())
    with pytest.raises(ValueError, match="rows or a reason"):
        Table("x", "x", columns, (("a",),), reason="none")
    with pytest.raises(ValueError, match="a row of 2 values for 1 columns"):
        Table("x", "x", columns, (("a", "b"),))


def test_csv_has_intervals_in_columns_and_reasons_at_the_end() -> None:
    first, *_ = csv.DictReader(io.StringIO(as_csv(TABLE)))
    assert first == {
        "model": "tiny",
        "workload": "chat",
        "speed_tps": "108.23",
        "speed_tps_low": "105.9",
        "speed_tps_high": "109.04",
        "speed_tps_n": "5",
        **dict.fromkeys(("energy_j", "energy_j_low", "energy_j_high", "energy_j_n"), ""),
        "size_gb": "0.27",
        "tags": "virtual;synthetic",
        "absent": "energy_j: no meter",
    }


def test_csv_of_an_empty_table_says_why() -> None:
    empty = Table("x", "x", (Column("a", "a"), Column("b", "b", "estimate")), (), reason="no meter, and no phone")
    (row,) = csv.DictReader(io.StringIO(as_csv(empty)))
    assert row["absent"] == "NOT MEASURED: no meter, and no phone"
    assert list(row) == ["a", "b", "b_low", "b_high", "b_n", "absent"]


def _of_text(text: str) -> Table:
    return Table("x", text, (Column("a", text), Column("b", "b")), ((text, Absent(text)),), notes=(text,))


@given(st.text())
def test_csv_gives_back_any_text_and_never_a_formula(text: str) -> None:
    header, row = csv.reader(io.StringIO(as_csv(_of_text(text)), newline=""))
    assert len(header) == len(row) == 3
    assert row[0].removeprefix("'") == plain(text).removeprefix("'")
    assert not row[0].startswith(("=", "+", "-", "@"))


@given(st.text())
def test_tex_gets_nothing_that_it_would_take_for_a_command(text: str) -> None:
    escaped = escape(text)
    assert "".join(TEX.findall(escaped)) == escaped
    assert "\n" not in escaped


@given(st.text(st.sampled_from([*_ESCAPES, *"abc XYZ019.,:;!?()/*=+@äé"])))
def test_tex_shows_what_was_written(text: str) -> None:
    back = {escape(char): char for char in _ESCAPES}
    shown = "".join(back.get(token, token) for token in TEX.findall(escape(text)))
    assert shown == plain(text)


@given(st.text())
def test_a_table_of_any_text_stays_a_table(text: str) -> None:
    lines = as_latex(_of_text(text)).splitlines()
    assert lines[2] == r"\begin{tabular}{@{}ll@{}}"
    rows = [line for line in lines if line.endswith(r" \\")]
    assert len(rows) == 2
    assert all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)
    assert sum(line == r"\end{tabular}" for line in lines) == 1


def test_latex_says_common_values_once_and_notes_below() -> None:
    text = as_latex(TABLE)
    assert r"tiny & 108.2 {\small(105.9\textendash{}109.0)} & \textendash{}\textsuperscript{1} & 0.27" in text
    assert r"\par\footnotesize \textsuperscript{1} no meter" in text
    assert "In all rows: workload chat." in text
    assert r"\toprule" in text


def test_tags_that_all_rows_have_stay_in_sight() -> None:
    tagged = Table(
        "x", "x", (Column("device", "device"), Column("tags", "tags", "tags")), (("phone", Tags(("virtual",))),) * 2
    )
    narrow, common = narrowed(tagged)
    assert [column.key for column in narrow.columns] == ["tags"]
    assert common == "In all rows: device phone."
    assert [column.key for column in narrowed(TABLE)[0].columns if column.key == "tags"] == ["tags"]


def test_what_cannot_be_seen_is_shown() -> None:
    shown = plain(HOSTILE)
    assert "\u202e" not in shown
    assert "\x00" not in shown
    assert "\n" not in shown
    assert shown.count("\ufffd") == 2


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_programs_get_six_digits(value: float) -> None:
    assert float(exact(value)) == pytest.approx(value, rel=1e-5)
