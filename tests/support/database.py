"""What an MLflow database holds, without the ids that differ from one run of MLflow to the next."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any


def contents(database: Path) -> dict[str, list[Any]]:
    """Runs, params, tags, metrics and spans, each row with the name of its run instead of the id, sorted."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        names = dict(connection.execute("SELECT run_uuid, name FROM runs WHERE lifecycle_stage = 'active'"))

        def named(value: Any) -> Any:
            return (
                re.sub(r"\b[0-9a-f]{32}\b", lambda id: names.get(id[0], id[0]), value)
                if isinstance(value, str)
                else value
            )

        def rows(query: str) -> list[Any]:
            found = [[named(value) for value in row] for row in connection.execute(query)]
            return sorted(found, key=lambda row: json.dumps(row))

        return {
            "experiments": rows("SELECT name, lifecycle_stage FROM experiments"),
            "runs": rows("SELECT name, status, start_time, end_time, lifecycle_stage FROM runs"),
            "params": rows("SELECT run_uuid, key, value FROM params"),
            "tags": rows("SELECT run_uuid, key, value FROM tags"),
            "metrics": rows("SELECT run_uuid, key, value, timestamp, step FROM metrics"),
            "latest": rows("SELECT run_uuid, key, value, step FROM latest_metrics"),
            "traces": rows("SELECT request_id, status, timestamp_ms, execution_time_ms, trace_name FROM trace_info"),
            "spans": rows(
                "SELECT trace_id, span_id, parent_span_id, name, start_time_unix_nano, end_time_unix_nano FROM spans"
            ),
        }
    finally:
        connection.close()


def artifacts(folder: Path, names: dict[str, str]) -> dict[str, bytes]:
    """Every artifact below a folder, with the name of its run instead of the id, and its bytes."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            parts = [names.get(part, part) for part in path.relative_to(folder).parts]
            found["/".join(parts)] = path.read_bytes()
    return found


def run_names(database: Path) -> dict[str, str]:
    """Run id -> run name."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return dict(connection.execute("SELECT run_uuid, name FROM runs"))
    finally:
        connection.close()
