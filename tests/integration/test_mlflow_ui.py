"""A real MLflow server: `meltrepro ui` starts and stops it, a browser compares cells, syncs go through it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from meltrepro.errors import TrackingError
from meltrepro.measure.records import read_campaign
from meltrepro.track import places
from meltrepro.track.mlflow_tracker import sync
from meltrepro.track.places import Place
from meltrepro.track.server import serve
from tests.support import browser, devtools
from tests.support.campaigns import Cell, build_campaign
from tests.support.database import artifacts, contents, run_names


def uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow.db'}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two campaigns in its database; tests add to copies of it."""
    home = tmp_path_factory.mktemp("ui") / "home"
    for number in (1, 2):
        sync(build_campaign(home, number=number), uri(home))
    return home


class Ui:
    """`meltrepro ui` as a process of its own."""

    def __init__(self, home: Path, *arguments: str, **variables: str) -> None:
        environment = {**os.environ, "MELTREPRO_HOME": str(home), "MELTREPRO_CACHE": str(home / "cache"), **variables}
        self.cache = home / "cache"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "meltrepro", "ui", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self, name: str) -> str:
        """The next line of output, which must begin with a name."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(f"{name}:"), line + self.end()
        return line.partition(":")[2].strip()

    def end(self, number: int | None = None) -> str:
        """Send a signal, wait, and return what was said on standard error."""
        if number is not None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        return errors

    def left(self) -> list[str]:
        """Processes that still work in the cache folder of this command."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "cwd").resolve().is_relative_to(self.cache) and int(folder.name) != self.process.pid:
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found


@contextmanager
def running_ui(home: Path, *arguments: str, **variables: str) -> Iterator[Ui]:
    ui = Ui(home, *arguments, **variables)
    try:
        yield ui
    finally:
        if ui.process.poll() is None:
            ui.end(signal.SIGTERM)


def answers(url: str) -> bool:
    port = int(url.rpartition(":")[2])
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium on this machine")
def test_the_comparison_shows_both_cells_with_their_figures(home: Path, tmp_path: Path) -> None:
    with running_ui(home) as ui:
        url = ui.line("MLflow")
        ui.line("results")
        ui.line("charts")
        link = ui.line("compare")
        text = loaded(link)
        picture = tmp_path / "compare.png"
        browser.screenshot(link, picture)
        assert_stops(ui, url, signal.SIGTERM)
    campaign = read_campaign(max((home / "records").iterdir()))
    assert "Comparing 2 Runs from 1 Experiment" in text
    for cell in campaign.cells:
        assert cell.id in text.splitlines()
        for name in ("generation_tps", "itl_p50_ms"):
            assert name in text.splitlines()
            assert f"{cell.summaries[name].median:.2f}".rstrip("0").rstrip(".") in text.splitlines()
    assert_not_blank(picture)


@pytest.mark.skipif(browser.PROGRAM is None, reason="no Chromium on this machine")
def test_links_open_on_results_that_can_be_read(home: Path, pictures: Path) -> None:
    """In a browser that was never there: the chosen view, and the description with the table."""
    cells = read_campaign(max((home / "records").iterdir())).cells
    summaries = [cell.summaries["generation_tps"] for cell in cells]
    values = [f"{found.median:.4g} ({found.low:.4g} to {found.high:.4g}, n = {found.n})" for found in summaries]
    of_both_campaigns = [cell.entry.quantization for cell in cells] * 2
    wanted = {
        "charts": ["(inter_token_ms/r000)", "meltrepro: results", "Model training", *of_both_campaigns],
        "results": ["writing, tokens/s", "meltrepro replay ", *values],
    }
    with running_ui(home) as ui, devtools.page() as tab:
        ui.line("MLflow")
        links = {name: ui.line(name) for name in ("results", "charts")}
        for name, texts in wanted.items():
            for width, scheme in ((1280, "light"), (1600, "dark")):
                tab.load("about:blank")
                tab.load(links[name], width=width, height=1400, scheme="light" if scheme == "light" else "dark")
                wait_for(tab, texts)
                tab.picture(pictures / f"mlflow-{name}-{width}.png")
    assert_not_blank(pictures / "mlflow-charts-1280.png")


def wait_for(tab: devtools.Page, texts: list[str]) -> None:
    """Until the page holds each text as often as it is listed, in whichever order they come; the page asks the server many times."""
    deadline = time.monotonic() + 120
    missing, page = texts, ""
    while missing:
        assert time.monotonic() < deadline, f"{missing} not in {page}"
        time.sleep(0.5)
        page = str(tab.evaluate("document.body ? document.body.innerText : ''"))
        missing = [text for text in texts if page.count(text) < texts.count(text)]


def loaded(link: str) -> str:
    """Texts of the page of comparisons; on a busy machine the page's time may be up before the server has answered."""
    for _ in range(3):
        text = browser.visible_text(link)
        if "Comparing" in text:
            break
    return text


