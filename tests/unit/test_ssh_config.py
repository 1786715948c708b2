"""How a host is reached: as ssh itself says, whatever its files hold."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from meltrepro.errors import TargetError
from meltrepro.targets.ssh import config
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
    ProxyCommand nc -X 5 %h %p %r 100%% "${{HOME}}"
    ProxyUseFdpass yes

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
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    ssh = tmp_path / ".ssh"
    ssh.mkdir()
    (ssh / "config").write_text(CONFIG.format(user="keeper"))
    return ssh


def configured(home: Path, text: str, name: str = "orin") -> Route:
    (home / "config").write_text(text)
    return route_to(name)


def test_everything_that_a_host_can_say(home: Path) -> None:
    route = route_to("orin")
    assert (route.name, route.address, route.port, route.user) == ("orin", "10.0.0.7", 2222, "melt")
    assert route.keys == (home / "board",)
    assert route.keys_alone
    assert route.known_hosts[:2] == (home / "boards", home / "more")
    assert route.known_as == "[10.0.0.7]:2222"
    assert route.jump is not None
    jump = route.jump
    assert (jump.address, jump.port, jump.user, jump.jump) == ("gate.example", 2022, "keeper", None)


def chain(route: Route | None) -> list[tuple[str, str, int]]:
    return [] if route is None else [(route.user, route.address, route.port), *chain(route.jump)]


def test_a_chain_of_hosts_is_gone_through_in_its_order(home: Path) -> None:
    me = getpass.getuser()
    assert chain(route_to("far")) == [
        (me, "10.1.0.2", 2022),
        ("second", "fe80::1", 2200),
        ("keeper", "gate.example", 2022),
    ]
    assert route_to("far").known_as == "the-far-one"


ME = getpass.getuser()


@pytest.mark.parametrize(
    ("name", "host", "user", "port"),
    [
        ("someone@board.local:22", "board.local", "someone", 22),
        ("board.local", "board.local", ME, 2022),
        ("ssh://me@bastion:2222", "bastion", "me", 2222),
        ("ssh://me%40corp@bastion", "bastion", "me@corp", 2022),
        ("ssh://bastion/", "bastion", ME, 2022),
        ("me@corp@bastion", "bastion", "me@corp", 2022),
        ("CORP\\me@bastion", "bastion", "CORP\\me", 2022),
        ("[fe80::1%eth0]:2200", "fe80::1%eth0", ME, 2200),
        ("me@fe80::1", "fe80::1", "me", 2022),
        ("2001:db8:0:0:0:0:0:1", "2001:db8:0:0:0:0:0:1", ME, 2022),
        ("vsock/3", "vsock/3", ME, 2022),
    ],
)
def test_names_of_hosts(home: Path, name: str, host: str, user: str, port: int) -> None:
    route = route_to(name)
    assert (route.name, route.user, route.port) == (host, user, port)
    assert route.known_hosts[0] == home / "known_hosts"
    assert home / "id_ed25519" in route.keys


@pytest.mark.parametrize(
    "name",
    [
        *("a:b:c", "", "a:", "@a", "-oProxyCommand=touch x", "me@-oProxyCommand=touch x", "-x@a", "a b", "a\nb", "a,b"),
        *("a;x", "`x`", "a$(x)", "a|x", "a&x", "a'x", 'a"x', "{a,b}", "[a]b", "ssh://", "[-oX]", "$(x)@a", "a\0b"),
    ],
)
def test_names_that_are_none(home: Path, name: str) -> None:
    """Also those that would mean something to a shell, to which a configuration may hand them (`Match exec`)."""
    (home / "config").write_text(f'Match exec "touch {home}/ran %h %n %r"\nUser x\n')
    with pytest.raises(TargetError, match="is no host"):
        route_to(name)
    assert not (home / "ran").exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Port 2222 # nat", {"port": 2222}),
        ("HostName 10.0.0.5  # lab", {"address": "10.0.0.5"}),
        ("User nvidia # default", {"user": "nvidia"}),
        ("Host orin # Bob's board\nUser nv", {"user": "nv"}),
        ("Match host=orin\nUser nv", {"user": "nv"}),
        ("Match host other,orin user *\nUser nv", {"user": "nv"}),
        ("Match final all\nUser nv", {"user": "nv"}),
        ("Match final host orin\nUser nv", {"user": "nv"}),
        ("Match canonical all\nUser nv", {"user": ME}),
        ("Match originalhost orin !localuser nobody-such\nUser nv", {"user": "nv"}),
        ("Match exec true\nUser nv", {"user": "nv"}),
        ("Match exec false\nUser nv", {"user": ME}),
        ("IdentitiesOnly true", {"keys_alone": True}),
        ("IdentitiesOnly=yes", {"keys_alone": True}),
        ("Hostname = %h.example", {"address": "orin.example"}),
        ('User "n v"', {"user": "n v"}),
        ("Host other !orin\nUser nv\nHost o?i* \nUser second", {"user": "second"}),
        ("User first\nUser second", {"user": "first"}),
        ("HostKeyAlias = board", {"known_as": "board"}),
        ("Include config.d/*/hosts", {"user": "deep"}),
        ('Include "my hosts/*.conf"', {"user": "spaced"}),
        ("Include ~/.ssh/config.d/a/hosts nothing-there", {"user": "deep"}),
        ("Host other\nInclude boards.conf", {"address": "orin", "user": ME}),
        ("Match host other\nInclude boards.conf\nMatch all\nUser nv", {"address": "orin", "user": "nv"}),
        ("Include boards.conf", {"address": "10.0.0.5", "user": "nv"}),
        ("ProxyCommand none\nProxyJump none\nHostKeyAlias orin", {"proxy": None, "jump": None, "known_as": "orin"}),
        ("KnownHostsCommand /bin/keys %H %n", {"known_hosts_command": ("/bin/keys", "%H", "orin")}),
        ("IdentityAgent none", {"agent": None}),
        ("IdentityAgent /run/agent-%r", {"agent": f"/run/agent-{ME}"}),
        ("IdentityAgent $OTHER", {"agent": "/run/other"}),
        ("IdentityAgent ${OTHER}.1", {"agent": "/run/other.1"}),
        ("IdentityAgent SSH_AUTH_SOCK", {"agent": "/run/usual"}),
        ("IdentityAgent $NO_SUCH_VARIABLE", {"agent": None}),
        ("", {"agent": "/run/usual", "port": 22}),
    ],
)
def test_what_a_configuration_may_say(
    home: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: dict[str, object]
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/usual")
    monkeypatch.setenv("OTHER", "/run/other")
    (home / "config.d/a").mkdir(parents=True)
    (home / "config.d/a/hosts").write_text("Host orin\n  User deep\n")
    (home / "my hosts").mkdir()
    (home / "my hosts/a.conf").write_text("Host orin\n  User spaced\n")
    (home / "boards.conf").write_text("Host orin\n  HostName 10.0.0.5\n  User nv\n")
    route = configured(home, text + "\n")
    assert {name: getattr(route, name) for name in found} == found


@pytest.mark.parametrize(
    ("jump", "expected"),
    [
        ("ssh://me@bastion:2222", [("me", "bastion", 2222)]),
        ("me@bastion", [("me", "bastion", 22)]),
        ("10.0.0.1:2200,[fe80::1]:33", [(ME, "fe80::1", 33), (ME, "10.0.0.1", 2200)]),
        ("a,b,c", [(ME, "c.example", 22), ("of-b", "b", 2), (ME, "a", 22)]),
    ],
)
def test_each_hop_is_a_host_of_its_own(home: Path, jump: str, expected: list[tuple[str, str, int]]) -> None:
    text = (
        f"Host orin\nProxyJump {jump}\nHost b\nPort 2\nUser of-b\nHost c\nHostName %h.example\nProxyJump not-this-one\n"
    )
    assert chain(configured(home, text))[1:] == expected


def test_files_with_tokens_tildes_and_spaces(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "my hosts").mkdir()
    (home / "my hosts/known").touch()
    monkeypatch.setenv("WHERE", "there")
    route = configured(
        home,
        "HostName 10.0.0.5\nUser nv\nIdentityFile ~/.ssh/%r@%h\nIdentityFile %d/.ssh/%n-%p\n"
        "IdentityFile /keys/${WHERE}/100%%\nCertificateFile ~/.ssh/%r-cert.pub\nRevokedHostKeys ~/.ssh/revoked\n"
        'UserKnownHostsFile "~/.ssh/my hosts/known" ~/.ssh/other\nGlobalKnownHostsFile none\n',
    )
    assert route.keys == (home / "nv@10.0.0.5", home / "orin-22", Path("/keys/there/100%"))
    assert route.certificates == (home / "nv-cert.pub",)
    assert route.revoked == (home / "revoked",)
    assert route.known_hosts == (home / "my hosts/known", home / "other")


def test_a_proxy_command_gets_what_ssh_would_give_it(home: Path) -> None:
    route = route_to("odd")
    assert route.proxy == f'nc -X 5 odd 2022 {ME} 100% "${{HOME}}"', "variables are its shell's"
    assert route.proxy_passes


def test_match_sees_the_address(home: Path) -> None:
    with (home / "config").open("r+") as file:
        file.write("Host nine\n    HostName 10.0.0.9\n" + CONFIG.format(user="keeper"))
    assert route_to("nine").user == "matched"


def test_hosts_that_lead_in_a_circle(home: Path) -> None:
    with pytest.raises(TargetError, match="leads in a circle"):
        route_to("round")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Port many\n", r"~/\.ssh/config line 1: Bad port 'many'"),
        ("\nNoSuchOption yes\n", r"~/\.ssh/config: line 2: Bad configuration option: nosuchoption"),
        ("LogLevel DEBUG3\nPort many\n", r"~/\.ssh/config line 2: Bad port 'many'"),
        ("Include broken\n", r"~/\.ssh/broken: line 1: Bad configuration option: what"),
        ("Match\n", r"~/\.ssh/config line 1"),
    ],
)
def test_files_that_ssh_does_not_take(home: Path, text: str, words: str) -> None:
    (home / "broken").write_text("What is this\n")
    with pytest.raises(TargetError, match=rf"^orin: ssh .*{words}") as failure:
        configured(home, text)
    assert str(home.parent) not in failure.value.one_line, "who the user is stays out of records"


def test_a_configuration_that_never_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_ASK_S", 0.5)
    with pytest.raises(TargetError, match=r"ssh does not say within 0\.5 s"):
        configured(home, 'Match exec "exec sleep 7"\nUser x\n')


def test_without_ssh_its_files_are_not_guessed_at(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    monkeypatch.setattr(config, "_COMMON", home / "none")
    with pytest.raises(TargetError, match=r"stands in ~/\.ssh/config, which only ssh itself can read") as failure:
        route_to("orin")
    assert "openssh-client" in (failure.value.hint or "")
    (home / "config").unlink()
    route = route_to("someone@10.0.0.5:2222")
    assert (route.name, route.address, route.port, route.user) == ("10.0.0.5", "10.0.0.5", 2222, "someone")
    assert home / "id_ed25519" in route.keys
    assert route.known_hosts[0] == home / "known_hosts"


def test_a_program_that_is_no_ssh(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = home / "ssh"
    program.write_text("#!/bin/sh\necho 'unknown option -- G' >&2; exit 255\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{home}:{os.environ['PATH']}")
    with pytest.raises(TargetError, match="unknown option -- G"):
        route_to("orin")


def test_no_file_at_all(home: Path) -> None:
    (home / "config").unlink()
    assert route_to("board").address == "board"


AS_RHEL_SHIPS_IT = {
    "ssh_config": "Include /etc/ssh/ssh_config.d/*.conf\n",
    "ssh_config.d/50-redhat.conf": "Match final all\n\tGSSAPIAuthentication yes\n\tForwardX11Trusted no\n",
}


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a folder of its own at /etc/ssh")
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (AS_RHEL_SHIPS_IT, "10.0.0.5 nv 22"),
        ({"ssh_config": "Host *\n  Port 2200\n  User common\n"}, "10.0.0.5 nv 2200"),
        ({"ssh_config": "Host *\n  NoSuchOption yes\n"}, "orin: ssh .*/etc/ssh/ssh_config: line 2: Bad configuration"),
        ({}, "10.0.0.5 nv 22"),
    ],
)
def test_what_the_machine_says_for_all(home: Path, tmp_path: Path, files: dict[str, str], expected: str) -> None:
    (home / "config").write_text("Host orin\n  HostName 10.0.0.5\n  User nv\n")
    common = tmp_path / "etc-ssh"
    (common / "ssh_config.d").mkdir(parents=True)
    for name, text in files.items():
        (common / name).write_text(text)
    program = (
        "from meltrepro.errors import TargetError\nfrom meltrepro.targets.ssh.config import route_to\n"
        "try: route = route_to('orin'); print(route.address, route.user, route.port)\n"
        "except TargetError as error: print(error.message)\n"
    )
    own = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    command = [*own, "sh", "-c", 'mount --bind "$0" /etc/ssh && exec "$@"', str(common), sys.executable, "-c", program]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.search(expected, said)
