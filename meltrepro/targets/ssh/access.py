"""Who a host is, and logging in there.

Its key must be in a file of known hosts, and never gets there by us. Only public keys are offered, those of the agent and
those of files; no password is ever asked for or sent.
"""

from __future__ import annotations

import contextlib
import fnmatch
import shlex
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.ssh.config import Route
from meltrepro.words import counted

if TYPE_CHECKING:
    from paramiko import PKey, Transport

_MOST_TRIES = 5
"""Servers hang up after six keys that they do not take."""
_REVOKED = "@revoked"
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
"""By which names a key of the type ssh-rsa is asked for."""


def login(transport: Transport, route: Route) -> None:
    """Log in with the first key that is taken; raises `TargetError` where none is, `TargetLost` where the link breaks."""
    from paramiko import AuthenticationException, BadAuthenticationType, SSHException

    tried: list[str] = []
    problems: list[str] = []
    with contextlib.closing(_candidates(route, problems)) as candidates:
        for label, key in candidates:
            tried.append(label)
            try:
                wanted = transport.auth_publickey(route.user, key)
            except BadAuthenticationType as error:
                raise TargetError(
                    f"{route.name}: does not let {route.user} in by keys, only by {', '.join(error.allowed_types)}",
                    hint=f"allow public keys in its sshd_config, and bring yours there: ssh-copy-id {route.name}",
                ) from error
            except (AuthenticationException, SSHException, EOFError, OSError) as error:
                if not transport.is_active():
                    raise _hung_up(route, tried) from error
                continue
            if wanted:
                raise TargetError(
                    f"{route.name}: wants more than a key: {', '.join(wanted)}", hint="see its sshd_config"
                )
            return
    said = f"; {'; '.join(problems)}" if problems else ""
    raise TargetError(
        f"{route.name}: lets {route.user} in by none of: {', '.join(tried) or 'no key was found'}{said}",
        hint=f"see whether `ssh -o BatchMode=yes {route.name} true` works; bring your key there with: ssh-copy-id {route.name}"
        + ("; encrypted keys need an agent: ssh-add" if problems else ""),
    )


def _hung_up(route: Route, tried: list[str]) -> TargetError:
    if len(tried) >= _MOST_TRIES:
        return TargetError(
            f"{route.name}: hung up after {counted(len(tried), 'key')}, none of which it takes",
            hint="name the right one in ~/.ssh/config: IdentityFile, with IdentitiesOnly yes",
        )
    return TargetLost(f"{route.name}: the link broke while logging in")


def _candidates(route: Route, problems: list[str]) -> Generator[tuple[str, PKey], None, None]:
    """Keys in OpenSSH's order: of the agent those that are named, then its others; then files."""
    from paramiko import Agent, SSHException

    named = {blob: path for path in route.keys if (blob := _public(path)) is not None}
    offered: set[bytes] = set()
    agent = None
    if route.agent:
        with contextlib.suppress(SSHException, OSError):
            agent = Agent()
    try:
        held = list(agent.get_keys()) if agent else []
        for key in sorted(held, key=lambda each: each.asbytes() not in named):
            if route.keys_alone and key.asbytes() not in named:
                continue
            offered.add(key.asbytes())
            yield f"{named.get(key.asbytes(), key.comment or key.get_name())} (agent)", key
    finally:
        if agent:
            agent.close()
    for path in route.keys:
        loaded = _load(path, problems) if _public(path) not in offered else None
        if loaded is not None:
            yield str(path), loaded


def _public(path: Path) -> bytes | None:
    """What the file beside a private key says of it; `None` where there is none."""
    from paramiko.pkey import PublicBlob

    with contextlib.suppress(OSError, ValueError, IndexError):
        return bytes(PublicBlob.from_file(f"{path}.pub").key_blob)
    return None


def _load(path: Path, problems: list[str]) -> PKey | None:
    from paramiko import PKey, SSHException

    try:
        key: Any = PKey.from_path(path)
    except TypeError:
        problems.append(f"{path} is encrypted")
    except (OSError, ValueError, SSHException) as error:
        problems.append(f"{path} cannot be read: {error}")
    else:
        return key  # type: ignore[no-any-return]
    return None


def prefer(offered: Sequence[str], route: Route) -> tuple[str, ...]:
    """Types of host keys in the order to ask for them: first those that are known of this host."""
    kinds = [key.get_name() for key in _keys(route) or ()]
    first = [name for kind in kinds for name in (_RSA if kind == "ssh-rsa" else (kind,)) if name in offered]
    return tuple(dict.fromkeys([*first, *offered]))


def verify(route: Route, key: PKey) -> None:
    """Raise `TargetError` unless this is a key by which the host is known."""
    known = _keys(route)
    if any(key == each for each in _keys(route, revoked=True)):
        raise TargetError(f"{route.name}: its host key {_shown(key)} is marked as revoked", hint=_look(route))
    if any(key == each for each in known):
        return
    if known:
        raise TargetError(
            f"{route.name}: its host key has changed: known is {', '.join(map(_shown, known))}, it shows {_shown(key)}",
            hint="another machine may answer in its place. If the board was set up anew: "
            f"ssh-keygen -R {shlex.quote(route.known_as)} -f {_file(route)}, and then as for a host that is not known",
        )
    raise TargetError(
        f"{route.name}: its host key is not known: {_shown(key)}",
        hint=f"compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_{_short(key)}_key.pub` says on the board itself; "
        f"then {_accept(route)}",
    )


def _accept(route: Route) -> str:
    if route.key_alias or route.jump:
        return f"connect once with `ssh {shlex.quote(route.name)}`, which asks whether to keep it"
    port = "" if route.port == 22 else f"-p {route.port} "
    return f"accept it with: ssh-keyscan {port}{shlex.quote(route.address)} >> {_file(route)}"


def _file(route: Route) -> str:
    return shlex.quote(str(route.known_hosts[0])) if route.known_hosts else "~/.ssh/known_hosts"


def _look(route: Route) -> str:
    return "see the lines with @revoked in " + ", ".join(map(str, route.known_hosts))


def _shown(key: PKey) -> str:
    return f"{key.get_name()} {key.fingerprint}"


def _short(key: PKey) -> str:
    """As the files of a host's keys are named."""
    name = key.get_name().removeprefix("ssh-")
    return "ecdsa" if name.startswith("ecdsa") else name


def _keys(route: Route, *, revoked: bool = False) -> list[PKey]:
    return [
        key
        for file in route.known_hosts
        for names, key, bad in _lines(file)
        if bad == revoked and _means(names, route.known_as)
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
