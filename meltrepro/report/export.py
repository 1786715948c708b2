"""Tables as files: CSV with every figure in full (RFC 4180), and LaTeX with booktabs for \\input."""

from __future__ import annotations

import csv
import io

from meltrepro.report.values import (
    NUMERIC,
    Absent,
    Column,
    Median,
    Remarks,
    Table,
    Tags,
    Value,
    exact,
    interval,
    narrowed,
    number,
    plain,
    quantity,
)

_PARTS = ("", "_low", "_high", "_n")
_FORMULA = ("=", "+", "-", "@")


def as_csv(table: Table) -> str:
    """The whole table; one without rows has its header and its reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    header = [name for column in table.columns for name in _names(column)]
    writer.writerow([*map(safe, header), "absent"])
    if table.reason is not None:
        writer.writerow([*[""] * len(header), safe(f"{table.gap}: {table.reason}")])
    for row in table.rows:
        fields = [field for column, value in zip(table.columns, row, strict=True) for field in _fields(column, value)]
        reasons = [
            f"{column.key}: {value.reason}"
            for column, value in zip(table.columns, row, strict=True)
            if isinstance(value, Absent)
        ]
        writer.writerow([*fields, safe("; ".join(reasons))])
    return out.getvalue()


def _names(column: Column) -> list[str]:
    return [column.key + part for part in _PARTS] if column.kind == "estimate" else [column.key]


def _fields(column: Column, value: Value) -> list[str]:
    if isinstance(value, Median):
        return [exact(value.median), exact(value.low), exact(value.high), str(value.n)]
    return [_field(column, value)] + [""] * (len(_names(column)) - 1)


def _field(column: Column, value: Value) -> str:
    if isinstance(value, Absent):
        return "" if column.kind in NUMERIC else safe(value.shown)
    if isinstance(value, Tags):
        return safe(";".join(value.names))
    if isinstance(value, Remarks):
        return safe(str(value))
    if isinstance(value, float):
        return exact(value)
    return "" if value is None else str(value) if isinstance(value, int) else safe(str(value))


def safe(value: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "[": "{[}",
    "]": "{]}",
    "-": "{-}",
    "–": r"\textendash{}",
    "…": r"\textellipsis{}",
    "°": r"\textdegree{}",
    "µ": r"\textmu{}",
    "×": r"\texttimes{}",
    "·": r"\textperiodcentered{}",
    "±": r"\textpm{}",
}
"""Whatever TeX takes for a command, or draws as something else."""


def escape(text: str) -> str:
    """Text that TeX sets as it is; letters beyond Latin, which ordinary fonts lack, become question marks."""
    return "".join(_ESCAPES.get(char, char if char.isascii() or "À" <= char <= "ſ" else "?") for char in plain(text))


def as_latex(full: Table) -> str:
    """A `tabular` with its title, notes and reasons below it; needs the packages booktabs and textcomp (T1 fonts)."""
    table, common = narrowed(full)
    lines = [f"% {escape(table.title)}", r"% \usepackage[T1]{fontenc} \usepackage{textcomp,booktabs}"]
    if table.reason is not None:
        return "\n".join([*lines, rf"\emph{{{escape(f'{table.gap}: {table.reason}')}}}", ""])
    reasons: dict[str, int] = {}
    columns = "".join(
        "r" if column.kind in NUMERIC else "p{4cm}" if column.kind == "prose" else "l" for column in table.columns
    )
    lines += [
        r"\begin{tabular}{@{}" + columns + r"@{}}",
        r"\toprule",
        _line([escape(column.title) for column in table.columns]),
        r"\midrule",
        *(
            _line([_cell(column, value, reasons) for column, value in zip(table.columns, row, strict=True)])
            for row in table.rows
        ),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    notes = [rf"\textsuperscript{{{n}}} {escape(reason)}" for reason, n in reasons.items()]
    lines += [rf"\par\footnotesize {note}" for note in [*notes, *map(escape, filter(None, (common, *table.notes)))]]
    return "\n".join([*lines, ""])


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(column: Column, value: Value, reasons: dict[str, int]) -> str:
    if isinstance(value, Absent):
        note = reasons.setdefault(value.reason, len(reasons) + 1)
        return rf"{escape(value.shown)}\textsuperscript{{{note}}}"
    if isinstance(value, Median):
        around = interval(value)
        return escape(number(value.median)) + (rf" {{\small({escape(around)})}}" if around else "")
    if isinstance(value, Remarks):
        notes = {one.short: reasons.setdefault(str(Remarks((one,))), len(reasons) + 1) for one in value.each}
        return ", ".join(rf"{escape(short)}\textsuperscript{{{note}}}" for short, note in notes.items())
    if isinstance(value, Tags):
        return escape(", ".join(value.names))
    if isinstance(value, float):
        return escape(quantity(value) if column.kind == "known" else number(value))
    text = "" if value is None else str(value)
    return escape(text[:12] if column.kind == "digest" and len(text) in (40, 64) else text)
