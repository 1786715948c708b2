"""`meltrepro doctor` by its words, its JSON and its exit codes; and the engine that it looks for."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.build import contexts, daemon
from meltrepro.cli.app import main
from meltrepro.errors import EngineError
from meltrepro.workflow import machine
from meltrepro.workflow.machine import CheckState, check_machine, find

NOWHERE = "tcp://127.0.0.1:9"
"""Nothing listens on the discard port."""


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)


def state_of(name: str) -> tuple[CheckState, str]:
    (check,) = (check for check in check_machine() if check.name == name)
    return check.state, check.found


@pytest.mark.usefixtures("no_engine")
def test_a_missing_engine_is_named_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == EngineError.exit_code
    out, err = capsys.readouterr()
    assert "missing   docker engine" in out
    assert NOWHERE in out
    assert err.startswith("error: missing: docker engine")
    assert "next: meltrepro doctor --fix" in err
    assert "--engine process" in err


@pytest.mark.usefixtures("no_engine")
def test_json_has_every_check_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == EngineError.exit_code
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert {"python", "docker engine", "disk", "memory", "store", "records", "tracking", "mmdebstrap"} < set(found)
    assert found["docker engine"]["state"] == "missing"
    assert all(check["remedy"] for check in found.values() if check["state"] != "ok")


@pytest.mark.usefixtures("no_engine")
def test_an_engine_of_somebody_elses_is_not_ours_to_start() -> None:
    with pytest.raises(EngineError, match=NOWHERE):
        daemon.connect(settings.load())


@pytest.mark.parametrize("host", ["nonsense", "tcp://127.0.0.1:none", "unix:///no/such.sock"])
def test_a_bad_docker_host_is_an_error_in_words(host: str) -> None:
    with pytest.raises(EngineError, match="no Docker engine answers"):
        daemon.connect(settings.load(), {"DOCKER_HOST": host})


def test_a_socket_where_nobody_answers_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SYSTEM", "PODMAN"):
        monkeypatch.setattr(contexts, name, tmp_path / "none")
    with tempfile.TemporaryDirectory(prefix="melt-") as short, socket.socket(socket.AF_UNIX) as listener:
        here = settings.load({"MELTREPRO_CACHE": short})
        folder = daemon.folder_of(here)
        folder.mkdir(parents=True)
        listener.bind(str(folder / "docker.sock"))
        with pytest.raises(EngineError, match=r"tried unix://.*docker\.sock of meltrepro doctor --fix \("):
            daemon.connect(here, {})


def test_there_is_nothing_to_stop(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--stop"]) == 0
    assert capsys.readouterr().out == "no private engine was running\n"


def test_a_store_that_cannot_be_written_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELTREPRO_CACHE", "/proc/nowhere/cache")
    state, found = state_of("store")
    assert state is CheckState.missing
    assert "/proc/nowhere/cache cannot be written" in found


def test_a_mirror_map_is_looked_at_where_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "mirror map" not in {check.name for check in check_machine()}
    (tmp_path / "m.yaml").write_text("mirrors: {'pypi:a==1': a.whl, 'pypi:b==1': b.whl}")
    monkeypatch.setenv("MELTREPRO_MIRRORS", str(tmp_path / "m.yaml"))
    (tmp_path / "a.whl").touch()
    state, found = state_of("mirror map")
    assert state is CheckState.missing and found.endswith(f"1 of 2 entries lead nowhere: {tmp_path / 'b.whl'}")
    (tmp_path / "b.whl").touch()
    assert state_of("mirror map") == (CheckState.ok, f"{tmp_path / 'm.yaml'}, 2 entries")
    monkeypatch.setenv("MELTREPRO_MIRRORS", str(tmp_path / "none.yaml"))
    assert state_of("mirror map")[0] is CheckState.missing


def test_tracking_shows_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://name:secret@127.0.0.1:9/base")
    state, found = state_of("tracking")
    assert state is CheckState.optional
    assert found.startswith("http://127.0.0.1:9/base does not answer")


def test_a_tracking_server_that_listens_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert state_of("tracking")[0] is CheckState.ok


@pytest.mark.parametrize(
    ("need", "name"), [("tests", "chromium"), ("lab", "qemu-aarch64-static"), ("lab", "ip"), ("process", "bwrap")]
)
def test_who_does_more_needs_more(need: machine.Need, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(machine, "find", lambda _: None)
    for needs, expected in (((), CheckState.optional), ((need,), CheckState.missing)):
        found = {check.name: check.state for check in check_machine(needs=needs)}
        assert found[name] is expected
    assert name in machine.missing_tools(need)


@pytest.mark.usefixtures("no_engine")
def test_who_works_without_an_engine_misses_none(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--engine", "process"])
    out, err = capsys.readouterr()
    assert "optional  docker engine" in out
    assert "docker engine" not in err


def test_an_engine_is_stopped_where_nothing_unmounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And what is still mounted is left alone."""
    monkeypatch.setattr(daemon, "_mounts", lambda _: [tmp_path])
    monkeypatch.setenv("PATH", "/nowhere")
    kept = daemon.folder_of(settings.load())
    kept.mkdir(mode=0o700, parents=True)
    assert daemon.stop(settings.load()) is False
    assert kept.is_dir()


