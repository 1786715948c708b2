"""What a stranger's runner and sensor logger can do on this machine: tried by programs that try everything."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.build.model import Execution
from meltrepro.errors import EngineError
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.android.target import Android
from meltrepro.targets.base import AGENT, Target
from meltrepro.targets.jetson.target import Jetson
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro.testing.targets import Bench
from tests.fault import rig
from tests.integration import sandbox_rig
from tests.integration.conftest import attached_phone

pytestmark = pytest.mark.machine
ONCE = {"repetitions": 1, "warmups": 0, "timeout_s": 60, "retries": 0}
TRIES = r"""
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <unistd.h>

static void said(const char* what, int worked) { printf("%s %s\n", worked ? "could" : "cannot", what); }

static void opens(const char* what, const char* path, int flags) {
    int file = open(path, flags, 0644);
    said(what, file >= 0);
    if (file >= 0) close(file);
}

static void shows(const char* what, const char* path, const char* after) {
    static char text[65536];
    FILE* file = fopen(path, "r");
    if (!file) return;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    char* found = strstr(text, after);
    if (found) printf("%s %ld\n", what, strtol(found + strlen(after), 0, 16));
    fclose(file);
}

/* Everything that a program of a stranger may not do; VICTIM is a process of this user, KEPT a file of theirs. */
static void try_everything(void) {
    char path[4096];
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    inet_pton(AF_INET, "127.0.0.1", &there.sin_addr);
    said("connect", connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr*)&there, sizeof there) == 0);
    opens("read a file", KEPT, O_RDONLY);
    opens("write a file", KEPT, O_WRONLY);
    opens("read passwords", "/etc/shadow", O_RDONLY);
    opens("write beside its bundle", "/bundle/new", O_WRONLY | O_CREAT);
    opens("write into the root", "/new", O_WRONLY | O_CREAT);
    opens("change the model", "/model", O_WRONLY);
    opens("change the kernel", "/proc/sys/kernel/hostname", O_WRONLY);
    opens("press keys", "/proc/sysrq-trigger", O_WRONLY);
    opens("change a device", "/host/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY);
    said("signal", kill(VICTIM, 0) == 0);
    said("trace", ptrace(PTRACE_ATTACH, VICTIM, 0, 0) == 0);
    snprintf(path, sizeof path, "/proc/%d/environ", VICTIM);
    char byte;
    int environment = open(path, O_RDONLY);
    said("read an environment", environment >= 0 && read(environment, &byte, 1) == 1);
    snprintf(path, sizeof path, "/proc/%d/root%s", VICTIM, KEPT);
    opens("read a file by another process", path, O_RDONLY);
    snprintf(path, sizeof path, "/proc/%d/cwd/kept", VICTIM);
    opens("read a file where another process is", path, O_RDONLY);
    said("mount", mount("none", "/record", "tmpfs", 0, "") == 0);
    mkdir("out", 0700);
    said("leave its root", chroot("out") == 0 && chdir("../../../../../../../../../../..") == 0 && chroot(".") == 0 && access(KEPT, F_OK) == 0);
    shows("capabilities", "/proc/self/status", "CapEff:\t");
    shows("privileges", "/proc/self/status", "NoNewPrivs:\t");
    fflush(stdout);
}
"""
RUNNER = (
    TRIES
    + r"""
int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    try_everything();
    sleep(3);
    return 0;
}
"""
)
LOGGER = (
    TRIES
    + r"""
static volatile int over = 0;
static void end(int number) { over = number; }

static int sees_the_runner(void) {
    char path[600], name[64];
    DIR* folder = opendir("/proc");
    for (struct dirent* each; folder && (each = readdir(folder));) {
        snprintf(path, sizeof path, "/proc/%s/comm", each->d_name);
        FILE* file = fopen(path, "r");
        int found = file && fgets(name, sizeof name, file) && !strcmp(name, "melt-runner\n");
        if (file) fclose(file);
        if (found) return 1;
    }
    return 0;
}

