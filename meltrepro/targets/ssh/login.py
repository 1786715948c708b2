"""Logging in by public keys alone: those of the agent, and those of files. No password is ever asked for or sent."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.ssh.config import Way
from meltrepro.words import counted

if TYPE_CHECKING:
    from paramiko import PKey, Transport

_MOST_TRIES = 5
"""Servers hang up after six keys that they do not take."""


def login(transport: Transport, way: Way) -> None:
    """Log in with the first key that is taken; raises `TargetError` where none is, `TargetLost` where the link breaks."""
    from paramiko import AuthenticationException, BadAuthenticationType, SSHException

    tried: list[str] = []
    problems: list[str] = []
    with contextlib.closing(_candidates(way, problems)) as candidates:
        for label, key in candidates:
            tried.append(label)
            try:
                wanted = transport.auth_publickey(way.user, key)
            except BadAuthenticationType as error:
                raise TargetError(
                    f"{way.name}: does not let {way.user} in by keys, only by {', '.join(error.allowed_types)}",
                    hint=f"allow public keys in its sshd_config, and bring yours there: ssh-copy-id {way.name}",
                ) from error
            except (AuthenticationException, SSHException, EOFError, OSError) as error:
                if not transport.is_active():
                    raise _hung_up(way, tried) from error
                continue
            if wanted:
                raise TargetError(f"{way.name}: wants more than a key: {', '.join(wanted)}", hint="see its sshd_config")
            return
    said = f"; {'; '.join(problems)}" if problems else ""
    raise TargetError(
        f"{way.name}: lets {way.user} in by none of: {', '.join(tried) or 'no key was found'}{said}",
        hint=f"see whether `ssh -o BatchMode=yes {way.name} true` works; bring your key there with: ssh-copy-id {way.name}"
        + ("; encrypted keys need an agent: ssh-add" if problems else ""),
    )


def _hung_up(way: Way, tried: list[str]) -> TargetError:
    if len(tried) >= _MOST_TRIES:
        return TargetError(
            f"{way.name}: hung up after {counted(len(tried), 'key')}, none of which it takes",
            hint="name the right one in ~/.ssh/config: IdentityFile, with IdentitiesOnly yes",
        )
    return TargetLost(f"{way.name}: the link broke while logging in")


def _candidates(way: Way, problems: list[str]) -> Generator[tuple[str, PKey], None, None]:
    """Keys in OpenSSH's order: of the agent those that are named, then its others; then files."""
    from paramiko import Agent, SSHException

    named = {blob: path for path in way.keys if (blob := _public(path)) is not None}
    offered: set[bytes] = set()
    agent = None
    if way.agent:
        with contextlib.suppress(SSHException, OSError):
            agent = Agent()
    try:
        held = list(agent.get_keys()) if agent else []
        for key in sorted(held, key=lambda each: each.asbytes() not in named):
            if way.keys_alone and key.asbytes() not in named:
                continue
            offered.add(key.asbytes())
            yield f"{named.get(key.asbytes(), key.comment or key.get_name())} (agent)", key
    finally:
        if agent:
            agent.close()
    for path in way.keys:
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
