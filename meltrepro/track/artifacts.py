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
from meltrepro.track import environment, places
from meltrepro.track.places import Place

with environment.importing():
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.uri import add_databricks_profile_info_to_artifact_uri

_MOST_FILES, _MOST_BYTES, _MOST_FOLDERS = 100_000, 64 << 30, 16
"""Of one folder of artifacts; far more than any cell has."""


class Artifacts:
    """The files of one run; only the tracking server itself is given the user's login for them."""

    def __init__(self, client: MlflowClient, place: Place, run_id: str) -> None:
        """Raises `TrackingError` where a server that the user did not name wants them anywhere but on itself."""
        with_profile: Callable[[str, str], str] = add_databricks_profile_info_to_artifact_uri
        run = client.get_run(run_id).info
        location = with_profile(run.artifact_uri, place.uri)
        local = places.local_database(place.uri)
        # Whoever moved the database last may see it by another path than this process does.
        beside = local.bound(client.get_experiment(run.experiment_id).name, location) if local is not None else None
        self._repository: Any = get_artifact_repository(beside or location, tracking_uri=place.uri)
        resolved = self._repository.artifact_uri
        own = places.same_server(resolved, place.uri)
        if not (place.trusted or own or beside):
            raise TrackingError(
                f"{place.shown} keeps files at {redact(location)}, and only the manifest names that server",
                hint=f"if they shall go there, name the server yourself: MLFLOW_TRACKING_URI={place.shown}",
            )
        self._elsewhere = places.is_server(resolved) and not own

    def put(self, path: Path, folder: str | None) -> None:
        with self._login():
            self._repository.log_artifact(str(path), folder)

    def get(self, name: str, folder: Path) -> bool:
        """Download a file or folder that is not below another, if there is one; raises `TrackingError` for what no record holds."""
        with self._login():
            if not any(item.path == name for item in self._repository.list_artifacts(None)):
                return False
            self._check(name)
            self._repository.download_artifacts(name, str(folder))
            return True

    def _check(self, name: str) -> None:
        files, size, names = 0, 0, [name]
        while names:
            at = names.pop()
            for item in self._repository.list_artifacts(at):
                files, size = files + 1, size + (item.file_size or 0)
                inside = item.path.startswith(f"{at}/") and ".." not in item.path.split("/")
                if not inside or files > _MOST_FILES or size > _MOST_BYTES or item.path.count("/") > _MOST_FOLDERS:
                    raise TrackingError(
                        f"the artifacts of the run are no record: {item.path[:200]!r}, {files} files of {size} bytes",
                        hint="it was not logged by meltrepro",
                    )
                if item.is_dir:
                    names.append(item.path)

    def _login(self) -> AbstractContextManager[None]:
        return environment.login_withheld() if self._elsewhere else nullcontext()