int main(int argc, char** argv) {
    setvbuf(stdout, 0, _IOLBF, 0);
    signal(SIGTERM, end);
    opens("read its plan", argv[1], O_RDONLY);
    opens("write its samples", argv[2], O_WRONLY | O_CREAT | O_EXCL);
    opens("see sensors", "/host/sys/devices/system/cpu/online", O_RDONLY);
    opens("see the machine", "/proc/stat", O_RDONLY);
    try_everything();
    int seen = 0;
    for (int i = 0; i < 200 && !over; ++i) {
        seen = seen || sees_the_runner();
        usleep(50000);
    }
    said("see the runner", seen);
    said("be told to end", over == SIGTERM);
    return 0;
}
"""
)
MAY = {"read its plan", "write its samples", "see sensors", "see the machine", "see the runner", "be told to end"}


@pytest.fixture(params=sandbox_rig.ENGINES)
def sandbox(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of an engine that answers."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    name: str = request.param
    try:
        sandbox_rig.engine(name, tmp_path).version()
    except EngineError as error:
        pytest.skip(error.message)
    return name


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[int]:
    """A process of this user without any capability, as most are; in its working folder there is a file `kept`."""
    (tmp_path / "kept").write_text("secret")
    command = (
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "sleep", "1000"]
        if os.getuid() == 0
        else ["sleep", "1000"]
    )
    process = subprocess.Popen(command, cwd=tmp_path)
    yield process.pid
    process.kill()
    process.wait()


def test_programs_of_strangers(sandbox: str, server: int, victim: int, tmp_path: Path) -> None:
    flags = (f"-DPORT={server}", f"-DVICTIM={victim}", f'-DKEPT="{tmp_path}/kept"')
    bundle = sandbox_rig.static_bundle(tmp_path, {"melt-runner": RUNNER, "melt-sampler": LOGGER}, flags)
    setup = rig.make_setup(tmp_path, rig.Spec({"any": "fine"}, ONCE), sandbox_rig.engine(sandbox, tmp_path), bundle)
    folder = rig.run_setup(tmp_path, setup).campaign.folder / "cells/m/as-is/f/host/any/r000"
    (runner, logger) = ((folder / name).read_text().splitlines() for name in ("stdout.log", "sampler.log"))
    for lines in (runner, logger):
        assert len(lines) > 10, lines
        done = {line.removeprefix("could ") for line in lines if line.startswith("could ")}
        assert done <= MAY
        assert "capabilities 0" in lines
        assert "privileges 1" in lines
    assert {line.removeprefix("could ") for line in logger} >= MAY
    assert (tmp_path / "kept").read_text() == "secret"
    facts = json.loads((folder / "device.json").read_text())["facts"]["facts"]
    if sandbox == "docker":
        assert int(facts["sandbox_memory_bytes"]) > 1 << 28
        assert facts["sandbox_processes"] == "4096"


@pytest.fixture(params=["phone", "board"])
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A virtual device of the lab, which runs on this machine."""
    if request.param == "board":
        _, link = request.getfixturevalue("board_lab")
        yield RemoteTarget(Shell(link), Jetson(), "/var/tmp/meltrepro", reconnect_s=20)
        return
    with attached_phone(tmp_path_factory.mktemp("hostile"), name="innocent") as (phone, adb):
        shell = Shell(AdbLink(adb.server, phone.address))
        yield RemoteTarget(shell, Android(), "/data/local/tmp/meltrepro", reconnect_s=20)


@pytest.mark.integration
def test_programs_of_strangers_on_virtual_devices(
    device: Target, native_bundle: Path, server: int, victim: int, tmp_path: Path
) -> None:
    flags = (f"-DPORT={server}", f"-DVICTIM={victim}", f'-DKEPT="{tmp_path}/kept"')
    sandbox_rig.static_bundle(tmp_path, {"melt-runner": RUNNER}, flags)
    shutil.copy(native_bundle / AGENT, tmp_path / "bundle" / AGENT)
    job = Bench(device, tmp_path).job("none")
    assert device.run_trial(job).exit_code == 0
    lines = (job.folder / "stdout.log").read_text().splitlines()
    done = {line.removeprefix("could ") for line in lines if line.startswith("could ")}
    assert "cannot connect" in lines
    # It is root there, and may do what it likes to the files of the device itself.
    assert done <= {"read passwords", "write into the root", "change the model"}


def test_a_container_has_limits(tmp_path: Path) -> None:
    source = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char** argv) {
    if (!strcmp(argv[1], "eat")) for (;;) memset(malloc(1 << 20), 1, 1 << 20);
    if (!strcmp(argv[1], "who")) { printf("%d\n", getuid()); return 0; }
    int made = 0;
    for (pid_t child; made < 10000 && (child = fork()) >= 0; ++made) if (!child) { pause(); return 0; }
    printf("%d\n", made);
    return 0;
}
"""
    docker = sandbox_rig.engine("docker", tmp_path)
    try:
        docker.version()
    except EngineError as error:
        pytest.skip(error.message)
    bundle = sandbox_rig.static_bundle(tmp_path, {"melt-runner": source})

    def run(order: str, memory_mb: int = 64) -> tuple[int, bool, str]:
        said, argv = tmp_path / "said", ["/bundle/bin/melt-runner", order]
        execution = Execution(argv=argv, bundle=bundle, stdout=said, memory_bytes=memory_mb << 20, timeout_s=60)
        end = docker.execute(execution)
        return end.status, end.out_of_memory, said.read_text().strip()

    assert run("eat")[1], "the kernel ends what takes more than it may"
    assert run("who") == (0, False, str(os.getuid() or 65534))
    status, _, made = run("fork", 2000)
    assert status == 0
    assert 1000 < int(made) < 4096