def assert_not_blank(picture: Path) -> None:
    from PIL import Image

    pixels = np.asarray(Image.open(picture).convert("RGB"))
    middle = pixels[:, pixels.shape[1] // 6 : pixels.shape[1] * 2 // 3]
    colours = np.unique(middle.reshape(-1, 3), axis=0)
    assert len(colours) > 100
    ink = float((middle.min(axis=2) < 153).mean())
    assert 0.003 < ink < 0.5


def test_before_the_first_campaign(tmp_path: Path) -> None:
    with running_ui(tmp_path) as ui:
        errors = assert_stops(ui, ui.line("MLflow"), signal.SIGINT)
    assert "no campaign yet" in errors


def assert_stops(ui: Ui, url: str, number: int) -> str:
    """A signal ends the command well, and nothing is left of what it started; returns what it said."""
    assert answers(url)
    assert len(ui.left()) == 3  # supervisor, mlflow, uvicorn
    errors = ui.end(number)
    assert ui.process.returncode == 0
    assert "Traceback" not in errors
    assert errors.rstrip().endswith("stopped")
    assert ui.left() == []
    assert not answers(url)
    return errors


def test_the_server_does_not_outlive_a_killed_command(home: Path) -> None:
    with running_ui(home) as ui:
        url = ui.line("MLflow")
        ui.process.kill()
        deadline = time.monotonic() + 30
        while ui.left() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert ui.left() == []
    assert not answers(url)


def test_a_signal_while_the_server_starts(home: Path) -> None:
    with running_ui(home) as ui:
        deadline = time.monotonic() + 60
        while not ui.left() and time.monotonic() < deadline:
            time.sleep(0.02)
        ui.end(signal.SIGINT)
    assert ui.process.returncode == 0
    assert ui.left() == []


def test_a_port_that_is_taken(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ui = Ui(home, "--port", str(taken.getsockname()[1]))
        errors = ui.end()
    assert ui.process.returncode == TrackingError.exit_code
    assert "Address already in use" in errors
    assert "--port" in errors
    assert ui.left() == []


def test_ui_of_a_server_that_runs_elsewhere_only_says_where(home: Path) -> None:
    ui = Ui(home, MLFLOW_TRACKING_URI="http://me:secret@tracking.example:5000")
    assert ui.line("MLflow") == "http://tracking.example:5000"
    assert "is not logged yet" in ui.end()
    assert ui.process.returncode == 0


def test_ui_names_a_campaign_that_does_not_exist(home: Path) -> None:
    ui = Ui(home, "nonsense")
    assert "no campaign matches 'nonsense'" in ui.end()
    assert ui.process.returncode == 2


def test_a_sync_through_a_server_equals_one_into_its_database(home: Path, tmp_path: Path) -> None:
    folder = build_campaign(tmp_path / "home", [Cell("q8_0"), Cell("q4_0", failing={0: "crashed: x"})], number=3)
    direct, served = tmp_path / "direct", tmp_path / "served"
    sync(folder, uri(direct))
    shutil.copytree(folder, served / "records" / folder.name, ignore=shutil.ignore_patterns("tracking.*"))
    copy = served / "records" / folder.name
    with serve(uri(served), served / "run") as server:
        tracked = sync(copy, Place(server.url, trusted=True))
        assert sync(copy, Place(server.url, trusted=True)) == tracked
        (copy / "tracking.json").unlink()
        assert sync(copy, Place(server.url, trusted=True)) == tracked
    assert contents(served / "mlflow.db") == contents(direct / "mlflow.db")
    files = artifacts(direct / "mlartifacts/synthetic", run_names(direct / "mlflow.db"))
    found = artifacts(served / "mlartifacts" / tracked.experiment_id, run_names(served / "mlflow.db"))
    assert found == files


def test_a_server_that_is_killed_in_the_middle_is_paid_later(tmp_path: Path) -> None:
    cells = [Cell(f"q{i}_0") for i in range(6)]
    folder = build_campaign(tmp_path / "home", cells)
    with serve(uri(tmp_path / "home"), tmp_path / "run") as server:
        port = int(server.url.rpartition(":")[2])
        killer = threading.Thread(target=_kill_when_runs_appear, args=(tmp_path / "home/mlflow.db", server.process.pid))
        killer.start()
        with pytest.raises(TrackingError, match="does not take the results") as caught:
            sync(folder, Place(server.url, trusted=True))
        killer.join()
    assert "meltrepro sync" in (caught.value.hint or "")
    with serve(uri(tmp_path / "home"), tmp_path / "run", port=port) as server:
        assert sync(folder, Place(server.url, trusted=True)).complete
    clean = tmp_path / "clean"
    sync(build_campaign(clean, cells), uri(clean))
    assert contents(tmp_path / "home/mlflow.db") == contents(clean / "mlflow.db")


def _kill_when_runs_appear(database: Path, session: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(contents(database)["runs"]) < 3:
        time.sleep(0.01)
    os.killpg(session, signal.SIGKILL)


def test_sync_command_pays_what_is_owed_and_no_more(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for number in (1, 2):
        build_campaign(home, [Cell()], number=number)

    def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "meltrepro", "sync", *arguments],
            env={**os.environ, "MELTREPRO_HOME": str(home), "MELTREPRO_CACHE": str(tmp_path / "cache"), **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    dead = command(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    assert dead.returncode == TrackingError.exit_code
    assert dead.stderr.count("does not take the results") == 2  # the step that failed and the error, for one campaign
    one = command("000001")
    assert re.fullmatch(r"logged \S+-000001: 1 cell, in sqlite:///\S+\n", one.stdout)
    rest = command()
    assert re.fullmatch(r"logged \S+-000002: 1 cell, in sqlite:///\S+\n", rest.stdout)
    nothing = command()
    assert nothing.stdout.startswith("nothing to log: 2 campaigns")
    assert len(command("--all").stdout.splitlines()) == 2
    assert len(contents(home / "mlflow.db")["runs"]) == 4
    (home / "records" / "20261123T050102Z-synthetic-000001" / "campaign.json").write_text("{")
    damaged = command("--all")
    assert damaged.returncode == 35
    assert "campaign.json is damaged" in damaged.stderr
    assert len(damaged.stdout.splitlines()) == 1
    assert places.local_database(uri(home)) is not None
