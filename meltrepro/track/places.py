"""Where results are logged: which URI counts, who named it, and what lies beside a local database.

What the user did not name is not the user's: it is given no login (`track.environment`), and a campaign on disk, which may be a
stranger's, is not logged to it at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

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
        hint=f"if that is where it shall go: MLFLOW_TRACKING_URI={place.shown} meltrepro sync {names}",
    )


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


def run_link(server: str, experiment_id: str, run_id: str) -> str:
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
