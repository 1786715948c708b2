"""Tables as LaTeX with booktabs, to be taken into a paper with \\input."""

from __future__ import annotations

from meltrepro.report.narrow import narrowed
from meltrepro.report.values import (
    NUMERIC,
    Absent,
    Column,
    Estimate,
    Remarks,
    Table,
    Tags,
    Value,
    interval,
    number,
    plain,
    quantity,
)

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
    narrow = narrowed(full)
    table = narrow.table
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
    lines += [
        rf"\par\footnotesize {note}" for note in [*notes, *map(escape, filter(None, (narrow.common, *table.notes)))]
    ]
    return "\n".join([*lines, ""])


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(column: Column, value: Value, reasons: dict[str, int]) -> str:
    if isinstance(value, Absent):
        note = reasons.setdefault(value.reason, len(reasons) + 1)
        return rf"{escape(value.shown)}\textsuperscript{{{note}}}"
    if isinstance(value, Estimate):
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
