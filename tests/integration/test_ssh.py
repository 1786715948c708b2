"""The SSH link against real OpenSSH servers on this machine: trust, keys, jumps, streams, and every way to lose it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.remote.deploy import DeviceCache
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.ssh import dial
from meltrepro.targets.ssh import link as ssh
from meltrepro.targets.ssh.config import route_to
from meltrepro.targets.ssh.link import SshLink
from tests.support.cable import cable
from tests.support.sshd import Home, Sshd, agent, free_port, make_key
from tests.support.stall import Stall

pytestmark = pytest.mark.integration


@dataclass
class Rig:
    """A home with a key, and a server that takes it."""

    home: Home
    key: Path
    server: Sshd

    def link(self, name: str = "board") -> SshLink:
        return SshLink(name, partial(route_to, name))

    def shell(self, name: str = "board") -> Shell:
        return Shell(self.link(name))

    def through(self, stall: Stall, name: str = "stalling") -> Shell:
        """A shell by way of a link that may go silent."""
        text = self.server.known.replace(f":{self.server.port}]", f":{stall.port}]")
        self.home.host(name, self.server, f"HostKeyAlias {name}", key=self.key)
        config = self.home.ssh / "config"
        head, _, tail = config.read_text().rpartition(f"Port {self.server.port}")
        config.write_text(f"{head}Port {stall.port}{tail}")
        with self.home.known_hosts.open("a") as file:
            file.write(f"{name} {text.split(' ', 1)[1]}")
        return self.shell(name)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Home(tmp_path / "home")


@pytest.fixture
def rig(home: Home, tmp_path: Path) -> Iterator[Rig]:
    server = Sshd(tmp_path / "sshd")
    key = make_key(tmp_path / "key")
    server.allow(key)
    server.start()
    home.host("board", server, key=key)
    home.know(server)
    yield Rig(home, key, server)
    server.stop()


# -- commands ---------------------------------------------------------------------------------------------------------


def test_streams_and_statuses_arrive_as_they_are(rig: Rig) -> None:
    shell = rig.shell()
    reply = shell.script('cat; echo "complains: $1" >&2; exit 7', 'it\'s "$HOME" \\ \n * ü', source=[b"\0\xff", b"\n"])
    assert (reply.status, reply.out) == (7, b"\0\xff\n")
    assert reply.err == 'complains: it\'s "$HOME" \\ \n * ü\n'
    assert shell.run(["true"]).status == 0
    assert shell.run(["meltrepro-no-such-program"]).status == 127
    assert shell.run(["sh", "-c", "kill -SEGV $$"]).status == 128 + 11


def test_much_on_both_streams_at_once(rig: Rig) -> None:
    size = 3 << 20
    reply = rig.shell().script('head -c "$1" /dev/zero >&2 & head -c "$1" /dev/zero; wait', str(size))
    assert (len(reply.out), len(reply.err)) == (size, size)


def test_much_input_and_a_command_that_does_not_want_it(rig: Rig) -> None:
    data = os.urandom(1 << 20) * 40
    found = rig.shell().run(["sha256sum"], source=[data]).text.split()[0]
    assert found == hashlib.sha256(data).hexdigest()
    assert rig.shell().script("exit 3", source=[data]).status == 3


def test_commands_share_one_connection(rig: Rig) -> None:
    shell = rig.shell()
    with ThreadPoolExecutor(5) as pool:
        said = list(pool.map(lambda n: shell.run(["sh", "-c", f"sleep 0.2; echo {n}"]).text, range(5)))
    assert said == ["0", "1", "2", "3", "4"]
    assert (rig.server.folder / "sshd.log").read_text().count("Accepted publickey") == 1


def test_what_a_command_leaves_behind_holds_nobody_up(rig: Rig) -> None:
    began = time.monotonic()
    assert rig.shell().script("sleep 8 & echo done").text == "done"
    assert time.monotonic() - began < 7


def test_a_command_that_is_given_up_is_killed_with_its_children(rig: Rig) -> None:
    shell = rig.shell()
    mark = f"{time.time_ns()}"[-9:]
    with pytest.raises(TargetLost, match=r"nothing was heard for 0\.5 s"):
        shell.script(f"sleep 1{mark} & sleep 1{mark}", silence_s=0.5)
    deadline = time.monotonic() + 5
    while (
        mark in (left := shell.script("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").text) and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert f"sleep 1{mark}" not in left


def test_fast_ciphers_are_preferred_and_others_taken(rig: Rig, home: Home, tmp_path: Path) -> None:
    link = rig.link()
    link.open("true").close()
    assert link._connection is not None
    assert link._connection._transport.local_cipher == "aes128-gcm@openssh.com"
    other = Sshd(tmp_path / "old", ("Ciphers aes256-ctr",))
    other.allow(rig.key)
    other.start()
    try:
        home.host("old", other, key=rig.key)
        home.know(other)
        assert rig.shell("old").run(["echo", "works"]).text == "works"
    finally:
        other.stop()


# -- trust and keys ---------------------------------------------------------------------------------------------------


def test_a_host_that_nobody_knows_and_how_to_accept_it(rig: Rig, home: Home) -> None:
    home.known_hosts.unlink()
    with pytest.raises(TargetError, match="host key is not known") as failure:
        rig.shell().run(["true"])
    assert not isinstance(failure.value, TargetLost)
    assert rig.server.fingerprint in failure.value.message
    assert not home.known_hosts.exists(), "nothing is believed because it was seen once"
    hint = failure.value.hint or ""
    command = re.search(r"accept it with: (ssh-keyscan .*)", hint)
    assert command, hint
    subprocess.run(["sh", "-c", command[1]], check=True, stderr=subprocess.DEVNULL)
    assert rig.shell().run(["echo", "known"]).text == "known"


def test_a_host_whose_key_has_changed_and_how_to_accept_that(rig: Rig, home: Home, tmp_path: Path) -> None:
    was = rig.server.fingerprint
    rig.server.stop()
    other = Sshd(tmp_path / "other", port=rig.server.port)
    other.allow(rig.key)
    other.start()
    try:
        with pytest.raises(TargetError, match="host key has changed") as failure:
            rig.shell().run(["true"])
        assert was in failure.value.message
        assert other.fingerprint in failure.value.message
        command = re.search(r"(ssh-keygen -R .*?), and then", failure.value.hint or "")
        assert command
        subprocess.run(["sh", "-c", command[1]], check=True, capture_output=True)
        home.know(other)
        assert rig.shell().run(["echo", "again"]).text == "again"
    finally:
        other.stop()


def test_an_agent_opens_what_no_file_here_can(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.key.unlink()
    with pytest.raises(TargetError, match="no key was found") as failure:
        rig.shell().run(["true"])
    assert "ssh-copy-id board" in (failure.value.hint or "")
    held = make_key(tmp_path / "held", "rsa")
    rig.server.allow(held)
    with agent(tmp_path / "agent", make_key(tmp_path / "stranger"), held) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        assert rig.shell().run(["echo", "in"]).text == "in"


def test_an_encrypted_key_needs_the_agent(
    home: Home, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = make_key(tmp_path / "locked", passphrase="secret")
    rig.server.allow(locked)
    home.host("strict", rig.server, "IdentitiesOnly yes", key=locked)
    with pytest.raises(TargetError, match="locked is encrypted") as failure:
        rig.shell("strict").run(["true"])
    assert "ssh-add" in (failure.value.hint or "")
    plain = tmp_path / "copy"
    plain.write_bytes(locked.read_bytes())
    plain.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "secret", "-N", "", "-f", str(plain)], check=True)
    strangers = [make_key(tmp_path / f"stranger{n}") for n in range(7)]
    with agent(tmp_path / "agent", *strangers, plain) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        assert rig.shell("strict").run(["echo", "in"]).text == "in", "the others are not even offered"


def test_keys_that_are_not_taken(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.server.authorized.write_text("")
    with pytest.raises(TargetError, match=r"lets \S+ in by none of: \S+key$") as failure:
        rig.shell().run(["true"])
    assert not isinstance(failure.value, TargetLost)
    strangers = [make_key(tmp_path / f"stranger{n}") for n in range(8)]
    with agent(tmp_path / "agent", *strangers) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with pytest.raises(TargetError, match="hung up after . keys") as failure:
            rig.shell().run(["true"])
    assert "IdentitiesOnly yes" in (failure.value.hint or "")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("PubkeyAuthentication no\nPasswordAuthentication yes", r"not let \S+ in by keys, only by password"),
        ("AuthenticationMethods publickey,password\nPasswordAuthentication yes", "wants more than a key: password"),
        ("ForceCommand /usr/sbin/nologin", "runs no commands for .*not available"),
        ('ForceCommand echo Welcome; eval "$SSH_ORIGINAL_COMMAND"', "login files write on their own: 'Welcome'"),
        ("Ciphers chacha20-poly1305@openssh.com", "too old or too new"),
    ],
)
def test_servers_that_cannot_be_used(rig: Rig, home: Home, tmp_path: Path, option: str, words: str) -> None:
    server = Sshd(tmp_path / "odd", (option,))
    server.allow(rig.key)
    server.start()
    try:
        home.host("odd", server, key=rig.key)
        home.know(server)
        with pytest.raises(TargetError, match=words) as failure:
            rig.shell("odd").run(["true"])
        assert not isinstance(failure.value, TargetLost), "somebody has to help"
    finally:
        server.stop()


def test_a_server_that_is_full(rig: Rig, home: Home, tmp_path: Path) -> None:
    server = Sshd(tmp_path / "small", ("MaxSessions 1",))
    server.allow(rig.key)
    server.start()
    try:
        home.host("small", server, key=rig.key)
        home.know(server)
        shell = rig.shell("small")
        with (
            contextlib.closing(shell.open(["sleep", "60"])),
            pytest.raises(TargetLost, match="no more sessions") as failure,
        ):
            shell.run(["true"])
        assert "MaxSessions" in (failure.value.hint or "")
    finally:
        server.stop()


# -- jumps ------------------------------------------------------------------------------------------------------------


def test_through_other_hosts(rig: Rig, home: Home, tmp_path: Path) -> None:
    """The board is reached through one server, and that one through another, each with a key of its own."""
    gates = [Sshd(tmp_path / f"gate{n}") for n in range(2)]
    keys = [make_key(tmp_path / f"key{n}") for n in range(2)]
    for gate, key in zip(gates, keys, strict=True):
        gate.allow(key)
        gate.start()
        home.know(gate)
    try:
        home.host("outer", gates[0], key=keys[0])
        home.host("inner", gates[1], "ProxyJump outer", key=keys[1])
        home.host("far", rig.server, "ProxyJump inner", key=rig.key)
        home.host("listed", rig.server, "ProxyJump outer,inner", key=rig.key)
        for name in ("far", "listed"):
            shell = rig.shell(name)
            port = shell.script('echo "$SSH_CONNECTION"').text.split()[-1]
            assert int(port) == rig.server.port
            data = os.urandom(4 << 20)
            assert shell.run(["cat"], source=[data]).out == data
        for gate in gates:
            assert "Accepted publickey" in (gate.folder / "sshd.log").read_text()
        shell.link.close()  # type: ignore[attr-defined]
        gates[1].stop()
        with pytest.raises(TargetLost, match=rf"outer does not lead on to 127\.0\.0\.1:{gates[1].port}"):
            shell.run(["true"])
    finally:
        for gate in gates:
            gate.stop()


def test_a_host_that_leads_nowhere(rig: Rig, home: Home, tmp_path: Path) -> None:
    gate = Sshd(tmp_path / "gate", ("AllowTcpForwarding no",))
    gate.allow(rig.key)
    gate.start()
    try:
        home.know(gate)
        home.host("gate", gate, key=rig.key)
        home.host("far", rig.server, "ProxyJump gate", key=rig.key)
        with pytest.raises(TargetError, match="gate does not lead on to") as failure:
            rig.shell("far").run(["true"])
        assert not isinstance(failure.value, TargetLost)
        home.known_hosts.write_text(rig.server.known)
        with pytest.raises(TargetError, match="gate: its host key is not known"):
            rig.shell("far").run(["true"])
    finally:
        gate.stop()


# -- losses -----------------------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_in_the_middle_and_comes_back(rig: Rig) -> None:
    shell = rig.shell()
    assert shell.run(["echo", "before"]).text == "before"
    killing = threading.Timer(0.5, rig.server.stop)
    killing.start()
    began = time.monotonic()
    with pytest.raises(TargetLost):
        shell.run(["sleep", "20"])
    assert time.monotonic() - began < 5, "noticed when it happens"
    killing.join()
    with pytest.raises(TargetLost, match="connection refused"):
        shell.run(["true"])
    rig.server.start()
    assert shell.run(["echo", "after"]).text == "after"


def test_a_session_that_is_killed_alone(rig: Rig) -> None:
    shell = rig.shell()
    with pytest.raises(TargetLost):
        shell.script("kill -9 $PPID; sleep 9")
    assert shell.run(["echo", "after"]).text == "after"


def test_a_shell_that_is_killed_alone_leaves_the_connection(rig: Rig) -> None:
    shell = rig.shell()
    assert shell.run(["true"]).status == 0
    with pytest.raises(TargetLost, match="in the middle of a command|was killed there"):
        shell.run(["sh", "-c", "kill -9 $PPID; exec sleep 0.2"])
    assert shell.run(["echo", "after"]).text == "after"
    assert (rig.server.folder / "sshd.log").read_text().count("Accepted publickey") == 1


@pytest.mark.parametrize("busy", ["waiting", "sending"])
def test_a_link_that_goes_silent(rig: Rig, monkeypatch: pytest.MonkeyPatch, busy: str) -> None:
    """Everything stays connected, so that TCP has nothing to complain of; the command alone would wait for minutes."""
    monkeypatch.setattr(ssh, "_ASK_EVERY_S", 0.5)
    monkeypatch.setattr(ssh, "_SILENCE_S", 2.0)
    monkeypatch.setattr(dial, "CONNECT_S", 2.0)
    stall = Stall(rig.server.port)
    try:
        shell = rig.through(stall)
        assert shell.run(["true"]).status == 0
        silence = threading.Timer(0.5, stall.stall)
        silence.start()
        began = time.monotonic()
        with pytest.raises(TargetLost):
            if busy == "waiting":
                shell.run(["sleep", "50"], silence_s=40)
            else:
                shell.run(["sleep", "50"], source=[b"x" * (1 << 20)] * 64, silence_s=40)
        assert time.monotonic() - began < 9
        stall.flow()
        assert shell.run(["echo", "after"]).text == "after"
    finally:
        stall.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="a network of its own needs root")
def test_a_cable_that_is_pulled_while_something_is_sent(
    rig: Rig, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TCP itself notices, though nobody asks for a sign of life."""
    monkeypatch.setattr(ssh, "_ASK_EVERY_S", 1000.0)
    monkeypatch.setattr(ssh, "_SILENCE_S", 2.0)
    monkeypatch.setattr(dial, "CONNECT_S", 2.0)
    with cable() as plugged:
        server = Sshd(tmp_path / "far", address=plugged.address, before=plugged.inside)
        server.allow(rig.key)
        try:
            server.start()
            home.host("far", server, key=rig.key)
            home.know(server)
            shell = rig.shell("far")
            assert shell.run(["echo", "there"]).text == "there"
            threading.Timer(0.5, plugged.pull).start()
            began = time.monotonic()
            with pytest.raises(TargetLost):
                shell.run(["sh", "-c", "exec cat > /dev/null"], source=_endlessly(), silence_s=40)
            assert time.monotonic() - began < 12
            plugged.plug()
            assert shell.run(["echo", "again"]).text == "again"
        finally:
            server.stop()


