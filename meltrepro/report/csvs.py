"""Tables as CSV (RFC 4180): every figure in full, intervals in columns of their own, reasons instead of gaps."""

from __future__ import annotations

import csv
import io

from meltrepro.report.values import NUMERIC, Absent, Column, Estimate, Remarks, Table, Tags, Value, exact, plain

_PARTS = ("", "_low", "_high", "_n")
_FORMULA = ("=", "+", "-", "@")


def as_csv(table: Table) -> str:
    """The whole table; one without rows has its header and its reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    header = [name for column in table.columns for name in _names(column)]
    writer.writerow([*map(_text, header), "absent"])
    if table.reason is not None:
        writer.writerow([*[""] * len(header), _text(f"{table.gap}: {table.reason}")])
    for row in table.rows:
        fields = [field for column, value in zip(table.columns, row, strict=True) for field in _fields(column, value)]
        reasons = [
            f"{column.key}: {value.reason}"
            for column, value in zip(table.columns, row, strict=True)
            if isinstance(value, Absent)
        ]
        writer.writerow([*fields, _text("; ".join(reasons))])
    return out.getvalue()


def _names(column: Column) -> list[str]:
    return [column.key + part for part in _PARTS] if column.kind == "estimate" else [column.key]


def _fields(column: Column, value: Value) -> list[str]:
    if isinstance(value, Estimate):
        return [exact(value.median), exact(value.low), exact(value.high), str(value.n)]
    return [_field(column, value)] + [""] * (len(_names(column)) - 1)


def _field(column: Column, value: Value) -> str:
    if isinstance(value, Absent):
        return "" if column.kind in NUMERIC else _text(value.shown)
    if isinstance(value, Tags):
        return _text(";".join(value.names))
    if isinstance(value, Remarks):
        return _text(str(value))
    if isinstance(value, float):
        return exact(value)
    return "" if value is None else str(value) if isinstance(value, int) else _text(str(value))


def _text(value: str) -> str:
    """Text that a spreadsheet does not take for a formula."""
    text = plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
