"""The target contract over SSH: this machine behind a real OpenSSH server, as a Linux board of which nothing is known."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from meltrepro.targets.base import AGENT
from meltrepro.targets.remote.linux import LinuxPlatform
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.ssh.config import Route
from meltrepro.targets.ssh.link import SshLink
from meltrepro.testing import targets as suite
from meltrepro.testing.targets import Bench
from tests.integration.scorer_rig import scores_there_as_here
from tests.support.sshd import USER, Sshd, make_key

pytestmark = [pytest.mark.integration, pytest.mark.contract]


class TestContract(suite.AnyProgramContract):
    """With the `bench` below."""


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshLink]:
    folder = tmp_path_factory.mktemp("sshd")
    server = Sshd(folder / "server")
    key = make_key(folder / "key")
    server.allow(key)
    known = folder / "known_hosts"
    known.write_text(server.known)
    server.start()
    route = Route("board", "127.0.0.1", server.port, USER, (key,), (known,), keys_alone=True)
    link = SshLink("board", lambda: route)
    yield link
    link.close()
    server.stop()


@pytest.fixture
def bench(link: SshLink, runner_bundles: Mapping[str, Path], tmp_path: Path) -> Iterator[Bench]:
    arm = platform.machine() == "aarch64"
    here = next(path for name, path in runner_bundles.items() if ("armv8" in name) == arm)
    target = RemoteTarget(Shell(link), LinuxPlatform("linux"), str(tmp_path / "there"), reconnect_s=10)
    yield Bench(target, tmp_path, here / AGENT)
    assert target.stop_strays() == 0, "a trial leaves nothing behind"


def test_the_bundles_scorer_comes_to_the_same_there(bench: Bench, native_bundle: Path, tmp_path: Path) -> None:
    scores_there_as_here(bench.target, native_bundle, tmp_path)


def test_it_is_this_machine(bench: Bench) -> None:
    facts = bench.target.identify()
    assert (facts.kind, facts.arch, facts.virtual) == ("linux", platform.machine(), False)
    assert facts.id.startswith("board-")
    machine_id = Path("/etc/machine-id")
    if machine_id.exists():
        assert machine_id.read_text().strip() not in str(facts), "it leaves the board as a digest only"