def _endlessly() -> Iterator[bytes]:
    while True:
        yield b"x" * (64 << 10)
        time.sleep(0.01)


def test_a_link_that_is_quiet_for_long_is_no_silent_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "_ASK_EVERY_S", 0.2)
    monkeypatch.setattr(ssh, "_SILENCE_S", 0.6)
    assert rig.shell().script("sleep 3; echo patient").text == "patient"


def test_sessions_that_are_frozen(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a board that hangs: its kernel still answers, nothing else does."""
    monkeypatch.setattr(ssh, "_ASK_EVERY_S", 0.5)
    monkeypatch.setattr(ssh, "_SILENCE_S", 2.0)
    shell = rig.shell()
    assert shell.run(["true"]).status == 0
    threading.Timer(0.5, rig.server.freeze).start()
    began = time.monotonic()
    with pytest.raises(TargetLost):
        shell.run(["sleep", "50"], silence_s=40)
    assert time.monotonic() - began < 9
    assert shell.run(["echo", "after"]).text == "after", "a new session is served"


def test_a_large_file_over_a_link_that_breaks(rig: Rig, tmp_path: Path) -> None:
    local = tmp_path / "model"
    local.write_bytes(os.urandom(1 << 20) * 48)
    digest = hashlib.sha256(local.read_bytes()).hexdigest()
    stall = Stall(rig.server.port)
    root = tmp_path / "far away"
    try:
        cache = DeviceCache(rig.through(stall), str(root))
        stall.cut_after(20 << 20)
        with pytest.raises(TargetLost):
            cache.deploy(local, digest)
        there = (root / "cas" / f"{digest}.part").stat().st_size
        assert 10 << 20 < there < 30 << 20, "what arrived is kept"
        sent: list[int] = []
        path = cache.deploy(local, digest, lambda done, _: sent.append(done))
        assert Path(path).read_bytes() == local.read_bytes()
        assert sent[0] > there
    finally:
        stall.close()


def test_places_where_no_ssh_answers(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "CONNECT_S", 1.0)
    port = free_port()
    (home.ssh / "config").write_text(
        f"Host nobody\n HostName 127.0.0.1\n Port {port}\nHost nowhere\n HostName nowhere.invalid\n"
        f"Host other\n HostName 127.0.0.1\n Port {port}\n"
    )
    for name, words in (("nobody", "cannot connect to .*refused"), ("nowhere", "there is no host 'nowhere.invalid'")):
        with pytest.raises(TargetLost, match=words):
            Shell(SshLink(name, partial(route_to, name))).run(["true"])
    with socket.create_server(("127.0.0.1", port)) as listener:
        threading.Thread(target=_talk_nonsense, args=(listener,), daemon=True).start()
        with pytest.raises(TargetLost, match="answers, but not as SSH does"):
            Shell(SshLink("other", partial(route_to, "other"))).run(["true"])


def _talk_nonsense(listener: socket.socket) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client:
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_nothing_is_said_but_by_errors(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    rig.server.stop()
    with pytest.raises(TargetLost):
        rig.shell().run(["true"])
    rig.server.start()
    shell = rig.shell()
    assert shell.run(["true"]).status == 0
    rig.server.stop()
    with pytest.raises(TargetLost):
        shell.run(["true"])
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
