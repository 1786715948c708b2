"""How long the logging of a long run takes: 1,000,000 tokens; goals: CPU time of 3 s for their table, of 5 s for
what MLflow charts of them.

    python -m tests.benchmarks.mlflow_logging [--samples 1000000] [--server]

The record of one synthetic trial goes into a database of its own. "parquet": all tokens to a table, and that to the
artifacts. "summary": the medians, intervals and the thinned curve, to metrics. "sync": everything of the campaign, reading
its events included. "again": a sync with nothing to do. None of it while anything is measured. With `--server` everything
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

from pyarrow import parquet

from meltrepro.measure.records import read_campaign
from meltrepro.track import content, environment, places
from meltrepro.track.mlflow_tracker import sync
from meltrepro.track.server import serve
from meltrepro.track.tokens import token_table
from tests.benchmarks._table import figure, finish
from tests.support.campaigns import Cell, Trial, Turn, build_campaign

with environment.importing():
    from mlflow import MlflowClient
    from mlflow.entities import Metric

TABLE_S, SUMMARY_S = 3.0, 5.0
_TURN = 1000
"""Samples of one turn."""
_BATCH = 1000


def main() -> int:
    """Print the times; 1 where a goal is missed. Raises where a token is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--server", action="store_true", help="log through an MLflow server")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return _measure(Path(folder), arguments.samples, through_server=arguments.server)


def _measure(home: Path, samples: int, *, through_server: bool) -> int:
    turns = [
        Turn(gaps_ns=tuple(20_000_000 + (turn * _TURN + i) % 997 for i in range(_TURN)))
        for turn in range(samples // _TURN)
    ]
    folder = build_campaign(home, [Cell(trial=Trial(conversations=[turns]))], repetitions=1, warmups=0)
    times: dict[str, float] = {}
    with _timed(times, "read"):
        (cell,) = read_campaign(folder).cells
        assert cell.summaries["generated_tokens"].median == samples + len(turns)
    environment.ensure_database(places.LocalDatabase(home / "mlflow.db"))  # once per machine, not per run
    with _place(home, through_server=through_server) as uri:
        client = MlflowClient(tracking_uri=uri)
        run_id = client.create_run("0").info.run_id
        (trial,) = cell.repetitions
        trace = trial.trace()
        with _timed(times, "parquet"):
            (home / "r000.parquet").write_bytes(token_table(trace))
            client.log_artifact(run_id, str(home / "r000.parquet"), "tokens")
        with _timed(times, "summary"):
            points = [*content.summary_points(cell), *content.token_series(trial, trace)]
            metrics = [Metric(point.key, point.value, point.wall_ms, point.step) for point in points]
            for start in range(0, len(metrics), _BATCH):
                client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        with _timed(times, "sync"):
            tracked = sync(folder, uri)
        with _timed(times, "again"):
            sync(folder, uri)
        (cell_run,) = tracked.cell_run_ids.values()
        logged = client.download_artifacts(cell_run, "tokens/r000.parquet", str(home))
        whole = parquet.read_metadata(logged).num_rows == samples + len(turns)
    assert whole, "the table of tokens lacks some"
    share = max(1.0, samples / 1_000_000)
    goals = {"parquet": TABLE_S * share, "summary": SUMMARY_S * share}
    return finish(
        [
            figure(f"MLflow, {samples:,} tokens: {name}, CPU time", [seconds], "s", at_most=goals.get(name))
            for name, seconds in times.items()
        ]
    )


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    started = time.process_time()
    yield
    times[name] = time.process_time() - started


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
