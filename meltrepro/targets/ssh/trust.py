"""Whether a host is the one that the user knows: its key must be in a file of known hosts, and never gets there by us."""

from __future__ import annotations

import contextlib
import fnmatch
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from meltrepro.errors import TargetError
from meltrepro.targets.ssh.config import Way

if TYPE_CHECKING:
    from paramiko import PKey

_REVOKED = "@revoked"
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
"""By which names a key of the type ssh-rsa is asked for."""


def prefer(offered: Sequence[str], way: Way) -> tuple[str, ...]:
    """Types of host keys in the order to ask for them: first those that are known of this host."""
    kinds = [key.get_name() for key in _keys(way) or ()]
    first = [name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,)) if name in offered]
    return tuple(dict.fromkeys([*first, *offered]))


def verify(way: Way, key: PKey) -> None:
    """Raise `TargetError` unless this is a key by which the host is known."""
    known = _keys(way)
    if any(key == each for each in _keys(way, revoked=True)):
        raise TargetError(f"{way.name}: its host key {_shown(key)} is marked as revoked", hint=_look(way))
    if any(key == each for each in known):
        return
    if known:
        raise TargetError(
            f"{way.name}: its host key has changed: known is {', '.join(map(_shown, known))}, it shows {_shown(key)}",
            hint="another machine may answer in its place. If the board was set up anew: "
            f"ssh-keygen -R {shlex.quote(way.known_as)} -f {_file(way)}, and then as for a host that is not known",
        )
    raise TargetError(
        f"{way.name}: its host key is not known: {_shown(key)}",
        hint=f"compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_{_short(key)}_key.pub` says on the board itself; "
        f"then {_accept(way)}",
    )


def _accept(way: Way) -> str:
    if way.key_alias or way.jump:
        return f"connect once with `ssh {shlex.quote(way.name)}`, which asks whether to keep it"
    port = "" if way.port == 22 else f"-p {way.port} "
    return f"accept it with: ssh-keyscan {port}{shlex.quote(way.address)} >> {_file(way)}"


def _file(way: Way) -> str:
    return shlex.quote(str(way.known_hosts[0])) if way.known_hosts else "~/.ssh/known_hosts"


def _look(way: Way) -> str:
    return "see the lines with @revoked in " + ", ".join(map(str, way.known_hosts))


def _shown(key: PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _short(key: PKey) -> str:
    """As the files of a host's keys are named."""
    name = key.get_name().removeprefix("ssh-")
    return "ecdsa" if name.startswith("ecdsa") else name


def _keys(way: Way, *, revoked: bool = False) -> list[PKey]:
    return [
        key
        for file in way.known_hosts
        for names, key, bad in _lines(file)
        if bad == revoked and _means(names, way.known_as)
    ]


def _lines(file: Path) -> Iterator[tuple[list[str], PKey, bool]]:
    """Names, key and whether it is revoked; lines of other kinds (certificate authorities) are left out."""
    from paramiko import SSHException
    from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise TargetError(f"cannot read {file}: {error.strerror}") from error
    for line in map(str.strip, text.splitlines()):
        marker = line.split(maxsplit=1)[0] if line.startswith("@") else ""
        if not line or line.startswith("#") or marker not in ("", _REVOKED):
            continue
        with contextlib.suppress(SSHException, InvalidHostKey, ValueError):
            entry = HostKeyEntry.from_line(" ".join(line.removeprefix(marker).split()))
            if entry is not None and entry.key is not None:
                yield list(entry.hostnames), entry.key, bool(marker)


def _means(names: Sequence[str], host: str) -> bool:
    """Whether a line is for a host: by name, by pattern, or by its hash; one `!pattern` that fits excludes it."""
    from paramiko import HostKeys

    found = False
    for name in names:
        if name.startswith("|1|"):
            found |= HostKeys.hash_host(host, name) == name
        elif name.startswith("!") and _fits(host, name[1:]):
            return False
        else:
            found |= _fits(host, name)
    return found


def _fits(host: str, pattern: str) -> bool:
    """`*` and `?` alone have a meaning there; brackets are part of a name."""
    return fnmatch.fnmatchcase(host.lower(), pattern.lower().replace("[", "[[]"))
