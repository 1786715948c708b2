"""Logging in by keys: which ones are offered, in the order in which ssh offers them.

Only public keys are offered, those of the agent and those of files; no password is ever asked for or sent.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import stat
from base64 import b64decode
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from paramiko import (
    AuthenticationException,
    BadAuthenticationType,
    ECDSAKey,
    Ed25519Key,
    Message,
    PKey,
    RSAKey,
    SSHException,
    Transport,
)
from paramiko.agent import AgentKey, AgentSSH
from paramiko.pkey import PublicBlob

from meltrepro.errors import TargetError, TargetLost
from meltrepro.targets.ssh.config import Route, shown
from meltrepro.words import counted

_MOST_TRIES = 5
"""Servers hang up after six keys that they do not take."""
_AGENT_S = 120.0
"""How long an agent may take: it may ask its user."""
_OPENSSH = "OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"


def login(transport: Transport, route: Route) -> None:
    """Log in with the first key that is taken; raises `TargetError` where none is, `TargetLost` where the link breaks."""
    tried: list[str] = []
    problems: list[str] = []
    with contextlib.ExitStack() as stack:
        try:
            if transport.auth_none(route.user) == []:
                return
        except BadAuthenticationType as error:
            _require_keys(route, error.allowed_types)
        except (AuthenticationException, SSHException, EOFError, OSError) as error:
            if not transport.is_active():
                raise _hung_up(route, tried) from error
        for label, key in _candidates(route, problems, stack):
            tried.append(label)
            try:
                wanted = transport.auth_publickey(route.user, key)
            except (AuthenticationException, SSHException, EOFError, OSError) as error:
                if not transport.is_active():
                    raise _hung_up(route, tried) from error
                continue
            if wanted:
                raise TargetError(
                    f"{route.name}: wants more than a key: {', '.join(wanted)}", hint="see its sshd_config"
                )
            return
    if module := route.option("pkcs11provider"):
        problems.append(f"keys of PKCS11Provider are offered from an agent alone: ssh-add -s {module}")
    said = "; ".join(dict.fromkeys(problems))
    raise TargetError(
        f"{route.name}: lets {route.user} in by none of: {', '.join(tried) or 'no key was found'}{said and f'; {said}'}",
        hint=f"see whether `ssh -o BatchMode=yes {route.name} true` works; bring your key there with: ssh-copy-id {route.name}"
        + ("; encrypted keys need an agent: ssh-add" if problems else ""),
    )


def _require_keys(route: Route, allowed: list[str]) -> None:
    if "publickey" not in allowed:
        raise TargetError(
            f"{route.name}: does not let {route.user} in by keys, only by {', '.join(allowed)}",
            hint=f"allow public keys in its sshd_config, and bring yours there: ssh-copy-id {route.name}",
        )
    if route.option("pubkeyauthentication") in ("no", "false"):
        raise TargetError(
            f"{route.name}: the configuration of ssh says PubkeyAuthentication no, and nothing else is offered here",
            hint=f"allow it for this host: Host {route.name}, PubkeyAuthentication yes",
        )


def _hung_up(route: Route, tried: list[str]) -> TargetError:
    if len(tried) >= _MOST_TRIES:
        return TargetError(
            f"{route.name}: hung up after {counted(len(tried), 'key')}, none of which it takes",
            hint="name the right one in ~/.ssh/config: IdentityFile, with IdentitiesOnly yes",
        )
    return TargetLost(f"{route.name}: the link broke while logging in")


class _Key(NamedTuple):
    label: str
    public: bytes | None
    load: Callable[[], PKey | None]


class _Held(AgentKey):
    """A key of an agent. That its user does not let it be used must not end the connection."""

    def __init__(self, agent: AgentSSH, blob: bytes, comment: str, problems: list[str]) -> None:
        super().__init__(agent, blob, comment)
        self.label = shown(comment) or self.name
        self._problems = problems

    def sign_ssh_data(self, data: Any, algorithm: str | None = None) -> Any:
        try:
            return super().sign_ssh_data(data, algorithm)
        except (SSHException, OSError) as error:
            self._problems.append(f"the agent does not sign with {self.label}: {error}")
            return b""  # which no server takes


def _candidates(route: Route, problems: list[str], stack: contextlib.ExitStack) -> Iterator[tuple[str, PKey]]:
    """Keys in OpenSSH's order: certificates; of the agent the keys that are named, then its others; then files."""
    files = {path: _public(path) for path in route.keys}
    certificates = route.certificates or tuple(Path(f"{path}-cert.pub") for path in route.keys)
    vouched = [(path, blob) for path in certificates if (blob := _blob(path)) is not None]
    named = {blob.key_blob: path for path, blob in vouched} | {blob: path for path, blob in files.items() if blob}
    held = [key for key in _agent(route, problems, stack) if key.blob in named or not route.keys_alone]
    held.sort(key=lambda key: key.blob not in named)
    keys = [_Key(f"{shown(named.get(key.blob, key.label))} (agent)", key.blob, partial(_itself, key)) for key in held]
    offered = {key.public for key in keys}
    keys += [
        _Key(shown(path), public, partial(_load, path, public, problems))
        for path, public in files.items()
        if public is None or public not in offered
    ]
    for path, blob in vouched:
        for key in keys:
            if key.public and _vouches(blob.key_blob, key.public) and (loaded := key.load()) is not None:
                own, loaded.public_blob = loaded.public_blob, blob
                yield f"{shown(path)} with {key.label}", loaded
                loaded.public_blob = own
                break
    for key in keys:
        if (loaded := key.load()) is not None:
            yield key.label, loaded


