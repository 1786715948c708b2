"""How long logging to MLflow takes: 100,000 samples to a SQLite database. Goal: within 45 s.

Once as a single series, which is thinned, and once as ten series that are short enough to be logged whole, so that all
samples become points in MLflow.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Literal

from meltrepro.track import database, places, quiet
from tests.support.campaigns import MS, Cell, Trial, Turn, build_campaign

SAMPLES = 100_000
TURNS = 10


def main() -> None:
    """Print one line a measure."""
    began = time.perf_counter()
    with quiet.importing():
        from meltrepro.track import mlflow_tracker
    print(f"{'import mlflow':24}{time.perf_counter() - began:8.1f} s")
    for name, repetitions, detail in _CASES:
        with tempfile.TemporaryDirectory() as folder:
            local = places.LocalDatabase(Path(folder) / "mlflow.db")
            began = time.perf_counter()
            database.ensure(local)
            print(f"{'new database':24}{time.perf_counter() - began:8.1f} s")
            cell = _cell(SAMPLES // repetitions)
            records = build_campaign(Path(folder), [cell], repetitions=repetitions, warmups=0)
            for what in (name, "the same again"):
                before = _points(local.path)
                began = time.perf_counter()
                mlflow_tracker.sync(records, f"sqlite:///{local.path}", detail=detail)
                seconds = time.perf_counter() - began
                print(f"{what:24}{seconds:8.1f} s, {_points(local.path) - before} points")


_CASES: tuple[tuple[str, int, Literal["first", "all"]], ...] = (
    ("one series, thinned", 1, "first"),
    ("ten series, whole", 10, "all"),
)


def _cell(samples: int) -> Cell:
    rng = random.Random(1)
    turns = [
        Turn(gaps_ns=tuple(round(MS * rng.lognormvariate(3, 0.1)) for _ in range(samples // TURNS)))
        for _ in range(TURNS)
    ]
    return Cell(trial=Trial(conversations=[turns]))


def _points(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM metrics").fetchone()[0])
    finally:
        connection.close()


if __name__ == "__main__":
    main()
