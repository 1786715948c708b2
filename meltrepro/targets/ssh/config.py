"""How a host is reached by SSH, as the user's own `~/.ssh/config` says it.

paramiko reads that file but for `Include`, and leaves `ProxyJump` and the known hosts to its user; both are here.
"""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meltrepro.errors import TargetError

_MOST_JUMPS = 8
_MOST_INCLUDES = 16
_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
"""What is tried where no key is named; the order is OpenSSH's."""
_PLACE = re.compile(r"(?:(?P<user>[^@]+)@)?(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d+))?")


@dataclass(frozen=True)
class Route:
    """How one host is reached."""

    name: str
    """What the user calls it."""
    address: str
    port: int
    user: str
    keys: tuple[Path, ...]
    """Files of private keys, those that are there."""
    known_hosts: tuple[Path, ...]
    """Files with the keys of hosts; new ones belong into the first."""
    keys_alone: bool = False
    """Whether only these keys are offered, and of an agent's no others."""
    agent: bool = True
    key_alias: str | None = None
    """By which name its key is known, where that is not its address."""
    jump: Route | None = None
    """The host through which it is reached."""

    @property
    def known_as(self) -> str:
        """Its name in files of known hosts."""
        if self.key_alias:
            return self.key_alias
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"


def route_to(name: str, config: Path | None = None) -> Route:
    """The way to a host by its alias, or by `user@host:port`; `config` is `~/.ssh/config` where absent.

    Raises `TargetError` where the configuration cannot be read, or asks for what is not offered here.
    """
    from paramiko import SSHConfig
    from paramiko.ssh_exception import ConfigParseError, CouldNotCanonicalize

    home = Path.home() / ".ssh"
    user_file, common = config or home / "config", Path("/etc/ssh/ssh_config")
    text = _text(user_file, home) + "\nHost *\n" + _text(common, common.parent)
    try:
        return _Resolver(SSHConfig.from_text(text), user_file).route(name)
    except (ConfigParseError, CouldNotCanonicalize, ValueError, KeyError) as error:
        raise TargetError(f"{user_file} cannot be used for {name}: {error}") from error


class _Resolver:
    def __init__(self, config: Any, file: Path) -> None:
        self._config = config
        self._file = file

    def route(self, name: str, depth: int = 0, jumps: str | None = None) -> Route:
        """`jumps` takes the place of what the configuration says, as within a chain."""
        if depth > _MOST_JUMPS:
            raise TargetError(
                f"{name} is more than {_MOST_JUMPS} hosts away; ProxyJump leads in a circle", hint=str(self._file)
            )
        place = _PLACE.fullmatch(name)
        if place is None:
            raise TargetError(f"{name!r} is no host", hint="write an alias of ~/.ssh/config, or user@host:port")
        alias = place["v6"] or place["host"]
        known: Mapping[str, Any] = self._config.lookup(alias)
        command = known.get("proxycommand")
        if command and not known.get("proxyjump"):
            raise TargetError(f"{alias} is reached by a ProxyCommand, which is not offered", hint="use ProxyJump")
        *before, last = [hop.strip() for hop in (jumps or known.get("proxyjump") or "none").split(",")]
        return Route(
            name=alias,
            address=known["hostname"],
            port=int(place["port"] or known.get("port", 22)),
            user=place["user"] or known.get("user") or getpass.getuser(),
            keys=_keys(known),
            known_hosts=_known_hosts(known),
            keys_alone=known.get("identitiesonly", "no").lower() == "yes",
            agent=known.get("identityagent", "").lower() != "none",
            key_alias=known.get("hostkeyalias"),
            jump=None if last.lower() == "none" else self.route(last, depth + 1, ",".join(before) or None),
        )


def _keys(known: Mapping[str, Any]) -> tuple[Path, ...]:
    named = [Path(path).expanduser() for path in known.get("identityfile", ()) if path.lower() != "none"]
    usual = [Path.home() / ".ssh" / name for name in _KEYS]
    return tuple(path for path in named or usual if path.is_file())


def _known_hosts(known: Mapping[str, Any]) -> tuple[Path, ...]:
    own = known.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2").split()
    common = known.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2").split()
    return tuple(Path(name.strip('"')).expanduser() for name in (*own, *common) if name.lower() != "none")


def _text(file: Path, base: Path, depth: int = 0) -> str:
    """A configuration with its `Include`s in place; each leaves the block that it stands in as it was."""
    if depth > _MOST_INCLUDES:
        raise TargetError(f"{file}: Include leads in a circle")
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise TargetError(f"cannot read {file}: {error.strerror}") from error
    block, out = "Host *", []
    for line in lines:
        word, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if word.lower() in ("host", "match"):
            block = line
        if word.lower() != "include":
            out.append(line)
            continue
        for pattern in rest.split():
            path = Path(pattern.strip('"')).expanduser()
            folder, name = (path.parent, path.name) if path.is_absolute() else (base / path.parent, path.name)
            out += [_text(each, base, depth + 1) for each in sorted(folder.glob(name)) if each.is_file()]
        out.append(block)
    return "\n".join(out)
