"""Logging in as ssh does it, against real servers and agents: which keys, certificates, ways and files of a configuration count."""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.ssh.config import route_to
from meltrepro.targets.ssh.link import SshLink
from tests.support.sshd import Home, Sshd, agent, make_key

pytestmark = pytest.mark.integration


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Home(tmp_path / "home")


@pytest.fixture
def server(home: Home, tmp_path: Path) -> Iterator[Sshd]:
    server = Sshd(tmp_path / "sshd")
    server.start()
    home.know(server)
    yield server
    server.stop()


def reached(name: str = "orin") -> str:
    """What the host says once it is reached."""
    link = SshLink(name, partial(route_to, name))
    try:
        return Shell(link).run(["echo", "in"]).text
    finally:
        link.close()


def tries(server: Sshd) -> int:
    """How many keys were offered and not taken."""
    return (server.folder / "sshd.log").read_text().count("Failed publickey")


# -- keys of agents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
@pytest.mark.parametrize("alone", ["yes", "no"])
@pytest.mark.parametrize(
    ("named", "left"),
    [
        ("vault.pub", ["vault.pub"]),
        ("vault", ["vault.pub"]),
        ("vault", ["vault"]),
        ("vault", ["vault", "vault.pub"]),
        ("%d/.ssh/%n", ["orin.pub"]),
    ],
)
def test_a_key_that_only_the_agent_can_use(
    home: Home, server: Sshd, tmp_path: Path, kind: str, alone: str, named: str, left: list[str]
) -> None:
    """What of it is in files names it, and it is offered before all others; encrypted files name it too."""
    key = make_key(home.ssh / left[0].removesuffix(".pub"), kind, passphrase="secret")
    server.allow(key)
    plain = tmp_path / "plain"
    shutil.copy2(key, plain)
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "secret", "-N", "", "-f", str(plain)], check=True)
    for name in {key.name, f"{key.name}.pub"} - set(left):
        (home.ssh / name).unlink()
    strangers = [make_key(tmp_path / f"stranger{n}") for n in range(7)]
    home.host("orin", server, f"IdentitiesOnly {alone}", f"IdentityFile {named if '%' in named else f'~/.ssh/{named}'}")
    with agent(tmp_path / "agent", *strangers, plain) as path:
        with (home.ssh / "config").open("a") as config:
            config.write(f"Host *\n  IdentityAgent {path}\n")
        assert reached() == "in"
    assert tries(server) == 0


@pytest.mark.parametrize(
    "how", ["~/.agents/a.sock", "${AGENTS}/a.sock", "$AGENT", "SSH_AUTH_SOCK", "%d/.agents/a.sock"]
)
def test_agents_by_any_name(
    home: Home, server: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    key = make_key(tmp_path / "key")
    server.allow(key)
    folder = home.folder / ".agents"
    with agent(folder, key) as path:
        (folder / "a.sock").symlink_to(path)
        monkeypatch.setenv("AGENTS", str(folder))
        monkeypatch.setenv("SSH_AUTH_SOCK" if how == "SSH_AUTH_SOCK" else "AGENT", path)
        home.host("orin", server, f"IdentityAgent {how}")
        assert reached() == "in"


def test_an_agent_that_is_not_wanted_or_not_there(
    home: Home, server: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "key")
    server.allow(key)
    home.host("orin", server, "IdentityAgent none")
    home.host("late", server, "IdentityAgent ~/gone.sock")
    with agent(tmp_path / "agent", key) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with pytest.raises(TargetError, match="no key was found"):
            reached()
        with pytest.raises(TargetError, match=r"the agent at ~/gone\.sock cannot be asked"):
            reached("late")


def test_an_agent_whose_user_says_no(home: Home, server: Sshd, tmp_path: Path) -> None:
    """The next key is tried, as ssh does."""
    asked, free = make_key(tmp_path / "asked"), make_key(tmp_path / "free")
    server.allow(asked)
    with agent(tmp_path / "agent") as path:
        environ = {**os.environ, "SSH_AUTH_SOCK": path}
        subprocess.run(["ssh-add", "-q", "-c", str(asked)], check=True, env=environ)
        home.host("orin", server, f"IdentityAgent {path}", f"IdentityFile {free}")
        with pytest.raises(TargetError, match="the agent does not sign with asked") as failure:
            reached()
        assert not isinstance(failure.value, TargetLost)
        server.allow(free)
        assert reached() == "in"


# -- keys of files ----------------------------------------------------------------------------------------------------


def _converted(path: Path, *options: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "", *options, "-f", str(path)], check=True)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_kinds_of_keys_in_files(home: Home, server: Sshd, kind: str) -> None:
    key = make_key(home.ssh / "key", kind)
    server.allow(key)
    Path(f"{key}.pub").unlink()
    home.host("orin", server, key=key)
    assert reached() == "in"


