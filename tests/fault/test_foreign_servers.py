"""Servers that only a manifest or a record names: they get no login, choose no folder, and are asked nothing unbidden."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from meltrepro.cli.app import main
from meltrepro.errors import TrackingError
from meltrepro.record.campaign import TrackingEntry
from meltrepro.track.ledger import LEDGER
from meltrepro.track.logged import attach
from meltrepro.track.mlflow_tracker import sync
from meltrepro.track.places import Place
from tests.support.campaigns import Cell, build_campaign
from tests.support.database import contents

pytestmark = pytest.mark.fault

LOGIN = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "hunter2"}
BASIC = "Basic " + base64.b64encode(b"me:hunter2").decode()


@dataclass
class Hostile:
    """What answers as MLflow does as far as a sync needs it, and keeps what it is told."""

    port: int = 0
    artifacts: str = "mlflow-artifacts:/7"
    """Where files are to go; the server may say anything."""
    redirect: str | None = None
    heard: list[tuple[str, str, Message]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def logins(self) -> set[str | None]:
        return {headers.get("Authorization") for _, _, headers in self.heard}

    def uploads(self) -> list[str]:
        return [path for method, path, _ in self.heard if method == "PUT"]

    def answer(self, path: str) -> dict[str, Any]:
        if "experiments/get-by-name" in path:
            return {"experiment": {"experiment_id": "7", "name": "x", "lifecycle_stage": "active"}}
        if "runs/create" in path or "runs/get" in path or "runs/update" in path:
            info = {"run_id": "1" * 32, "experiment_id": "7", "lifecycle_stage": "active", "status": "RUNNING"}
            return {"run": {"info": {**info, "artifact_uri": self.artifacts}, "data": {}}}
        return {}


@contextmanager
def hostile(**options: Any) -> Iterator[Hostile]:
    state = Hostile(**options)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            state.heard.append((self.command, self.path, self.headers))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps(state.answer(self.path)).encode()
            self.send_response(307 if state.redirect else 200)
            if state.redirect:
                self.send_header("Location", state.redirect + self.path)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815 - names that the base class looks for

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a login in the variables and in the file where MLflow looks for one."""
    home, user = tmp_path / "home", tmp_path / "user"
    (user / ".mlflow").mkdir(parents=True)
    (user / ".mlflow/credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = file\nmlflow_tracking_password = hunter2\n"
    )
    for name, value in {"HOME": str(user), "MELTREPRO_HOME": str(home), **LOGIN}.items():
        monkeypatch.setenv(name, value)
    for name in ("MLFLOW_TRACKING_URI", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    return home


def of_server(home: Path, uri: str, **options: Any) -> Path:
    entry = TrackingEntry(experiment="x", uri=uri, enabled=True)
    return build_campaign(home, [Cell()], repetitions=1, tracking=entry, **options)


@pytest.mark.parametrize("left", ["variables", "token", "file", "netrc"])
def test_a_server_that_the_user_did_not_name_gets_no_login(
    left: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = Path(home.parent / "user")
    if left != "variables":
        for name in LOGIN:
            monkeypatch.delenv(name)
    if left == "token":
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    if left in ("token", "netrc"):
        (user / ".mlflow/credentials").unlink()
    if left == "netrc":
        (user / ".netrc").write_text("machine 127.0.0.1 login netrc password hunter2\n")
        (user / ".netrc").chmod(0o600)
    with hostile() as server:
        sync(of_server(home, server.url), Place(server.url))
        assert server.uploads(), "everything is logged there"
        assert server.logins == {None}
        server.heard.clear()
        sync(of_server(home, server.url, number=1), Place(server.url, trusted=True))
        assert None not in {headers.get("Authorization") for _, path, headers in server.heard if "/api/" in path}


def test_a_login_is_back_when_the_stranger_is_done(home: Path) -> None:
    with hostile() as stranger, hostile() as own:
        sync(of_server(home, stranger.url), Place(stranger.url))
        sync(of_server(home, own.url, number=1), Place(own.url, trusted=True))
        assert stranger.logins == {None}
        assert BASIC in own.logins


def test_no_server_sends_a_login_on_to_another_one(home: Path) -> None:
    with hostile() as other, hostile(redirect=other.url) as first:
        sync(of_server(home, first.url), Place(first.url, trusted=True))
        assert BASIC in first.logins
        assert other.heard
        assert other.logins == {None}
        other.heard.clear()
        with pytest.raises(TrackingError):
            sync(of_server(home, first.url, number=1), Place(first.url))
        assert not other.heard, "a stranger leads nowhere else"


def test_files_that_belong_elsewhere_are_sent_without_the_login(home: Path) -> None:
    with hostile() as other, hostile(artifacts=f"{other.url}/files") as named:
        sync(of_server(home, named.url), Place(named.url, trusted=True))
        assert other.uploads()
        assert other.logins == {None}
        assert BASIC in named.logins


@pytest.mark.parametrize(
    "where", ["file://{folder}/stolen", "{folder}/stolen", "http://127.0.0.1:9/x", "s3://bucket/x", ""]
)
def test_a_stranger_does_not_say_where_files_go(where: str, home: Path, tmp_path: Path) -> None:
    with hostile(artifacts=where.format(folder=tmp_path)) as server:
        with pytest.raises(TrackingError, match="only the manifest names that server") as caught:
            sync(of_server(home, server.url), Place(server.url))
        assert f"MLFLOW_TRACKING_URI={server.url}" in (caught.value.hint or "")
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize(
    "said",
    [
        {"experiment": 5},
        {"run": [1]},
        {"experiment": {"experiment_id": "../x", "lifecycle_stage": "active"}, "run": {"info": {"run_id": "\x1b[31m"}}},
    ],
)
def test_answers_that_make_no_sense_are_no_fault_of_ours(
    said: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hostile, "answer", lambda self, path: said)
    with hostile() as server, pytest.raises(TrackingError):
        sync(of_server(home, server.url), Place(server.url))


@pytest.mark.parametrize("uri", ["postgresql://127.0.0.1:9/x", "databricks", "file:///tmp/x", "./mlruns"])
def test_what_is_neither_server_nor_database_needs_the_users_word(uri: str, home: Path) -> None:
    with pytest.raises(TrackingError, match="needs your own word") as caught:
        sync(of_server(home, uri), Place(uri))
    assert f"MLFLOW_TRACKING_URI={uri}" in (caught.value.hint or "")


@pytest.mark.parametrize("again", [[], ["--all"], ["--detail", "all"]])
def test_sync_asks_nothing_of_a_server_that_a_record_names(
    again: list[str], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_campaign(home, [Cell()], name="own", repetitions=1)
    with hostile() as server:
        folder = of_server(home, f"{server.url}/x", number=1)
        assert main(["sync", "-q", *again]) == 0
        assert not server.heard
        said = capsys.readouterr()
    assert "logged 20261123T040102Z-own-000000" in said.out
    assert f"not logged to {server.url}/x, which only the record names" in said.err
    assert f"MLFLOW_TRACKING_URI={server.url}/x meltrepro sync {folder.name}" in said.err


def test_sync_of_a_campaign_by_name_needs_the_server_by_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with hostile() as server:
        of_server(home, server.url)
        assert main(["sync", "-q", "last"]) == TrackingError.exit_code
        assert not server.heard
        assert f"next: if that is where it shall go: MLFLOW_TRACKING_URI={server.url}" in capsys.readouterr().err
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        assert main(["sync", "-q", "last"]) == 0
        assert BASIC in server.logins


@pytest.mark.parametrize("command", ["sync", "ui"])
def test_a_record_names_no_database_outside_the_users_own_folder(
    command: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_server(home, f"sqlite:///{tmp_path}/user/.config/x.db")
    assert main([command, "last"]) == TrackingError.exit_code
    assert "which only the record names" in capsys.readouterr().err
    assert not (tmp_path / "user/.config").exists()


def test_a_ledger_that_came_along_leads_to_no_server(home: Path) -> None:
    with hostile() as server:
        folder = of_server(home, server.url)
        note = {"uri": server.url, "experiment_id": "7", "campaign": {"run_id": "1" * 32}}
        (folder / LEDGER).write_text(json.dumps({"format": 1, "places": [note]}))
        assert attach([folder], {"report/x.txt": "x"}, Place(f"sqlite:///{home}/mlflow.db", trusted=True)) == 0
        assert main(["report", "-o", str(home / "report")]) == 0
        assert not server.heard


def test_tokens_in_an_address_are_written_nowhere(home: Path) -> None:
    folder = build_campaign(home, [Cell()], repetitions=1)
    steps: list[object] = []
    with pytest.raises(TrackingError) as caught:
        sync(folder, Place("http://me:hunter2@127.0.0.1:9/?token=hunter2", trusted=True), steps.append)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint} {caught.value.__cause__} {steps}"
    with hostile() as server:
        place = Place(server.url.replace("//", "//me:hunter2@"), trusted=True)
        assert "hunter2" not in sync(folder, place, steps.append).uri
    assert "hunter2" not in (folder / LEDGER).read_text() + str(steps)


def test_an_old_ledger_loses_its_tokens(home: Path) -> None:
    folder = build_campaign(home, [Cell()], repetitions=1)
    note = {"uri": "postgresql://db/x?password=hunter2", "experiment_id": "7", "campaign": {"run_id": "1" * 32}}
    (folder / LEDGER).write_text(json.dumps({"format": 1, "places": [note]}))
    sync(folder, f"sqlite:///{home}/mlflow.db")
    assert "hunter2" not in (folder / LEDGER).read_text()
    assert len(contents(home / "mlflow.db")["runs"]) == 2
