"""Where results are logged: which URI counts, who named it, and what lies beside a local database.

What the user did not name is not the user's: it is given no login (`track.environment`), and a campaign on disk, which may be a
stranger's, is not logged to it at all.
"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from meltrepro.errors import TrackingError
from meltrepro.store.names import redact

_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class LocalDatabase:
    """A SQLite file of MLflow."""

    path: Path

    @property
    def artifacts(self) -> Path:
        """Where artifacts go that are logged to it."""
        return self.path.parent / "mlartifacts"

    def holds(self, run_id: str) -> bool:
        """Whether it has a run, without MLflow, which takes seconds."""
        if not self.path.exists():
            return False
        try:
            with closing(sqlite3.connect(self.path, timeout=30)) as connection:
                return connection.execute("SELECT 1 FROM runs WHERE run_uuid = ?", (run_id,)).fetchone() is not None
        except sqlite3.Error:  # no database of MLflow, which says so itself
            return False

    def location(self, experiment: str) -> str:
        """The address of an experiment's files, which lie beside it."""
        return (self.artifacts / safe_name(experiment)).as_uri()

    def bound(self, experiment: str, address: str) -> str | None:
        """What an address of an experiment's files, or of files below, is now; `None` for one of somebody else's.

        The folder of an experiment's own name in `mlartifacts` was laid there by this program, wherever the database was then.
        """
        home, mark, below = unquote(address).rpartition(f"/{self.artifacts.name}/{safe_name(experiment)}")
        if not home.startswith("file:") or not mark or below[:1] not in ("", "/") or ".." in below.split("/"):
            return None
        return self.location(experiment) + quote(below)


@dataclass(frozen=True)
class Place:
    uri: str
    trusted: bool = False
    """Whether the user named it, in the environment or by settings, and not only a manifest or a record."""

    @property
    def shown(self) -> str:
        """The URI as it may be printed and stored."""
        return redact(self.uri)


def choose(environ: Mapping[str, str], manifest_uri: str | None, default: str) -> Place:
    """MLFLOW_TRACKING_URI, else what the manifest or record says, else the default; raises `TrackingError` for no URI."""
    named = environ.get("MLFLOW_TRACKING_URI") or (default if not manifest_uri else None)
    chosen = named or manifest_uri or default
    try:
        _ = urlsplit(chosen).port
    except ValueError as error:
        raise TrackingError(
            f"the tracking server's address is no URI: {error}",
            hint="mend MLFLOW_TRACKING_URI, or tracking.uri of the manifest; then: meltrepro sync",
        ) from error
    return Place(absolute(chosen), trusted=named is not None)


def is_own(place: Place, default: str) -> bool:
    """Whether a campaign on disk may be logged to a place: the user named it, or it is a database beside the default one."""
    one, other = local_database(place.uri), local_database(default)
    beside = one is not None and other is not None and one.path.resolve().parent == other.path.resolve().parent
    return place.trusted or beside


def foreign(place: Place, campaigns: Sequence[str]) -> TrackingError:
    """Why campaigns are not logged to a place, and how the user lets them."""
    names = " ".join(campaigns)
    return TrackingError(
        f"{names}: not logged to {place.shown}, which only the record names",
        hint=f"if that is where it shall go: MLFLOW_TRACKING_URI={shlex.quote(place.shown)} meltrepro sync {names}",
    )


def noted(place: Place, folder: Path) -> str:
    """How a campaign's folder notes a place: a database of the same home by the way there, so that both can move together."""
    database = local_database(place.uri)
    home = folder.resolve().parent.parent
    if database is None or not database.path.resolve().is_relative_to(home):
        return place.shown
    return f"{_SQLITE}{os.path.relpath(database.path.resolve(), folder.resolve())}"


def safe_name(text: str) -> str:
    """A text as one component of a path."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")[:100] or "_"


def same_server(uri: str, other: str) -> bool:
    """Whether two addresses are of one web server: same scheme, host and port."""
    try:
        one, two = urlsplit(uri), urlsplit(other)
        return is_server(uri) and (one.scheme, one.hostname, one.port) == (two.scheme, two.hostname, two.port)
    except ValueError:
        return False


def absolute(uri: str) -> str:
    """The URI with the path of a SQLite file made absolute."""
    database = local_database(uri)
    return f"{_SQLITE}{database.path}" if database else uri


def local_database(uri: str) -> LocalDatabase | None:
    """The SQLite file behind a URI; `None` for a server or another database."""
    if not uri.startswith(_SQLITE) or "?" in uri or uri == _SQLITE:
        return None
    return LocalDatabase(Path(uri.removeprefix(_SQLITE)).absolute())


def is_server(uri: str) -> bool:
    """Whether a URI is that of a running MLflow server."""
    return uri.partition("://")[0].lower() in ("http", "https")


def compare_link(server: str, experiment_id: str, run_ids: list[str]) -> str:
    """Address of MLflow's page that puts runs side by side."""
    runs = quote("[" + ",".join(f'"{run_id}"' for run_id in run_ids) + "]", safe="")
    experiments = quote(f'["{experiment_id}"]', safe="")
    return f"{server.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}"


def run_link(server: str, experiment_id: str, run_id: str, artifact: str = "") -> str:
    """Address of a run's page, or of one of its artifacts; without the type of work MLflow takes the run for one of agents."""
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
    return f"{page}{f'/artifacts/{artifact}' if artifact else ''}?workflowType=machine_learning"
