"""A real MLflow server that speaks TLS with a certificate of its own authority, reached directly and through SOCKS."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.errors import TrackingError
from meltrepro.track import environment
from meltrepro.track.mlflow_tracker import sync
from meltrepro.track.places import LocalDatabase, Place
from tests.support.campaigns import Cell, build_campaign
from tests.support.database import artifacts, run_names
from tests.support.network import plain_network
from tests.support.socks import socks_proxy
from tests.support.tls import Authority, authority

_WITHIN_S = 180


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(ca: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address and the folder that it keeps everything in."""
    folder = tmp_path_factory.mktemp("server")
    database = LocalDatabase(folder / "mlflow.db")
    environment.ensure_database(database)
    identity = ca.issue("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database.path}", "--artifacts-destination", str(database.artifacts)]
    command += ["--uvicorn-opts", f"--ssl-keyfile={identity.key} --ssl-certfile={identity.certificate}"]
    variables = {**os.environ, **environment.ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            deadline = time.monotonic() + _WITHIN_S
            while not _speaks_tls(port):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
            yield f"https://localhost:{port}", folder
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _speaks_tls(port: int) -> bool:
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port)) as plain, anybody.wrap_socket(plain):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("how", ["insecure", "authority", "socks"])
def test_a_campaign_is_logged_to_it(
    how: str, server: tuple[str, Path], ca: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, kept = server
    plain_network(monkeypatch)
    number = ["insecure", "authority", "socks"].index(how)
    folder = build_campaign(tmp_path / "home", [Cell()], number=number, repetitions=1)
    place = Place(address, trusted=True)
    with pytest.raises(TrackingError, match="certificate is not accepted"):
        sync(folder, place)
    if how == "insecure":
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(ca.certificate))
    with socks_proxy() as proxy:
        if how == "socks":
            monkeypatch.setenv("ALL_PROXY", f"socks5h://{proxy.address}")
        assert sync(folder, place).complete
        assert set(proxy.asked) == ({address.removeprefix("https://")} if how == "socks" else set())
    assert folder.name in run_names(kept / "mlflow.db").values()
    assert any(name.endswith("/trials/r000/events.jsonl") for name in artifacts(kept / "mlartifacts", {}))
