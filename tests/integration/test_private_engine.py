"""The private Docker engine: it works beside any other, survives being killed, and leaves nothing behind."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import psutil
import pytest

from meltrepro import settings as settings_module
from meltrepro.build import daemon
from meltrepro.errors import EngineError
from meltrepro.settings import Settings

pytestmark = pytest.mark.machine

SOURCE = """
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char** argv) {
    signal(SIGTERM, _exit);  /* the first process of a container has no default actions */
    puts("inside");
    fflush(stdout);
    if (argc > 1) for (;;) pause();
    return 0;
}
"""


@pytest.fixture(params=["short", "long"])
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """A cache of its own, also one whose path is too long for sockets; whatever runs there ends with the test."""
    if os.geteuid() != 0 or shutil.which("dockerd", path=os.environ["PATH"] + ":/usr/sbin") is None:
        pytest.fail("this test needs root and dockerd: meltrepro doctor --fix --tests")
    with tempfile.TemporaryDirectory(prefix="melt-") as short:
        cache = Path(short, "cache") if request.param == "short" else tmp_path / ("long" * 20) / "cache"
        settings = replace(settings_module.load(), cache=cache)
        assert daemon.folder_of(settings).is_relative_to(cache) == (request.param == "short")
        yield settings
        daemon.stop(settings)


def private(settings: Settings) -> docker.DockerClient:
    """A client of the private engine; the environment names no other."""
    client = daemon.connect(settings, {})
    assert client.info()["DockerRootDir"] == str(settings.cache / "docker")
    return client


def load_image(client: docker.DockerClient, folder: Path) -> str:
    """Import an image whose only file is a static program."""
    program = folder / "program"
    subprocess.run(["gcc", "-static", "-x", "c", "-o", str(program), "-"], input=SOURCE.encode(), check=True)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(program, "program")
    client.api.import_image_from_data(archive.getvalue(), repository="inside", tag="1")
    return "inside:1"


def remains(settings: Settings) -> list[str]:
    """Processes and mounts that belong to the engine of these settings."""
    marks = [str(settings.cache), str(daemon.folder_of(settings)), "/program wait"]
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or [])
        if process.pid != os.getpid() and any(mark in line for mark in marks):
            found.append(line)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if any(mark in line for mark in marks):
            found.append(line)
    return found


def test_it_starts_runs_containers_and_stops_without_a_trace(here: Settings, tmp_path: Path) -> None:
    said: list[str] = []
    daemon.start(here, said.append)
    assert len(said) == 1
    assert str(here.cache / "docker") in said[0]
    pid = daemon.running(here)
    assert pid is not None
    daemon.start(here, said.append)
    assert daemon.running(here) == pid
    assert len(said) == 1
    client = private(here)
    image = load_image(client, tmp_path)
    assert client.containers.run(image, ["/program"], network_mode="none", remove=True) == b"inside\n"
    client.containers.run(image, ["/program", "wait"], network_mode="none", detach=True)
    client.close()
    assert daemon.stop(here)
    assert daemon.running(here) is None
    assert remains(here) == []
    assert not daemon.stop(here)


def test_one_that_was_killed_is_cleared_away_and_replaced(here: Settings, tmp_path: Path) -> None:
    daemon.start(here, print)
    client = private(here)
    image = load_image(client, tmp_path)
    container = client.containers.run(image, ["/program", "wait"], network_mode="none", detach=True)
    # The engine says that it has started before the program has taken the place of the one that set the container up.
    assert next(container.logs(stream=True)) == b"inside\n"
    client.close()
    killed = daemon.running(here)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(killed)] if psutil.pid_exists(killed) else [], timeout=10)
    assert any("/program wait" in line for line in remains(here)), "the container outlives its engine"
    daemon.start(here, print)
    client = private(here)
    assert [container.status for container in client.containers.list(all=True)] == ["exited"]
    client.close()
    assert daemon.stop(here)
    assert remains(here) == []


def test_two_starts_at_once_make_one_engine(here: Settings) -> None:
    said: list[str] = []
    failures: list[BaseException] = []

    def begin() -> None:
        try:
            daemon.start(here, said.append)
        except EngineError as error:
            failures.append(error)

    both = [threading.Thread(target=begin) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert failures == []
    assert len([text for text in said if text.startswith("starting")]) == 1


def test_one_that_does_not_come_up_shows_its_log(here: Settings) -> None:
    here.cache.mkdir(parents=True)
    (here.cache / "docker").mkdir()
    (here.cache / "docker" / "containers").write_text("in the way")
    with pytest.raises(EngineError, match=r"(?s)did not come up:\n.*docker/containers") as caught:
        daemon.start(here, print)
    assert caught.value.hint is not None
    assert str(here.run / "dockerd.log") in caught.value.hint
    assert remains(here) == []


def test_a_folder_that_somebody_else_made_is_refused(here: Settings) -> None:
    folder = daemon.folder_of(here)
    folder.mkdir(parents=True)
    os.chown(folder, 65534, 65534)
    try:
        with pytest.raises(EngineError, match="belongs to somebody else"):
            daemon.start(here, print)
    finally:
        folder.rmdir()
