"""How a host is reached, as OpenSSH's own files say it."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

import pytest

from meltrepro.errors import TargetError
from meltrepro.targets.ssh.config import Route, route_to

CONFIG = """
Host orin
    HostName 10.0.0.7
    Port 2222
    User melt
    IdentityFile ~/.ssh/board
    IdentitiesOnly yes
    UserKnownHostsFile ~/.ssh/boards ~/.ssh/more
    ProxyJump gate

Host gate
    HostName gate.example
    User {user}

Host far
    HostName 10.1.0.2
    HostKeyAlias the-far-one
    ProxyJump gate,second@[fe80::1]:2200

Host odd
    ProxyCommand nc %h %p

Host round
    ProxyJump circle
Host circle
    ProxyJump round

Match host 10.0.0.9
    User matched

Host *
    Port 2022
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    ssh = tmp_path / ".ssh"
    ssh.mkdir()
    for name in ("board", "id_rsa", "id_ed25519"):
        (ssh / name).touch()
    (ssh / "config").write_text(CONFIG.format(user="keeper"))
    return ssh


def test_everything_that_a_host_can_say(home: Path) -> None:
    route = route_to("orin")
    assert (route.name, route.address, route.port, route.user) == ("orin", "10.0.0.7", 2222, "melt")
    assert route.keys == (home / "board",)
    assert route.keys_alone
    assert route.known_hosts[:2] == (home / "boards", home / "more")
    assert route.known_as == "[10.0.0.7]:2222"
    assert route.jump is not None
    assert (route.jump.address, route.jump.port, route.jump.user, route.jump.jump) == (
        "gate.example",
        2022,
        "keeper",
        None,
    )


def test_a_chain_of_hosts_is_gone_through_in_its_order(home: Path) -> None:
    route = route_to("far")
    chain = []
    each: Route | None = route
    while each is not None:
        chain.append((each.user, each.address, each.port))
        each = each.jump
    me = getpass.getuser()
    assert chain == [(me, "10.1.0.2", 2022), ("second", "fe80::1", 2200), ("keeper", "gate.example", 2022)]
    assert route.known_as == "the-far-one"


def test_a_host_that_is_in_no_file(home: Path) -> None:
    route = route_to("someone@board.local:22")
    assert (route.address, route.port, route.user, route.jump) == ("board.local", 22, "someone", None)
    assert route.known_as == "board.local"
    assert route.keys == (home / "id_ed25519", home / "id_rsa"), "those that are there, in OpenSSH's order"
    assert route.known_hosts[0] == home / "known_hosts"


def test_match_sees_the_address(home: Path) -> None:
    with (home / "config").open("r+") as file:
        file.write("Host nine\n    HostName 10.0.0.9\n" + CONFIG.format(user="keeper"))
    assert route_to("nine").user == "matched"


def test_files_that_are_included(home: Path) -> None:
    (home / "boards.d").mkdir()
    (home / "boards.d/a.conf").write_text("Host nano\n    HostName 10.0.0.8\n")
    text = "Include boards.d/*.conf\nHost xavier\n    Include of-xavier\n    User late\nHost *\n    User anybody\n"
    (home / "config").write_text(text)
    (home / "of-xavier").write_text("HostName 10.0.0.5\n")
    assert (route_to("nano").address, route_to("nano").user) == ("10.0.0.8", "anybody")
    assert (route_to("xavier").address, route_to("xavier").user) == ("10.0.0.5", "late")
    assert route_to("other").address == "other", "what stands in a block is of that block alone"


@pytest.mark.parametrize("name", ["orin", "gate", "nobody", "someone@nobody"])
def test_openssh_itself_agrees(home: Path, name: str) -> None:
    command = ["ssh", "-G", "-F", str(home / "config"), name]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    theirs = dict(line.split(" ", 1) for line in said if " " in line)
    route = route_to(name)
    assert (route.address, str(route.port), route.user) == (theirs["hostname"], theirs["port"], theirs["user"])
    assert (route.jump.name if route.jump else None) == theirs.get("proxyjump")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("odd", "ProxyCommand, which is not offered"),
        ("round", "leads in a circle"),
        ("a:b:c", "is no host"),
        ("", "is no host"),
    ],
)
def test_what_cannot_be_reached(home: Path, name: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        route_to(name)


@pytest.mark.parametrize("text", ["Host\n", "Port many\n", "Include config\n"])
def test_files_that_cannot_be_used(home: Path, text: str) -> None:
    (home / "config").write_text(text)
    with pytest.raises(TargetError, match=r"config"):
        route_to("board")


def test_no_file_at_all(home: Path) -> None:
    (home / "config").unlink()
    assert route_to("board").address == "board"
