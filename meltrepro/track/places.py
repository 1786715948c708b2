"""Where results are logged: which URI counts, how it may be shown, and what lies beside a local database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from meltrepro.errors import TrackingError

_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class LocalDatabase:
    """A SQLite file of MLflow."""

    path: Path

    @property
    def artifacts(self) -> Path:
        """Where artifacts go that are logged to it."""
        return self.path.parent / "mlartifacts"


def choose_uri(environ: Mapping[str, str], manifest_uri: str | None, default: str) -> str:
    """MLFLOW_TRACKING_URI, else what the manifest says, else the default; raises `TrackingError` for what is no URI."""
    chosen = environ.get("MLFLOW_TRACKING_URI") or manifest_uri or default
    try:
        _ = urlsplit(chosen).port
    except ValueError as error:
        raise TrackingError(
            f"the tracking server's address is no URI: {error}",
            hint="mend MLFLOW_TRACKING_URI, or tracking.uri of the manifest; then: meltrepro sync",
        ) from error
    return absolute(chosen)


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
    return urlsplit(uri).scheme in ("http", "https")


def shown(uri: str) -> str:
    """The URI without user name and password."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def compare_link(server: str, experiment_id: str, run_ids: list[str]) -> str:
    """Address of MLflow's page that puts runs side by side."""
    runs = quote("[" + ",".join(f'"{run_id}"' for run_id in run_ids) + "]", safe="")
    experiments = quote(f'["{experiment_id}"]', safe="")
    return f"{server.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}"


def run_link(server: str, experiment_id: str, run_id: str) -> str:
    """Address of MLflow's page of one run."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