def _itself(key: PKey) -> PKey:
    return key


def _agent(route: Route, problems: list[str], stack: contextlib.ExitStack) -> list[_Held]:
    """The keys of the agent; the connection to it lasts as long as the stack."""
    if not route.agent:
        return []
    agent: Any = AgentSSH()
    try:
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(_AGENT_S)
        connection.connect(route.agent)
        agent._connect(connection)  # paramiko's own way takes the agent of SSH_AUTH_SOCK, and no other
        held = [_Held(agent, key.blob, key.comment, problems) for key in agent.get_keys()]
    except (OSError, SSHException, ValueError) as error:
        problems.append(f"the agent at {shown(route.agent)} cannot be asked: {error}")
        return []
    for key in held:
        if "-cert-" in key.name:
            vars(key)["public_blob"] = PublicBlob(key.name, key.blob)
    return held


def _public(path: Path) -> bytes | None:
    """The public key that a file is, that stands beside it, or that is in it (an encrypted one shows it too)."""
    for file in (path, Path(f"{path}.pub")):
        if (blob := _blob(file)) is not None:
            return blob.key_blob
    with contextlib.suppress(OSError, ValueError, SSHException):
        if path.is_file():
            _, found, rest = path.read_text(encoding="ascii").partition(f"-----BEGIN {_OPENSSH}")
            data = b64decode(rest.partition("-----")[0])
            if found and data.startswith(_MAGIC):
                return _skipped(data.removeprefix(_MAGIC), texts=3, numbers=1).get_binary()
    return None


def _blob(path: Path) -> PublicBlob | None:
    """What a file with a public key or a certificate holds; `None` for any other."""
    with contextlib.suppress(OSError, ValueError):
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return next((PublicBlob.from_string(line) for line in lines if line.strip() and line[0] != "#"), None)
    return None


def _vouches(certificate: bytes, public: bytes) -> bool:
    """Whether a certificate is of this key: it says the same after its type and its nonce."""
    said = _skipped(certificate, texts=2).get_remainder()
    return said.startswith(_skipped(public, texts=1).get_remainder())


def _skipped(data: bytes, *, texts: int, numbers: int = 0) -> Message:
    message = Message(data)
    for _ in range(texts):
        message.get_binary()
    for _ in range(numbers):
        message.get_int()
    return message


def _load(path: Path, public: bytes | None, problems: list[str]) -> PKey | None:
    """A private key; what is in the way of one that ssh would miss too is added to the problems."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            problems.append(f"{shown(path)} is no file")
        elif _blob(path):
            problems.append(f"the private key of {shown(path)} is not in the agent")
        elif found.st_uid == os.getuid() and found.st_mode & 0o077:
            problems.append(f"{shown(path)} can be read by others: chmod 600")
        else:
            return _parsed(path.read_bytes())
    except FileNotFoundError:
        if public or path.parent != Path.home() / ".ssh" or not path.name.startswith("id_"):
            problems.append(f"{shown(path)} is not there" + (", nor in the agent" if public else ""))
    except OSError as error:
        problems.append(f"{shown(path)} cannot be read: {error.strerror}")
    except TypeError:
        problems.append(f"{shown(path)} is encrypted")
    except UnsupportedAlgorithm:
        problems.append(f"{shown(path)} is of a kind that is only offered from an agent: ssh-add")
    except (ValueError, SSHException):
        problems.append(f"{shown(path)} holds no private key")
    return None


def _parsed(data: bytes) -> PKey | None:
    """A key in any of the formats that ssh reads."""
    try:
        loaded = load_ssh_private_key(data, None)
    except ValueError:
        loaded = load_pem_private_key(data, None)  # type: ignore[assignment]
    text = loaded.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    for kind, made in ((RSAPrivateKey, RSAKey), (EllipticCurvePrivateKey, ECDSAKey), (Ed25519PrivateKey, Ed25519Key)):
        if isinstance(loaded, kind):
            return made.from_private_key(io.StringIO(text))
    raise UnsupportedAlgorithm(type(loaded).__name__)
