"""How long the logging of a long run takes: 100,000 token times, goal 45 s, none of it while anything is measured.

    python -m tests.benchmarks.mlflow_logging [--samples 100000] [--server]

Each row logs the same synthetic trial into a database of its own. "thinned" is what a sync does by default, "every
sample" logs each of them as a step of a metric; the artifact holds all of them either way. With `--server` everything
goes through a real MLflow server instead of straight into the SQLite file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meltrepro.measure.records import read_campaign
from meltrepro.track import content, environment, places
from meltrepro.track.mlflow_tracker import sync
from meltrepro.track.server import serve
from tests.support.campaigns import Cell, Trial, Turn, build_campaign

with environment.importing():
    from mlflow import MlflowClient

GOAL_S = 45.0
_TURN = 1000
"""Samples of one turn."""


def main() -> int:
    """Print the table; returns 1 where the goal is missed or a sample is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--server", action="store_true", help="log through an MLflow server")
    arguments = parser.parse_args()
    rows = [("thinned", content.SERIES_POINTS), ("every sample", arguments.samples)]
    met = True
    print(f"{'series':14} {'samples':>8} {'points':>8} {'read s':>8} {'sync s':>8} {'points/s':>9} {'again s':>8}")
    for name, points in rows:
        with tempfile.TemporaryDirectory() as folder:
            met &= _row(name, Path(folder), arguments.samples, points, through_server=arguments.server)
    print(f"goal: {GOAL_S:.0f} s for 100,000 samples: {'met' if met else 'MISSED'}")
    return 0 if met else 1


def _row(name: str, home: Path, samples: int, points: int, *, through_server: bool) -> bool:
    turns = [
        Turn(gaps_ns=tuple(20_000_000 + (turn * _TURN + i) % 997 for i in range(_TURN)))
        for turn in range(samples // _TURN)
    ]
    folder = build_campaign(home, [Cell(trial=Trial(conversations=[turns]))], repetitions=1, warmups=0)
    started = time.perf_counter()
    assert read_campaign(folder).cells[0].summaries["generated_tokens"].median == samples + len(turns)
    read_s = time.perf_counter() - started
    environment.ensure_database(places.LocalDatabase(home / "mlflow.db"))  # once per machine, not per run
    content.SERIES_POINTS = points
    with _place(home, through_server=through_server) as uri:
        started = time.perf_counter()
        tracked = sync(folder, uri)
        sync_s = time.perf_counter() - started
        started = time.perf_counter()
        sync(folder, uri)
        again_s = time.perf_counter() - started
        (run_id,) = tracked.cell_run_ids.values()
        client = MlflowClient(tracking_uri=uri)
        logged = len(client.get_metric_history(run_id, "inter_token_ms/r000"))
        events = Path(client.download_artifacts(run_id, "trials/r000/events.jsonl", str(home)))
        kept = events.read_bytes().count(b'"token"')
    print(
        f"{name:14} {samples:8} {logged:8} {read_s:8.1f} {sync_s:8.1f} {logged / sync_s:9.0f} {again_s:8.1f}",
        flush=True,
    )
    whole = kept == samples + len(turns) and (points < samples or logged == samples)
    return whole and sync_s <= GOAL_S * max(1.0, samples / 100_000)


@contextmanager
def _place(home: Path, *, through_server: bool) -> Iterator[str]:
    uri = f"sqlite:///{home / 'mlflow.db'}"
    if not through_server:
        yield uri
        return
    with serve(uri, home / "run") as server:
        yield server.url


if __name__ == "__main__":
    sys.exit(main())
