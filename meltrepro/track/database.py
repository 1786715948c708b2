"""A new MLflow database appears whole or not at all.

MLflow lays its tables down in dozens of migrations. A process that is stopped between two of them leaves a database
that no later one can use or mend, so it is made under another name and moved into place when it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from meltrepro.atomic import make_folder, writing
from meltrepro.store.locks import exclusive
from meltrepro.track import quiet
from meltrepro.track.places import LocalDatabase


def ensure(database: LocalDatabase) -> None:
    """Make a SQLite database of MLflow where there is none, in seconds; raises `StoreError` and what MLflow raises."""
    if database.path.exists():
        return
    make_folder(database.path.parent)
    with exclusive(database.path.with_name(f".{database.path.name}.lock"), "the MLflow database"):
        if not database.path.exists():  # nobody was faster
            _make(database)


def _make(database: LocalDatabase) -> None:
    with quiet.importing():
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