def test_a_file_is_looked_for_in_the_folder_of_any_version(tmp_path: Path) -> None:
    pattern = f"{tmp_path}/python3*/ensurepip/__init__.py"
    assert find(pattern) is None
    (tmp_path / "python3.9" / "ensurepip" / "__init__.py").mkdir(parents=True)
    assert find(pattern) is None
    file = tmp_path / "python3.11" / "ensurepip" / "__init__.py"
    file.parent.mkdir(parents=True)
    file.touch()
    assert find(pattern) == find(str(file)) == str(file)


def test_nothing_is_installed_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(machine, "_run", lambda *_: pytest.fail("apt-get was run"))
    with pytest.raises(EngineError, match="not here: mmdebstrap") as caught:
        machine.install_packages(["mmdebstrap"], pytest.fail)
    assert (
        "apt-get install --no-install-recommends mmdebstrap" in (caught.value.hint or "")
        or not Path("/etc/debian_version").exists()
    )


@pytest.mark.parametrize("existing", [False, True])
def test_packages_start_no_services_without_systemd(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, existing: bool
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(machine, "_POLICY", policy)
    monkeypatch.setattr(machine, "systemd", lambda: False)
    if existing:
        policy.write_text("theirs")
    with machine._no_services():
        assert policy.read_text() == ("theirs" if existing else "#!/bin/sh\nexit 101\n")
    assert policy.exists() == existing


def test_a_sandbox_that_may_not_make_namespaces_is_not_ok(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "bwrap"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] || { echo "setting up uid map: Permission denied" >&2; exit 1; }\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    state, found = state_of("bwrap")
    assert state is CheckState.optional
    assert "Permission denied" in found


def test_a_clock_that_stands_at_its_beginning_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_of("clock")[0] is CheckState.ok
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert state_of("clock") == (CheckState.missing, "1970-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("program", "argument", "ours"),
    [
        ("containerd", "{folder}/exec/containerd/containerd.toml", True),
        ("containerd-shim-runc-v2", "{folder}/exec/containerd/containerd.sock", True),
        ("containerd", "/mnt{folder}/exec/containerd/containerd.toml", False),
        ("containerd", "{folder}/exec/containerd/containerd.toml.old", False),
        ("less", "{folder}/exec/containerd/containerd.toml", False),
        ("my-containerd", "{folder}/exec/containerd/containerd.toml", False),
    ],
)
def test_only_what_runs_for_the_private_engine_is_ended(
    tmp_path: Path, program: str, argument: str, ours: bool
) -> None:
    """A reader of its files, or an engine whose paths contain ours, is none of its helpers."""
    here = settings.load()
    folder = tmp_path / "containerd"  # and so does a path
    folder.mkdir()
    shutil.copy("/bin/sh", folder / program)
    told = argument.format(folder=daemon.folder_of(here))
    with subprocess.Popen([folder / program, "-c", "read line", "sh", told], stdin=subprocess.PIPE) as process:
        try:
            assert daemon.stop(here) is ours
            assert (process.poll() is not None) is ours
        finally:
            process.kill()


def test_a_tracking_server_behind_a_proxy_is_asked_for_at_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.invalid")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"127.0.0.1:{proxy.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", f"socks5h://me:hunter2@{address}")
        found = f"the proxy that http_proxy names (socks5h://{address}) answers"
        assert state_of("tracking") == (CheckState.ok, found)