@pytest.mark.parametrize("form", ["PEM", "PKCS8"])
def test_older_forms_of_files(home: Home, server: Sshd, form: str) -> None:
    key = make_key(home.ssh / "key", "rsa")
    server.allow(key)
    _converted(key, "-m", form)
    assert "OPENSSH" not in key.read_text()
    home.host("orin", server, key=key)
    assert reached() == "in"


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _of_hardware(path: Path) -> None:
    """As ssh-keygen writes the file of a hardware key, as far as anybody reads it here."""

    def text(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    public = text(b"sk-ssh-ed25519@openssh.com") + text(bytes(32)) + text(b"ssh:")
    private = bytes(8) + public + text(b"handle") + text(b"")
    whole = b"openssh-key-v1\0" + text(b"none") * 2 + text(b"") + (1).to_bytes(4, "big") + text(public)
    body = base64.encodebytes(whole + text(private + bytes(range(1, 9))[: -len(private) % 8])).decode()
    path.write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{body}-----END OPENSSH PRIVATE KEY-----\n")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_of_hardware, "is of a kind that is only offered from an agent"),
        (lambda path: path.write_text(""), "holds no private key"),
        (lambda path: path.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n!!\n"), "holds no private key"),
        (lambda path: path.write_bytes(os.urandom(600)), "holds no private key"),
        (lambda path: (path.unlink(), path.mkdir()), "is no file"),
        (_pipe, "is no file"),
        (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "is no file"),
        (lambda path: path.unlink(), "is not there"),
        (lambda path: path.chmod(0o644), "can be read by others: chmod 600"),
        (
            lambda path: subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(path)], check=True),
            "is encrypted",
        ),
    ],
)
def test_files_that_ssh_would_pass_over(home: Home, server: Sshd, spoil: Callable[[Path], object], words: str) -> None:
    """They are named where nothing lets in, and in nobody's way where another key does."""
    spoiled, good = make_key(home.ssh / "spoiled"), make_key(home.ssh / "good")
    Path(f"{spoiled}.pub").unlink()
    spoil(spoiled)
    server.allow(good)
    home.host("orin", server, "IdentitiesOnly yes", key=spoiled)
    home.host("both", server, f"IdentityFile {spoiled}", key=good)
    with pytest.raises(TargetError, match=rf"no key was found; ~/\.ssh/spoiled {words}"):
        reached()
    assert reached("both") == "in"


@pytest.mark.parametrize("where", ["beside", "named", "agent", "agent-and-named"])
@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_certificates(home: Home, tmp_path: Path, where: str, kind: str) -> None:
    authority, key = make_key(tmp_path / "authority"), make_key(home.ssh / "key", kind)
    user = os.environ.get("USER") or "root"
    principal = ["-I", "me", "-n", f"{user},root", f"{key}.pub"]
    subprocess.run(["ssh-keygen", "-q", "-s", str(authority), *principal], check=True, capture_output=True)
    server = Sshd(tmp_path / "strict", (f"TrustedUserCAKeys {authority}.pub",))
    server.start()
    home.know(server)
    certificate = home.ssh / "key-cert.pub"
    try:
        with agent(tmp_path / "agent", *([key] if where.startswith("agent") else [])) as path:
            lines = [f"IdentityAgent {path}"]
            if where == "named":
                certificate = certificate.rename(home.ssh / "mine.pub")
                lines.append(f"CertificateFile {certificate}")
            if where.startswith("agent"):
                key.unlink()
            if where == "agent":
                certificate.unlink()
            home.host("orin", server, *lines, key=None if where == "agent" else key)
            assert reached() == "in"
    finally:
        server.stop()


def test_keys_are_not_wanted_at_all(home: Home, server: Sshd) -> None:
    home.host("orin", server, "PubkeyAuthentication no")
    with pytest.raises(TargetError, match="PubkeyAuthentication no"):
        reached()


# -- ways -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def let_in(home: Home, server: Sshd) -> Path:
    key = make_key(home.ssh / "id_ed25519")
    server.allow(key)
    return key


CARRY = """
import socket, sys, threading
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def back():
    while data := far.recv(65536):
        sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
threading.Thread(target=back, daemon=True).start()
while data := sys.stdin.buffer.raw.read(65536):
    far.sendall(data)
"""
HAND_OVER = """
import socket, sys
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
socket.send_fds(socket.socket(fileno=1), [b"x"], [far.fileno()])
"""


