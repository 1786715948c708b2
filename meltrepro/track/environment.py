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
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        return
    make_folder(database.path.parent)
    with exclusive(database.path.with_name(f".{database.path.name}.lock"), "the MLflow database"):
        if not database.path.exists():  # nobody was faster
            _make_database(database)


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
