"""The files of a run in MLflow. Where they lie is for its server to say, which may name any address and any folder.

Import this module late: mlflow takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from meltrepro.errors import TrackingError
from meltrepro.store.names import redact
from meltrepro.track import login, places, quiet
from meltrepro.track.places import Place

with quiet.importing():
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri


class Artifacts:
    """The files of one run; only the tracking server itself is given the user's login for them."""

    def __init__(self, client: MlflowClient, place: Place, run_id: str) -> None:
        """Raises `TrackingError` where a server that the user did not name wants them anywhere but on itself."""
        with_profile: Callable[[str, str], str] = add_databricks_profile_info_to_artifact_uri
        location = with_profile(client.get_run(run_id).info.artifact_uri, place.uri)
        self._repository: Any = get_artifact_repository(location, tracking_uri=place.uri)
        resolved = self._repository.artifact_uri
        own = places.same_server(resolved, place.uri)
        if not (place.trusted or own or _beside(location, place)):
            raise TrackingError(
                f"{place.shown} keeps files at {redact(location)}, and only the manifest names that server",
                hint=f"if they shall go there, name the server yourself: MLFLOW_TRACKING_URI={place.shown}",
            )
        self._elsewhere = places.is_server(resolved) and not own

    def put(self, path: Path, folder: str | None) -> None:
        """Log a file."""
        with self._login():
            self._repository.log_artifact(str(path), folder)

    def names(self, folder: str | None = None) -> list[str]:
        """What is in a folder."""
        with self._login():
            return [item.path for item in self._repository.list_artifacts(folder)]

    def get(self, name: str, folder: Path) -> None:
        """Download a file or folder."""
        with self._login():
            self._repository.download_artifacts(name, str(folder))

    def _login(self) -> AbstractContextManager[None]:
        return login.withheld() if self._elsewhere else nullcontext()


def _beside(location: str, place: Place) -> bool:
    """Whether a place is a local database and the files lie in its own folder."""
    local = places.local_database(place.uri)
    path = location.removeprefix("file://")
    return local is not None and Path(path).resolve().is_relative_to(local.artifacts.resolve())
