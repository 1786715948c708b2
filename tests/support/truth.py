"""What virtual devices really drew, as the lab has written it down."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path


def drawn_j(truth: Path, columns: Sequence[str], begin_ns: int, end_ns: int, *, metered: bool = False) -> float:
    """Energy by the sum of some columns of watts: what its files say holds until they say something else.

    A meter beside it, `metered`, shows what was drawn when it was drawn.
    """
    with truth.open(encoding="utf-8") as file:
        rows = [
            (int(row["begin_ns" if metered else "end_ns"]), sum(float(row[name]) for name in columns))
            for row in csv.DictReader(file)
            if row["end_ns"] != "end_ns"
        ]
    total = 0.0
    for (since, power), (until, _) in zip(rows, [*rows[1:], (end_ns, 0.0)], strict=True):
        total += power * max(0, min(until, end_ns) - max(since, begin_ns)) / 1e9
    return total
