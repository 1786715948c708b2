"""MLflow dies, hangs, lies or fills up, and the sync itself is killed: nothing is lost and nothing is there twice."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from meltrepro.errors import TrackingError
from meltrepro.measure.records import read_campaign
from meltrepro.track import environment, places
from meltrepro.track.ledger import LEDGER
from meltrepro.track.mlflow_tracker import sync
from tests.support.campaigns import Cell, build_campaign
from tests.support.database import artifacts, contents, run_names

pytestmark = pytest.mark.fault

KILLER = """
import os, signal, sys, time
from pathlib import Path
from meltrepro.track.mlflow_tracker import sync

folder, uri, *delays = sys.argv[1:]
killed = 0
for delay in [*map(float, delays), None]:
    child = os.fork()  # the import takes seconds, and is not what is to be interrupted
    if child == 0:
        sync(Path(folder), uri)
        os._exit(0)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed += status == signal.SIGKILL
    if status not in (0, signal.SIGKILL):
        sys.exit(1)
print(killed)
"""


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    environment.ensure_database(places.LocalDatabase(path))
    return path


@pytest.fixture
def home(tmp_path: Path, empty_database: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(empty_database, home / "mlflow.db")
    return home


def uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


def held(home: Path) -> tuple[object, object]:
    """Everything that MLflow has, database and artifacts."""
    path = home / "mlflow.db"
    return contents(path), artifacts(home / "mlartifacts", run_names(path))


def logged_cleanly(tmp_path: Path, empty_database: Path, folder: Path) -> tuple[object, object]:
    """What a sync leaves that nobody disturbs."""
    clean = tmp_path / "clean"
    shutil.copytree(folder, clean / "records" / folder.name, ignore=shutil.ignore_patterns("tracking.*"))
    shutil.copy(empty_database, clean / "mlflow.db")
    sync(clean / "records" / folder.name, uri(clean))
    return held(clean)


def killed_sync(folder: Path, uri: str, delays: list[float]) -> int:
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(folder), uri, *map(str, delays)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


def test_a_sync_that_is_killed_again_and_again_ends_as_if_it_never_was(
    home: Path, tmp_path: Path, empty_database: Path
) -> None:
    cells = [Cell("q8_0"), Cell("q4_0", failing={1: "crashed: x"}), Cell("q3_K"), Cell("f16")]
    folder = build_campaign(home, cells)
    delays = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6]
    assert killed_sync(folder, uri(home), delays) >= 3
    assert held(home) == logged_cleanly(tmp_path, empty_database, folder)


def test_a_database_whose_making_is_killed_is_made_again(tmp_path: Path, empty_database: Path) -> None:
    """MLflow's own migrations cannot be resumed: half a database would stay broken for good."""
    home = tmp_path / "home"
    folder = build_campaign(home, [Cell()])
    assert killed_sync(folder, uri(home), [0.2, 0.5, 0.8, 1.1, 1.4]) >= 2
    assert held(home) == logged_cleanly(tmp_path, empty_database, folder)
    assert not list(home.glob(".mlflow.db.part-*"))


def test_a_ledger_that_knows_too_much_is_checked_against_mlflow(home: Path, empty_database: Path) -> None:
    """The database was lost or set back, the campaign folder was not."""
    folder = build_campaign(home)
    sync(folder, uri(home))
    before = held(home)
    shutil.rmtree(home / "mlartifacts")
    shutil.copy(empty_database, home / "mlflow.db")
    sync(folder, uri(home))
    assert held(home) == before


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A web server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815 - names that the base class looks for

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def no_server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "server",
    [no_server(), silent_server(), answering(401, b"no"), answering(500, b"{}"), answering(200, b"<html>a login page")],
    ids=["nobody-there", "hangs", "refuses", "broken", "no-mlflow"],
)
def test_a_server_that_does_not_help_costs_seconds_and_no_record(home: Path, server: object) -> None:
    folder = build_campaign(home)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with server as address:  # type: ignore[attr-defined]
        started = time.monotonic()
        with pytest.raises(TrackingError) as caught:
            sync(folder, address)
        assert time.monotonic() - started < 40
    assert caught.value.hint is not None
    assert "meltrepro sync" in caught.value.hint
    assert "secret" not in caught.value.message
    assert all(path.read_bytes() == content for path, content in before.items())
    assert sync(folder, uri(home)).complete


def test_a_database_that_is_none(home: Path) -> None:
    folder = build_campaign(home)
    (home / "mlflow.db").write_bytes(b"this is no database, but it is long enough to be looked at " * 100)
    with pytest.raises(TrackingError, match="file is not a database"):
        sync(folder, uri(home))


def test_a_database_of_another_mlflow(home: Path) -> None:
    folder = build_campaign(home)
    connection = sqlite3.connect(home / "mlflow.db")
    connection.execute("UPDATE alembic_version SET version_num = '0584bdc529eb'")
    connection.commit()
    connection.close()
    with pytest.raises(TrackingError, match="out-of-date database schema"):
        sync(folder, uri(home))


def test_a_full_disk_and_the_sync_after_it(home: Path, tmp_path: Path, empty_database: Path) -> None:
    folder = build_campaign(home)
    code = "import sys; from pathlib import Path; from meltrepro.errors import TrackingError\n"
    code += "from meltrepro.track.mlflow_tracker import sync\n"
    code += "try: sync(Path(sys.argv[1]), sys.argv[2])\n"
    code += "except TrackingError as error: print(error.message); sys.exit(error.exit_code)"

    def limit() -> None:
        """Files may not grow further than the empty database and a bit."""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = empty_database.stat().st_size + 8192
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    command = [sys.executable, "-c", code, str(folder), uri(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=limit)
    assert done.returncode == TrackingError.exit_code, done.stderr
    assert "does not take the results" in done.stdout
    sync(folder, uri(home))
    assert held(home) == logged_cleanly(tmp_path, empty_database, folder)


def test_a_ledger_that_cannot_be_written(home: Path) -> None:
    folder = build_campaign(home)
    (folder / LEDGER).mkdir()
    with pytest.raises(TrackingError, match=rf"{LEDGER}: cannot be written"):
        sync(folder, uri(home))


def test_a_record_that_is_hostile(home: Path) -> None:
    """Names and reasons that a device may have chosen end up as text, not as queries, paths or broken runs."""
    evil = "'; DROP TABLE runs; --\x00\x1b[31m\ud7ff" + "x" * 10_000
    folder = build_campaign(home, [Cell(failing={0: evil, 1: evil, 2: evil})])
    document = json.loads((folder / "campaign.json").read_text())
    document["cells"][0]["params"] |= {"../../etc/passwd": evil, "a'b": 1, "": 2, "x" * 400: 3}
    document["tracking"]["experiment"] = "../'\"%_ experiment"
    (folder / "campaign.json").write_text(json.dumps(document))
    tracked = sync(folder, uri(home))
    assert tracked.complete
    held_runs = contents(home / "mlflow.db")["runs"]
    assert len(held_runs) == 2
    assert read_campaign(folder).cells[0].failures
    assert {path.parent for path in (home / "mlartifacts").iterdir()} == {home / "mlartifacts"}