@pytest.mark.parametrize(("program", "passes"), [(CARRY, "no"), (HAND_OVER, "yes")])
@pytest.mark.usefixtures("let_in")
def test_by_a_command(home: Home, server: Sshd, tmp_path: Path, program: str, passes: str) -> None:
    """Run by a shell, with tokens in place; nothing of it is left afterwards."""
    script = tmp_path / "carry.py"
    script.write_text(program)
    command = f"""{shlex.quote(sys.executable)} "{script}" "$(echo %h)" %p 2>/dev/null"""
    home.host("orin", server, f"ProxyCommand {command}", f"ProxyUseFdpass {passes}")
    home.host("far", server, "ProxyJump orin")
    assert reached() == "in"
    assert reached("far") == "in"
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(script).encode() in _bytes(path)]
    assert left == []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["ProxyCommand echo no such gate >&2; exit 3"], "ProxyCommand leads to no SSH: no such gate"),
        (["ProxyCommand meltrepro-no-such-program %h"], "ProxyCommand leads to no SSH: .*not found"),
        (["ProxyCommand echo it is broken >&2", "ProxyUseFdpass yes"], "hands over no connection: it is broken"),
        (["AddressFamily inet6", "HostName 127.0.0.1"], "there is no host|no address"),
        (["BindAddress 203.0.113.7"], "cannot connect to .*assign"),
        (["BindInterface no-such-one"], "cannot connect to .*no such device"),
    ],
)
@pytest.mark.usefixtures("let_in")
def test_ways_that_lead_nowhere(home: Home, server: Sshd, lines: list[str], words: str) -> None:
    home.host("orin", server, *lines)
    with pytest.raises(TargetLost, match=words):
        reached()


@pytest.mark.usefixtures("let_in")
def test_where_a_connection_comes_from(home: Home, server: Sshd) -> None:
    home.host("orin", server, "BindAddress 127.0.0.9", "AddressFamily inet")
    link = SshLink("orin", partial(route_to, "orin"))
    assert Shell(link).script('echo "$SSH_CONNECTION"').text.startswith("127.0.0.9 ")
    link.close()


@pytest.mark.parametrize(
    ("option", "only", "unknown"),
    [
        ("Ciphers", "aes256-ctr", "chacha20-poly1305@openssh.com"),
        ("MACs", "hmac-sha2-512", "umac-64@openssh.com"),
        ("KexAlgorithms", "ecdh-sha2-nistp256", "sntrup761x25519-sha512@openssh.com"),
        ("HostKeyAlgorithms", "ssh-ed25519", "sk-ssh-ed25519@openssh.com"),
    ],
)
@pytest.mark.usefixtures("let_in")
def test_algorithms_are_those_of_the_configuration(
    home: Home, server: Sshd, tmp_path: Path, option: str, only: str, unknown: str
) -> None:
    telling = Sshd(tmp_path / "telling", ("LogLevel DEBUG",))
    telling.authorized.write_text(server.authorized.read_text())
    telling.start()
    try:
        home.know(telling)
        home.host("orin", telling, f"{option} {only}", "Ciphers aes256-ctr")
        assert reached() == "in"
        chosen = [line for line in (telling.folder / "sshd.log").read_text().splitlines() if "kex: " in line]
        assert any(only in line for line in chosen)
    finally:
        telling.stop()
    home.host("odd", server, f"{option} {unknown}")
    with pytest.raises(TargetError, match=f"{option} in the configuration of ssh allows nothing"):
        reached("odd")


# -- whom to believe --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("let_in")
def test_known_hosts_from_a_command(home: Home, server: Sshd, tmp_path: Path) -> None:
    home.known_hosts.unlink()
    (tmp_path / "lines").write_text(server.known)
    home.host("orin", server, f'KnownHostsCommand /bin/sh -c "grep -F %H {tmp_path}/lines" %H')
    home.host("bad", server, "KnownHostsCommand /bin/false")
    assert reached() == "in"
    with pytest.raises(TargetError, match="KnownHostsCommand fails"):
        reached("bad")


@pytest.mark.parametrize("form", ["lines", "list", "missing"])
@pytest.mark.usefixtures("let_in")
def test_keys_that_are_revoked(home: Home, server: Sshd, tmp_path: Path, form: str) -> None:
    files = {name: tmp_path / name for name in ("mine", "other", "missing")}
    other = make_key(tmp_path / "another")
    for name, key in {"mine": server.host_key, "other": other}.items():
        if form == "list":
            subprocess.run(["ssh-keygen", "-q", "-k", "-f", str(files[name]), f"{key}.pub"], check=True)
        else:
            shutil.copy(f"{key}.pub", files[name])
    for name, file in files.items():
        home.host(name, server, f"RevokedHostKeys {file}")
    assert reached("other") == "in"
    with pytest.raises(TargetError, match="revoked"):
        reached("mine")
    with pytest.raises(TargetError, match="no host is believed while RevokedHostKeys cannot be read"):
        reached("missing")


@pytest.mark.usefixtures("let_in")
def test_a_host_is_not_believed_because_ssh_would_not_ask(home: Home, server: Sshd) -> None:
    home.known_hosts.unlink()
    home.host("orin", server, "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null")
    with pytest.raises(TargetError, match="host key is not known") as failure:
        reached()
    assert "/dev/null" not in (failure.value.hint or "")
    assert "UserKnownHostsFile" in (failure.value.hint or "")
