"""How a host is reached by SSH: what `ssh -G` says of it, so that it is what ssh itself would do.

OpenSSH reads its own files, whatever stands in them; nothing here parses them.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import re
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from meltrepro.errors import TargetError

_MOST_JUMPS = 8
_ASK_S = 30.0
"""How long ssh may think: it may run commands of its configuration, and ask name servers."""
_COMMON = Path("/etc/ssh/ssh_config")
_PLACE = re.compile(
    r"(?P<uri>ssh://)?(?:(?P<user>.+)@)?"
    r"(?:\[(?P<inside>[^][]+)\]|(?P<v6>(?=.*::|(?:[^:]*:){7})[0-9A-Fa-f:.]+(?:%[\w.-]+)?)|(?P<host>[^][:@]+?))"
    r"(?::(?P<port>\d+))?/?"
)
_HOST = re.compile(r"[^\s\x00-\x1f'`\"$\\;&<>|(){}!,-][^\s\x00-\x1f'`\"$\\;&<>|(){}!,]*")
_USER = re.compile(r"[^\s\x00-\x1f'`\"$;&<>|(){}-][^\x00-\x1f'`\"$;&<>|(){}]*")
"""Names without what means something to a shell: commands of a configuration may hold them (`Match exec`, `ProxyCommand`)."""
_TOKEN = re.compile(r"%(?P<token>.)|\$\{(?P<variable>\w+)\}")
_WITHOUT_FILES = {
    "identityfile": [f"~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk")],
    "userknownhostsfile": ["~/.ssh/known_hosts ~/.ssh/known_hosts2"],
    "globalknownhostsfile": ["/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"],
}
"""What ssh does where it has no configuration at all."""


@dataclass(frozen=True)
class Route:
    """How one host is reached."""

    name: str
    """What the user calls it."""
    address: str
    port: int
    user: str
    keys: tuple[Path, ...]
    """Files of keys, private or public, whether or not they are there."""
    known_hosts: tuple[Path, ...]
    """Files with the keys of hosts; new ones belong into the first."""
    keys_alone: bool = False
    """Whether only these keys are offered, and of an agent's no others."""
    agent: str | None = None
    """The agent's socket."""
    certificates: tuple[Path, ...] = ()
    key_alias: str | None = None
    """By which name its key is known, where that is not its address."""
    known_hosts_command: tuple[str, ...] = ()
    """A program that prints further lines of known hosts; `%H` is this one's name there."""
    revoked: tuple[Path, ...] = ()
    """Files of host keys that are not to be believed."""
    jump: Route | None = None
    """The host through which it is reached."""
    proxy: str | None = None
    """The shell's command line that connects to it, on its input and output."""
    proxy_passes: bool = False
    """Whether that command hands over a connection in place of carrying it."""
    said: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Everything that ssh says of it; options in small letters."""

    @property
    def known_as(self) -> str:
        """Its name in files of known hosts."""
        if self.key_alias:
            return self.key_alias
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    def option(self, name: str) -> str | None:
        """What is said of one option; `None` where that is nothing, or `none`."""
        value = self.said.get(name, ("none",))[0]
        return None if value.lower() == "none" else value


def route_to(name: str, jumps: str | None = None, depth: int = 0) -> Route:
    """The way to a host by its alias, by `user@host:port`, or `ssh://user@host:port`.

    `jumps` are hosts on the way there, in place of what the configuration says. Raises `TargetError` where ssh does not
    take its configuration, or the name is none.
    """
    host, user, port = _place(name)
    if depth > _MOST_JUMPS:
        raise TargetError(f"{host} is more than {_MOST_JUMPS} hosts away; its ProxyJump leads in a circle")
    given = [("-l", user), ("-p", port), ("-J", jumps)]
    said = _ask(host, [part for option, value in given if value is not None for part in (option, value)])
    try:
        return _route(host, user, port, said, depth)
    except (
        ValueError,
        OSError,
        RuntimeError,
    ) as error:  # quotes without an end, names that no disk takes, nobody's home
        raise TargetError(
            f"{host}: what ssh says of it cannot be followed: {shown(error)[:200]}",
            hint=f"see what this says: ssh -G {shlex.quote(host)}",
        ) from error


def _route(host: str, user: str | None, port: str | None, said: dict[str, list[str]], depth: int) -> Route:
    """The way that ssh's answer describes."""

    def one(option: str, otherwise: str) -> str:
        return said.get(option, [otherwise])[0]

    address = one("hostname", host)
    login = one("user", user or getpass.getuser())
    number = int(one("port", port or "22"))
    alias = one("hostkeyalias", "")
    here = socket.gethostname()
    values = ("%", str(Path.home()), address, str(os.getuid()), alias or host, here, here.partition(".")[0], host)
    tokens = dict(zip("%dhiklLnpru", (*values, str(number), login, getpass.getuser()), strict=True))

    def every(option: str) -> list[str]:
        return [value for value in said.get(option, ()) if value.lower() != "none"]

    def files(option: str) -> tuple[Path, ...]:
        return tuple(_own(_expanded(value, tokens)) for value in every(option))

    def listed(option: str) -> tuple[Path, ...]:
        return tuple(path for value in every(option) for path in _several(_expanded(value, tokens)))

    before, _, last = one("proxyjump", "none").rpartition(",")
    proxy = one("proxycommand", "none")
    asked = one("knownhostscommand", "none")
    return Route(
        name=host,
        address=address,
        port=number,
        user=login,
        keys=files("identityfile"),
        known_hosts=listed("userknownhostsfile") + listed("globalknownhostsfile"),
        keys_alone=one("identitiesonly", "no") in ("yes", "true"),
        agent=_agent(one("identityagent", "SSH_AUTH_SOCK"), tokens),
        certificates=files("certificatefile"),
        key_alias=alias or None,
        known_hosts_command=() if asked == "none" else tuple(_expanded(part, tokens) for part in shlex.split(asked)),
        revoked=files("revokedhostkeys"),
        jump=None if last == "none" else route_to(last, before or None, depth + 1),
        proxy=None if proxy == "none" else _expanded(proxy, tokens, variables=False),
        proxy_passes=one("proxyusefdpass", "no") == "yes",
        said=said,
    )


