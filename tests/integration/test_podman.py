"""Podman in Docker's place: real builds and executions through the service that speaks Docker's API.

The engine is one of the test's own, unless DOCKER_HOST names another: whatever speaks that API has to do the same.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from meltrepro import settings
from meltrepro.build import daemon
from meltrepro.build.docker_engine import DockerEngine
from meltrepro.build.image import Layer
from meltrepro.build.model import Artifact, Execution, Recipe
from meltrepro.errors import BuildError, EngineError
from meltrepro.resources import image_file
from meltrepro.steps import silent
from meltrepro.workflow.machine import find
from tests.integration import sandbox_rig

pytestmark = pytest.mark.machine

SHELL = r"""
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Stands in for /bin/sh of a builder: writes down what a build sees. */
int main(int argc, char** argv) {
    static char text[65536];
    struct rlimit files;
    FILE* script = fopen(argv[1], "r");
    FILE* network = fopen("/proc/net/dev", "r");
    if (argc < 2 || !script || !network || mkdir("/out", 0755)) return 6;
    text[fread(text, 1, sizeof text - 1, script)] = 0;
    if (strstr(text, "fail")) { fprintf(stderr, "the reason\n"); return 3; }
    FILE* out = fopen("/out/seen", "w");
    getrlimit(RLIMIT_NOFILE, &files);
    fprintf(out, "%s\n", files.rlim_cur > 2000 ? "enough files" : "too few files");
    while (fgets(text, sizeof text, network)) {
        char* end = strchr(text, ':');
        if (end) { *end = 0; fprintf(out, "%s\n", text + strspn(text, " ")); }
    }
    return fclose(out);
}
"""
TOOL = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <dirent.h>

int main(int argc, char** argv) {
    if (argc > 1 && !strcmp(argv[1], "sleep")) for (;;) pause();
    if (argc > 1 && !strcmp(argv[1], "mute")) { fclose(stdout); fclose(stderr); sleep(2); return 5; }
    if (argc > 1 && !strcmp(argv[1], "eat")) for (;;) memset(malloc(1 << 24), 1, 1 << 24);
    if (argc > 1 && !strcmp(argv[1], "look")) {  /* how many processes it sees: others may need a moment to join */
        DIR* folder = opendir("/proc");
        int seen = 0;
        for (struct dirent* each; (each = readdir(folder));) seen += each->d_name[0] > '0' && each->d_name[0] <= '9';
        return seen;
    }
    if (argc > 1 && !strcmp(argv[1], "write")) {
        FILE* in = fopen("/source", "r");
        FILE* out = fopen("/out/result", "w");
        char line[64] = "";
        if (!in || !out || !fgets(line, sizeof line, in)) { perror("open"); return 8; }
        if (fopen("/source", "w") || fopen("/anywhere", "w")) return 7;
        return fputs(line, out) < 0 || fclose(out);
    }
    printf("out\n");
    fprintf(stderr, "err\n");
    return argc > 1 ? atoi(argv[1]) : 0;
}
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    here = settings.load()
    if given := os.environ.get("DOCKER_HOST"):
        yield daemon.connect(here, {"DOCKER_HOST": given})
        return
    program = find("podman")
    if program is None:
        pytest.fail("this test needs podman: meltrepro doctor --fix --tests")
    with tempfile.TemporaryDirectory(prefix="melt-", ignore_cleanup_errors=True) as folder:
        # All of them: what is left out is that of the system's own podman.
        places = ("--root", f"{folder}/root", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp")
        address = f"unix://{folder}/podman.sock"
        command = [program, *places, "system", "service", "--time=0", address]
        with (
            (Path(folder) / "log").open("wb") as log,
            subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as service,
        ):
            try:
                yield _answers(here, address, service)
            finally:
                subprocess.run([program, *places, "rm", "--all", "--force"], capture_output=True, check=False)
                service.terminate()
                service.wait()
                subprocess.run(["umount", f"{folder}/root/overlay"], capture_output=True, check=False)


def _answers(here: settings.Settings, address: str, service: subprocess.Popen[bytes]) -> Any:
    while service.poll() is None:
        try:
            return daemon.connect(here, {"DOCKER_HOST": address})
        except EngineError:
            time.sleep(0.1)
    raise AssertionError("podman did not start")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def engine(client: Any, folder: Path) -> DockerEngine:
    return DockerEngine(client, lambda: [_base(folder)], 1, silent)


@pytest.fixture
def bundle(folder: Path) -> Artifact:
    return sandbox_rig.static_bundle(folder, {"tool": TOOL})


def _base(folder: Path) -> Layer:
    """A file system whose only program is its shell."""
    shell, tar = folder / "sh", folder / "base.tar"
    if not tar.exists():
        command = ["gcc", "-static", "-x", "c", "-o", str(shell), "-"]
        subprocess.run(command, input=SHELL.encode(), check=True, capture_output=True)
        with tarfile.open(tar, "w") as archive:
            archive.add(shell, "bin/sh")
    return Layer(tar, hashlib.sha256(tar.read_bytes()).hexdigest())


def recipe(folder: Path, script: bytes) -> Recipe:
    (folder / "data").write_text("input")
    dockerfile = image_file("Dockerfile.j2").decode()
    return Recipe("test/tool", {"build.sh": script}, dockerfile, {"data": folder / "data"}, {}, "a-target-without-zig")


def test_a_build_has_no_network_and_files_enough(engine: DockerEngine, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        out.mkdir()
        made = engine.build(recipe(tmp_path, b"work"), out, tmp_path / "log", silent, fresh=True)
        assert "FROM meltrepro/toolchain:" in made["Dockerfile"]
        assert [line for line in (out / "seen").read_text().split("\n") if line not in ("", "lo")] == ["enough files"]
        (out / "seen").unlink()
        out.rmdir()


def test_a_failing_build_shows_its_last_lines(engine: DockerEngine, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(BuildError, match="the reason"):
        engine.build(recipe(tmp_path, b"fail"), tmp_path / "out", tmp_path / "log", silent)


@pytest.mark.parametrize("status", [0, 5])
def test_statuses_and_outputs_come_back(engine: DockerEngine, bundle: Artifact, tmp_path: Path, status: int) -> None:
    logs: dict[str, Any] = {"stdout": tmp_path / "stdout", "stderr": tmp_path / "stderr"}
    ended = engine.execute(Execution(argv=["/bundle/bin/tool", str(status)], bundle=bundle, **logs))
    assert (ended.status, ended.timed_out, ended.out_of_memory) == (status, False, False)
    assert [path.read_text() for path in logs.values()] == ["out\n", "err\n"]


def test_mounts_are_what_they_were_asked_to_be(engine: DockerEngine, bundle: Artifact, tmp_path: Path) -> None:
    """And what is written is ours afterwards."""
    source, out, said = tmp_path / "source", tmp_path / "out", tmp_path / "said"
    source.write_text("input")
    source.chmod(0o644)
    out.mkdir()
    mounts: dict[str, Any] = {"readonly": {"/source": source}, "writable": {"/out": out}, "stderr": said}
    ended = engine.execute(Execution(argv=["/bundle/bin/tool", "write"], bundle=bundle, **mounts))
    assert ended.status == 0, said.read_text()
    assert (out / "result").read_text() == "input"
    assert {path.stat().st_uid for path in (out, out / "result")} == {os.getuid()}


def test_a_hang_is_ended(engine: DockerEngine, bundle: Artifact) -> None:
    ended = engine.execute(Execution(argv=["/bundle/bin/tool", "sleep"], bundle=bundle, timeout_s=2))
    assert ended.timed_out


def test_who_closes_its_output_has_not_ended(engine: DockerEngine, bundle: Artifact) -> None:
    ended = engine.execute(Execution(argv=["/bundle/bin/tool", "mute"], bundle=bundle, timeout_s=60))
    assert (ended.status, ended.timed_out) == (5, False)


def test_an_engine_that_waits_does_not_work(engine: DockerEngine, bundle: Artifact) -> None:
    """Who waits for the end of a trial must not take a core from it."""
    services = [process for process in psutil.Process().children() if "service" in process.cmdline()]
    before = [process.cpu_times() for process in services]
    engine.execute(Execution(argv=["/bundle/bin/tool", "sleep"], bundle=bundle, timeout_s=8))
    after = [process.cpu_times() for process in services]
    assert sum(new.user + new.system - old.user - old.system for old, new in zip(before, after, strict=True)) < 2


def test_who_eats_all_memory_is_ended(engine: DockerEngine, bundle: Artifact) -> None:
    if not engine._facts.memory:
        pytest.skip("this engine's control groups cannot limit memory")
    execution = Execution(argv=["/bundle/bin/tool", "eat"], bundle=bundle, memory_bytes=64 << 20, timeout_s=60)
    ended = engine.execute(execution)
    assert (ended.status, ended.timed_out) == (137, False)


def test_a_watcher_sees_whom_it_watches(engine: DockerEngine, bundle: Artifact) -> None:
    with engine.beside(Execution(argv=["/bundle/bin/tool", "sleep"], bundle=bundle, owner="podman")) as watcher:
        look = Execution(argv=["/bundle/bin/tool", "look"], bundle=bundle, owner="podman", watcher=watcher)
        assert engine.execute(look).status == 2
    assert engine.execute(Execution(argv=["/bundle/bin/tool", "look"], bundle=bundle)).status == 1


def test_strays_are_found_and_removed(engine: DockerEngine, bundle: Artifact) -> None:
    stray = Execution(argv=["/bundle/bin/tool", "sleep"], bundle=bundle, owner="a killed campaign")
    with engine._container(stray, os.getuid()) as container:
        container.start()
        assert engine.stop_strays("somebody else") == 0
        assert engine.stop_strays("a killed campaign") == 1
    assert engine.stop_strays("a killed campaign") == 0
