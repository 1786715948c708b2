"""Who a host is: its key must be in a file of known hosts, and never gets there by us."""

from __future__ import annotations

import contextlib
import fnmatch
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from meltrepro.errors import TargetError
from meltrepro.targets.ssh.config import Route, shown

if TYPE_CHECKING:
    from paramiko import PKey

_REVOKED, _AUTHORITY = "@revoked", "@cert-authority"
_COMMAND_S = 30.0
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
"""By which names a key of the type ssh-rsa is asked for."""


def prefer(offered: Sequence[str], route: Route) -> tuple[str, ...]:
    """Types of host keys in the order to ask for them: first those that are known of this host."""
    kinds = [key.get_name() for key in _keys(route) or ()]
    first = [name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,)) if name in offered]
    return tuple(dict.fromkeys([*first, *offered]))


def verify(route: Route, key: PKey) -> None:
    """Raise `TargetError` unless this is a key by which the host is known."""
    known = _keys(route)
    if any(key == each for each in _keys(route, _REVOKED)) or any(_revokes(file, key, route) for file in route.revoked):
        raise TargetError(f"{route.name}: its host key {_shown(key)} is marked as revoked", hint=_look(route))
    if any(key == each for each in known):
        return
    if known:
        raise TargetError(
            f"{route.name}: its host key has changed: known is {', '.join(map(_shown, known))}, it shows {_shown(key)}",
            hint="another machine may answer in its place. If the board was set up anew: "
            f"ssh-keygen -R {shlex.quote(route.known_as)} -f {_file(route)}, and then as for a host that is not known",
        )
    by = "; an authority vouches for it, which is not asked here" if _keys(route, _AUTHORITY) else ""
    raise TargetError(
        f"{route.name}: its host key is not known: {_shown(key)}{by}",
        hint=f"compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_{_short(key)}_key.pub` says on the board itself; "
        f"then {_accept(route)}",
    )


def _accept(route: Route) -> str:
    if route.known_hosts and route.known_hosts[0] == Path("/dev/null"):
        return "let ssh's configuration keep it in a file (UserKnownHostsFile), and connect once by hand"
    if route.key_alias or route.jump or route.proxy:
        return f"connect once with `ssh {shlex.quote(route.name)}`, which asks whether to keep it"
    port = "" if route.port == 22 else f"-p {route.port} "
    return f"accept it with: ssh-keyscan {port}{shlex.quote(route.address)} >> {_file(route)}"


def _file(route: Route) -> str:
    return shlex.quote(str(route.known_hosts[0])) if route.known_hosts else "~/.ssh/known_hosts"


def _look(route: Route) -> str:
    files = ", ".join(shown(file) for file in (*route.known_hosts, *route.revoked))
    return f"see the lines with @revoked, or RevokedHostKeys, in {files}"


def _shown(key: PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _short(key: PKey) -> str:
    """As the files of a host's keys are named."""
    name = key.get_name().removeprefix("ssh-")
    return "ecdsa" if name.startswith("ecdsa") else name


def _keys(route: Route, marker: str = "") -> list[PKey]:
    """The keys of lines that are for a host, and are marked so."""
    texts = [*(_text(file) for file in route.known_hosts), *([_said(route)] if route.known_hosts_command else ())]
    lines = (each for text in texts for each in _lines(text))
    return [key for mark, names, key in lines if mark == marker and _means(names, route.known_as)]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise TargetError(f"cannot read {shown(file)}: {error.strerror}") from error


def _said(route: Route) -> str:
    """What the KnownHostsCommand prints."""
    command = [part.replace("%H", route.known_as) for part in route.known_hosts_command]
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=_COMMAND_S, errors="replace"
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise TargetError(
            f"{route.name}: its KnownHostsCommand fails: {shown(error)}", hint="see the configuration of ssh"
        ) from error


def _revokes(file: Path, key: PKey, route: Route) -> bool:
    """Whether a file of RevokedHostKeys holds a key: lines with public keys, or a list of ssh-keygen's own format."""
    try:
        data = file.read_bytes()
        if not data.startswith(b"SSHKRL\n"):
            return any(key.get_base64() in line.split() for line in data.decode(errors="replace").splitlines())
        with tempfile.NamedTemporaryFile("w", suffix=".pub") as public:
            public.write(f"{key.get_name()} {key.get_base64()}\n")
            public.flush()
            asked = ["ssh-keygen", "-Q", "-f", str(file), public.name]
            return subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode != 0
    except OSError as error:
        raise TargetError(
            f"{route.name}: no host is believed while RevokedHostKeys cannot be read: {error.strerror}",
            hint=f"see {shown(file)}",
        ) from error


def _lines(text: str) -> Iterator[tuple[str, list[str], PKey]]:
    """Mark, names and key of each line that can be read."""
    from paramiko import SSHException
    from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

    for line in map(str.strip, text.splitlines()):
        marker = line.split(maxsplit=1)[0] if line.startswith("@") else ""
        if not line or line.startswith("#"):
            continue
        with contextlib.suppress(SSHException, InvalidHostKey, ValueError):
            entry = HostKeyEntry.from_line(" ".join(line.removeprefix(marker).split()))
            if entry is not None and entry.key is not None:
                yield marker, list(entry.hostnames), entry.key


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
