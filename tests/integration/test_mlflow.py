"""`meltrepro sync` and `meltrepro ui` with a real MLflow server, looked at in a real browser."""

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
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from queue import Empty, Queue

import psutil
import pytest
from PIL import Image

from meltrepro.errors import TrackingError
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.track.ledger import open_ledger
from tests.support.campaigns import Cell, build_campaign

CHROMIUM = shutil.which("chromium")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1700,1500",
    "--virtual-time-budget=25000",
)
STARTS_WITHIN_S = 240
STOPS_WITHIN_S = 60
LOADS = 3
"""Times that a page is loaded: on a busy machine the virtual time can be over before the server has answered."""


@dataclass(frozen=True)
class Home:
    """Records and database of a user who has run and logged one campaign."""

    path: Path
    campaign: CampaignRecord

    @property
    def environment(self) -> dict[str, str]:
        own = {"MELTREPRO_HOME": str(self.path), "MELTREPRO_CACHE": str(self.path / "cache")}
        return {k: v for k, v in os.environ.items() if not k.startswith(("MELTREPRO_", "MLFLOW_"))} | own

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "meltrepro", *arguments],
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=STARTS_WITHIN_S,
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One campaign of two cells, logged to the default database by the real command."""
    path = tmp_path_factory.mktemp("home")
    made = Home(path, read_campaign(build_campaign(path, [Cell("q8_0", 40), Cell("q4_0", 55)], repetitions=5)))
    done = made.run("sync")
    assert done.returncode == 0, done.stderr
    return made


@dataclass(frozen=True)
class Ui:
    """A `meltrepro ui` that has said where it is."""

    process: subprocess.Popen[str]
    url: str
    link: str
    family: list[psutil.Process]
    """Itself and everything that it started."""

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(STOPS_WITHIN_S)

    def survivors(self) -> list[psutil.Process]:
        """Processes that are still there after a while."""
        return psutil.wait_procs(self.family, timeout=STOPS_WITHIN_S)[1]


@contextmanager
def ui(home: Home, *arguments: str) -> Iterator[Ui]:
    command = [sys.executable, "-m", "meltrepro", "ui", *arguments]
    process = subprocess.Popen(command, env=home.environment, stdout=subprocess.PIPE, text=True)
    lines: Queue[str] = Queue()
    assert process.stdout is not None
    reader = threading.Thread(target=_feed, args=(process.stdout, lines), daemon=True)
    reader.start()
    family: list[psutil.Process] = []
    try:
        url = _line(lines, process, "MLflow:")
        link = _line(lines, process, "compare:")
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        yield Ui(process, url, link, family)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(STOPS_WITHIN_S)
        for member in psutil.wait_procs(family, timeout=STOPS_WITHIN_S)[1]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        reader.join()
        process.stdout.close()


def _feed(output: Iterable[str], lines: Queue[str]) -> None:
    for line in output:
        lines.put(line)


def _line(lines: Queue[str], process: subprocess.Popen[str], label: str) -> str:
    """What follows a label in the output."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(Empty):
            found, _, value = lines.get(timeout=1).partition(" ")
            if found == label:
                return value.strip()
        assert process.poll() is None or not lines.empty(), f"ended with {process.returncode} before {label}"
    raise AssertionError(f"nothing said {label} within {STARTS_WITHIN_S} s")


@dataclass(frozen=True)
class Page:
    """A page as a browser shows it."""

    texts: list[str]
    """Its texts, in order."""
    picture: Path


def look(link: str, folder: Path) -> Page:
    """Load a page in a browser of its own."""
    assert CHROMIUM, "install chromium (meltrepro doctor --fix --tests)"
    folder.mkdir()
    picture = folder / "page.png"
    command = [CHROMIUM, *CHROMIUM_FLAGS, f"--user-data-dir={folder / 'profile'}"]
    dumped = _browse([*command, "--dump-dom", link])
    _browse([*command, f"--screenshot={picture}", link])
    texts = [unescape(text).strip() for text in re.split(r"<[^>]+>", dumped)]
    return Page([text for text in texts if text], picture)


def _browse(command: list[str]) -> str:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    try:
        return process.communicate(timeout=180)[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a browser is many processes
        process.wait()


def as_shown(value: float) -> str:
    """A metric as MLflow's page of comparisons rounds it."""
    return f"{round(value, 3 if abs(value) < 10 else 2):g}"


def test_the_comparison_shows_both_runs_and_ctrl_c_leaves_nothing(home: Home, tmp_path: Path) -> None:
    cells = home.campaign.cells
    names = {cell.id for cell in cells}
    speeds = {as_shown(cell.summaries["generation_tps"].median) for cell in cells}
    assert len(names) == len(speeds) == 2
    wanted = names | speeds | {"generation_tps", "q8_0", "q4_0"}
    with ui(home) as server:
        assert server.link.startswith(f"{server.url}/#/compare-runs?")
        assert len(server.family) > 2  # the server is more than one process
        for number in range(LOADS):
            page = look(server.link, tmp_path / f"browser{number}")
            if wanted <= set(page.texts):
                break
        assert wanted - set(page.texts) == set()
        with Image.open(page.picture) as picture:
            assert picture.size == (1700, 1500)
            colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert colours is not None
        assert len(colours) > 100
        assert max(count for count, _ in colours) < 0.95 * 1700 * 1500
        assert server.stop(signal.SIGINT) == 0
        assert server.survivors() == []
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(server.url, timeout=5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_however_it_ends_its_server_ends_with_it(home: Home, number: signal.Signals) -> None:
    with ui(home) as server:
        server.stop(number)
        assert server.survivors() == []


def test_a_port_that_is_taken_is_named(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = home.run("ui", "--port", str(port))
    assert done.returncode == TrackingError.exit_code
    assert f"did not start on port {port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr.partition("the end of")[0]


def test_where_a_server_runs_already_none_is_started(home: Home) -> None:
    """Nothing listens at this address: the links are printed all the same, and at once."""
    done = home.run("ui", MLFLOW_TRACKING_URI="http://me:secret@127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "MLflow:  http://127.0.0.1:9\n"
    assert "meltrepro sync" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_a_second_sync_has_nothing_to_do(home: Home) -> None:
    before = open_ledger(home.campaign.folder).document
    done = home.run("sync")
    assert done.returncode == 0, done.stderr
    assert "nothing to log" in done.stdout
    assert open_ledger(home.campaign.folder).document == before
