"""The way to a tracking server is the one of MLflow's own client: its TLS variables, its logins, its proxies."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from meltrepro.errors import TrackingError
from meltrepro.track.mlflow_tracker import sync
from meltrepro.track.places import Place
from tests.support.campaigns import Cell, build_campaign
from tests.support.network import plain_network
from tests.support.socks import socks_proxy
from tests.support.tls import Authority, authority

pytestmark = pytest.mark.fault

INSECURE, AUTHORITY, CLIENT = (
    f"MLFLOW_TRACKING_{name}" for name in ("INSECURE_TLS", "SERVER_CERT_PATH", "CLIENT_CERT_PATH")
)


@dataclass
class Server:
    """What answers as MLflow does as far as a sync needs it."""

    port: int = 0
    scheme: str = "https"
    heard: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    """Path, login, and the name in the client's certificate."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    @property
    def place(self) -> Place:
        return Place(self.url, trusted=True)


@contextmanager
def server(tls: ssl.SSLContext | None) -> Iterator[Server]:
    state = Server(scheme="https" if tls else "http")

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            named = None
            if isinstance(self.connection, ssl.SSLSocket) and (shown := self.connection.getpeercert()):
                named = str(dict(pair[0] for pair in shown["subject"])["commonName"])  # type: ignore[misc]
            state.heard.append((self.path, self.headers.get("Authorization"), named))
            body = json.dumps(_said(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815 - names that the base class looks for

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that do not like the certificate are part of the tests."""

    with Quiet(("127.0.0.1", 0), Handler) as running:
        if tls is not None:
            running.socket = tls.wrap_socket(running.socket, server_side=True, do_handshake_on_connect=False)
        state.port = running.server_port
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            running.shutdown()
            thread.join()


def _said(path: str) -> dict[str, Any]:
    if "experiments/get-by-name" in path:
        return {"experiment": {"experiment_id": "7", "name": "x", "lifecycle_stage": "active"}}
    if "runs/create" in path or "runs/get" in path or "runs/update" in path:
        info = {"run_id": "1" * 32, "experiment_id": "7", "lifecycle_stage": "active", "status": "RUNNING"}
        return {"run": {"info": {**info, "artifact_uri": "mlflow-artifacts:/7"}, "data": {}}}
    return {}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_network(monkeypatch)
    monkeypatch.setenv("NO_PROXY", "")


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return authority(tmp_path / "ca")


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    return build_campaign(tmp_path / "home", [Cell()], repetitions=1, warmups=0)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (INSECURE, "true"),
        (INSECURE, "1"),
        (INSECURE, "TRUE"),
        (AUTHORITY, "{ca}"),
        ("REQUESTS_CA_BUNDLE", "{ca}"),
        ("CURL_CA_BUNDLE", "{ca}"),
    ],
)
def test_a_server_with_an_authority_of_its_own(
    variable: str,
    value: str,
    ca: Authority,
    campaign: Path,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setenv(variable, value.format(ca=ca.certificate))
    with server(ca.server()) as running:
        assert sync(campaign, running.place).complete
    assert running.heard[0][0] == "/health"
    assert not [str(each.message) for each in recwarn if "Unverified" in str(each.message)]


@pytest.mark.parametrize("variables", [{}, {INSECURE: "false"}, {INSECURE: "0"}, {AUTHORITY: "{other}"}])
def test_a_server_that_is_not_trusted(
    variables: dict[str, str], ca: Authority, campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = authority(tmp_path / "other").certificate
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(other=other))
    with server(ca.server()) as running, pytest.raises(TrackingError, match="certificate is not accepted") as caught:
        sync(campaign, running.place)
    assert running.heard == []
    assert AUTHORITY in (caught.value.hint or "") and "meltrepro sync" in (caught.value.hint or "")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_server_that_wants_a_certificate_of_the_client(
    ca: Authority, campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = ca.issue("me", client=True)
    both = tmp_path / "both.pem"
    both.write_bytes(identity.certificate.read_bytes() + identity.key.read_bytes())
    tls = ca.server()
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(ca.certificate)
    monkeypatch.setenv(AUTHORITY, str(ca.certificate))
    with server(tls) as running:
        with pytest.raises(TrackingError):
            sync(campaign, running.place)
        monkeypatch.setenv(CLIENT, str(both))
        assert sync(campaign, running.place).complete
        assert {named for _, _, named in running.heard} == {"me"}
        running.heard.clear()
        with pytest.raises(TrackingError):
            sync(campaign, Place(running.url))
        assert running.heard == [], "what only a manifest names is shown no certificate"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({INSECURE: "true", AUTHORITY: "{ca}"}, f"{INSECURE} and {AUTHORITY} are both set"),
        ({INSECURE: "maybe"}, f"{INSECURE}: expected true or false, got 'maybe'"),
        ({AUTHORITY: "/nowhere/ca.pem"}, f"{AUTHORITY}: /nowhere/ca.pem does not exist"),
        ({CLIENT: "/nowhere/me.pem", INSECURE: "true"}, f"{CLIENT}: /nowhere/me.pem does not exist"),
        ({"REQUESTS_CA_BUNDLE": "/nowhere/ca.pem"}, "REQUESTS_CA_BUNDLE: /nowhere/ca.pem does not exist"),
        ({AUTHORITY: "{empty}"}, "does not take the results"),
        ({CLIENT: "{empty}", INSECURE: "true"}, "does not take the results"),
        ({INSECURE: "true", "MLFLOW_TRACKING_AUTH": "nonsense"}, "any registered plugin for nonsense"),
        ({INSECURE: "true", "MLFLOW_TRACKING_AWS_SIGV4": "true"}, "requests_auth_aws_sigv4"),
        ({INSECURE: "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "many"}, "does not take the results"),
        ({INSECURE: "true", "MLFLOW_HTTP_REQUEST_TIMEOUT": "soon"}, "does not take the results"),
    ],
)
def test_variables_that_cannot_be_meant_are_one_line(
    variables: dict[str, str],
    words: str,
    ca: Authority,
    campaign: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty.pem").touch()
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(ca=ca.certificate, empty=tmp_path / "empty.pem"))
    with server(ca.server()) as running, pytest.raises(TrackingError) as caught:
        sync(campaign, running.place)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert "meltrepro sync" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("variables", "login"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "hunter2"}, "Bearer hunter2"),
        ({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "hunter2"}, "Basic bWU6aHVudGVyMg=="),
    ],
)
def test_the_question_whether_a_server_is_there_has_the_login_too(
    variables: dict[str, str], login: str, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands before the server lets nothing pass without."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with server(None) as running:
        sync(campaign, running.place)
        assert running.heard[0][:2] == ("/health", login)
        running.heard.clear()
        sync(campaign, Place(running.url))
        assert {said for _, said, _ in running.heard} == {None}


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "{scheme}_proxy"])
def test_a_server_behind_a_socks_proxy(
    variable: str, tls: bool, ca: Authority, campaign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(AUTHORITY, str(ca.certificate))
    with socks_proxy(login=("me", "hunter2@x")) as proxy, server(ca.server() if tls else None) as running:
        name = variable.format(scheme=running.scheme)
        monkeypatch.setenv(name, f"socks5h://me:hunter2%40x@{proxy.address}")
        assert sync(campaign, running.place).complete
        assert set(proxy.asked) == {f"localhost:{running.port}"}
        asked = len(proxy.asked)
        monkeypatch.setenv("NO_PROXY", "localhost")
        sync(campaign, running.place)
        assert len(proxy.asked) == asked


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a", "http"])
def test_a_proxy_that_is_down(scheme: str, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://me:hunter2@127.0.0.1:{port}")
    with pytest.raises(
        TrackingError, match=r"through the proxy that ALL_PROXY names \(\w+://127.0.0.1:\d+\)"
    ) as caught:
        sync(campaign, Place("http://mlflow.invalid", trusted=True))
    assert "unset ALL_PROXY" in (caught.value.hint or "") and "meltrepro sync" in (caught.value.hint or "")
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


def test_a_proxy_that_asks_for_a_login(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socks_proxy(login=("me", "hunter2")) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"socks5h://me:wrong-one@{proxy.address}")
        with pytest.raises(TrackingError) as caught:
            sync(campaign, Place("http://mlflow.invalid", trusted=True))
    assert "the proxy that ALL_PROXY names" in str(caught.value)
    assert "asks for a login" in (caught.value.hint or "")
    assert "wrong-one" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


@pytest.mark.parametrize("value", ["socks://me:hunter2@h:1", "x", "http://[", "me:hunter2@h:1"])
def test_what_is_no_proxy(value: str, campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(TrackingError) as caught:
        sync(campaign, Place("http://mlflow.invalid", trusted=True))
    assert "ALL_PROXY" in str(caught.value)
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