def shown(text: object) -> str:
    """A path, or a text with paths, without the name of the user's own folder."""
    return re.sub(rf"{re.escape(str(Path.home()))}(?=/)", "~", str(text))


def _place(name: str) -> tuple[str, str | None, str | None]:
    """Host, user and port of a name."""
    found = _PLACE.fullmatch(name)
    host = (found["inside"] or found["v6"] or found["host"]) if found else ""
    user = found["user"] if found else None
    user = unquote(user) if user and found and found["uri"] else user
    if not found or not _HOST.fullmatch(host) or (user is not None and not _USER.fullmatch(user)):
        raise TargetError(f"{name!r} is no host", hint="write an alias of ~/.ssh/config, or user@host:port")
    return host, user, found["port"]


def _ask(host: str, options: Sequence[str]) -> dict[str, list[str]]:
    """What `ssh -G` says of a host."""
    # Into files, not pipes: what a configuration starts (Match exec) may live on, and hold them.
    with _files() as files, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = ["ssh", "-G", "-T", *files, *options, "--", host]
        try:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=_ASK_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            raise TargetError(
                f"{host}: ssh does not say within {_ASK_S:g} s how it is reached",
                hint="see Match exec and CanonicalizeHostname in the configuration of ssh",
            ) from None
        except OSError:
            return _without_openssh(host)
        text, complaints = (os.fsdecode(file.read()) for file in (out, err) if not file.seek(0))
    if status:
        lines = [line for line in complaints.splitlines() if line.strip() and not line.startswith("debug")]
        what = shown(lines[0].strip()) if lines else f"it ended with {status}"
        raise TargetError(
            f"{host}: ssh itself cannot use its configuration: {what}",
            hint=f"see what this says: ssh -G {shlex.quote(host)}",
        )
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        option, _, value = line.partition(" ")
        said.setdefault(option.lower(), []).append(value)
    return said


def _without_openssh(host: str) -> dict[str, list[str]]:
    for file in (Path.home() / ".ssh/config", _COMMON):
        if file.exists():
            raise TargetError(
                f"{host}: how it is reached stands in {shown(file)}, which only ssh itself can read, and there is no ssh",
                hint="install OpenSSH's client: apt-get install openssh-client",
            )
    return dict(_WITHOUT_FILES)


@contextlib.contextmanager
def _files() -> Iterator[Sequence[str]]:
    """Options by which ssh reads the configuration in `$HOME`, where its own idea of the user's home is another."""
    if Path.home() == _home_of_ssh():
        yield ()
        return
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(f'Include "{Path.home()}/.ssh/config"\nInclude {_COMMON}\n')
        file.flush()
        yield ("-F", file.name)


def _home_of_ssh() -> Path | None:
    with contextlib.suppress(KeyError):
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    return None  # and ssh will say so


def _own(path: str) -> Path:
    """A path of the user's: some are given with `~`, others with the home that ssh has put in its place."""
    theirs = _home_of_ssh()
    if theirs and theirs != Path("/") and Path(path).is_relative_to(theirs):
        return Path.home() / Path(path).relative_to(theirs)
    with contextlib.suppress(RuntimeError):  # a user whom nobody knows
        return Path(path).expanduser()
    return Path(path)


def _several(text: str) -> Iterator[Path]:
    """Files of one line. ssh does not say where a name with a space ends, so that the longest which is there is meant."""
    words = text.split(" ")
    while words:
        whole = (n for n in range(len(words), 1, -1) if _own(" ".join(words[:n])).exists())
        size = next(whole, 1)
        if words[0].lower() != "none":
            yield _own(" ".join(words[:size]))
        words = words[size:]


def _agent(text: str, tokens: Mapping[str, str]) -> str | None:
    """The socket that `IdentityAgent` names, or the variable that it names."""
    if text.lower() == "none":
        return None
    if text == "SSH_AUTH_SOCK":
        return os.environ.get(text)
    if text.startswith("$") and not text.startswith("${"):
        return os.environ.get(text[1:])
    return str(_own(_expanded(text, tokens)))


def _expanded(text: str, tokens: Mapping[str, str], *, variables: bool = True) -> str:
    """A text with its tokens, and variables of the environment, in place; those that are not known stay as they are."""

    def value(found: re.Match[str]) -> str:
        if found["token"]:
            return tokens.get(found["token"], found[0])
        return os.environ.get(found["variable"], found[0]) if variables else found[0]

    return _TOKEN.sub(value, text)
