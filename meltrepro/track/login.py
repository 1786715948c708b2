"""The user's login for MLflow, and how it is kept from servers that the user did not name.

MLflow takes it from variables, from ~/.mlflow/credentials and, through its HTTP library, from ~/.netrc, whatever the server,
and asks again for each request.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

_VARIABLES = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_WORKSPACE",
)


@contextmanager
def withheld() -> Iterator[None]:
    """For the block, nobody in this process finds a login, and no server can send MLflow on to another one."""
    with TemporaryDirectory(prefix="meltrepro-") as empty:
        changes = {**dict.fromkeys(_VARIABLES), "HOME": empty, "NETRC": os.devnull}
        changes["MLFLOW_ALLOW_HTTP_REDIRECTS"] = "false"
        before = {name: os.environ.get(name) for name in changes}
        _apply(changes)
        try:
            yield
        finally:
            _apply(before)


def _apply(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
