"""What MLflow finds around it in this process: quiet settings, the login that it may use, a database that is whole.

A variable that the user has set stays as it is.

MLflow takes the user's login from variables, from ~/.mlflow/credentials and, through its HTTP library, from ~/.netrc,
whatever the server, and asks again for each request.

It lays the tables of a new database down in dozens of migrations. A process that is stopped between two of them leaves a
database that no later one can use or mend, so it is made under another name and moved into place when it is complete.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any

from meltrepro.atomic import make_folder, writing
from meltrepro.store.locks import exclusive
from meltrepro.track.places import LocalDatabase

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that dies is given up soon; what is not logged now is logged by the next sync.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
_LOCKED_S = 30
_ADDRESSES = (
    ("runs", "artifact_uri", "experiment_id = ?"),
    (
        "trace_tags",
        "value",
        "key = 'mlflow.artifactLocation' AND request_id IN (SELECT request_id FROM trace_info WHERE experiment_id = ?)",
    ),
)
"""Table, column and rows of an experiment."""
_LOGIN = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_WORKSPACE",
)


def settle() -> None:
    """Put the variables in place for this process; MLflow reads most of them whenever it needs them."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def importing() -> Iterator[None]:
    """Import mlflow inside this block."""
    settle()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("alembic").setLevel(logging.WARNING)


@contextmanager
def login_withheld() -> Iterator[None]:
    """For the block, nobody in this process finds a login, and no server can send MLflow on to another one."""
    with TemporaryDirectory(prefix="meltrepro-") as empty:
        changes = {**dict.fromkeys(_LOGIN), "HOME": empty, "NETRC": os.devnull}
        changes["MLFLOW_ALLOW_HTTP_REDIRECTS"] = "false"
        before = {name: os.environ.get(name) for name in changes}
        _apply(changes)
        try:
            yield
        finally:
            _apply(before)


def ensure_database(database: LocalDatabase) -> None:
    """Make a SQLite database of MLflow where there is none, in seconds; raises `StoreError` and what MLflow raises."""
    if database.path.exists():
        rebind(database)
        return
    make_folder(database.path.parent)
    with exclusive(database.path.with_name(f".{database.path.name}.lock"), "the MLflow database"):
        if not database.path.exists():  # nobody was faster
            _make_database(database)


def rebind(database: LocalDatabase) -> None:
    """Let a database that was moved or copied say where its files are now: beside it, and no longer where they were.

    Only what this program laid there is meant (`LocalDatabase.bound`), and the default experiment beside that. A database that
    cannot be read or written is left to MLflow, which says why.
    """
    if not database.path.exists():
        return
    with suppress(sqlite3.Error), closing(sqlite3.connect(database.path, timeout=_LOCKED_S)) as connection, connection:
        found = connection.execute("SELECT experiment_id, name, artifact_location FROM experiments").fetchall()
        moved = [
            (id, str(old), new)
            for id, name, old in found
            if (new := database.bound(str(name), str(old))) is not None and new != old
        ]
        folders = {old.rpartition("/")[0] for _, old, _ in moved}
        default = (database.artifacts / "0").as_uri()
        moved += [(id, old, default) for id, _, old in found if str(old) in {f"{each}/0" for each in folders}]
        for id, old, new in moved:
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, id))
            for table, column, rows in _ADDRESSES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {rows} AND substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, id, len(old) + 1, f"{old}/"),
                )


def _make_database(database: LocalDatabase) -> None:
    with importing():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    prefix = f".{database.path.name}.part-"
    with writing(database.path):
        for leftover in database.path.parent.glob(f"{prefix}*"):
            leftover.unlink()
        part = database.path.with_name(f"{prefix}{os.getpid()}")
        open_store: Callable[[str, str], Any] = SqlAlchemyStore
        try:
            open_store(f"sqlite:///{part}", database.artifacts.as_uri()).engine.dispose()
            part.rename(database.path)
        finally:
            part.unlink(missing_ok=True)


def _apply(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
