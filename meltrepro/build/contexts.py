"""The engine that `docker ps` talks to: what DOCKER_HOST, DOCKER_CONTEXT and Docker's own configuration name.

Docker's files are read here and not by docker-py, which takes a broken one for none and looks for contexts beside the
working folder where there is no configuration. An engine on another machine is refused: trials belong to this one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from meltrepro import untrusted
from meltrepro.errors import EngineError
from meltrepro.store.names import redact

_MOST = 1 << 20
"""Bytes of a file of Docker's; the largest ones hold logins for many registries."""
SYSTEM = Path("/var/run/docker.sock")
PODMAN = Path("/run/podman/podman.sock")
_WITHOUT = "or work without: --engine process"

Shape = TypeVar("Shape", bound=BaseModel)


@dataclass(frozen=True)
class Address:
    """Where an engine listens, and how it was found."""

    host: str
    """`unix://PATH` or `tcp://NAME:PORT`."""
    way: str
    """What names it, for people."""
    remedy: str = f"start one with: meltrepro doctor --fix; {_WITHOUT}"
    """What to do where it does not answer."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of its client: encryption, where it has any."""

    def __str__(self) -> str:
        host = redact(self.host)
        return f"{host if host.isprintable() else ascii(host)} of {self.way}"


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Configuration(_Lenient):
    """Of Docker's `config.json` what is used here, and what docker-py takes for granted."""

    current: str | None = Field(default=None, alias="currentContext")
    auths: dict[str, dict[str, Any]] | None = None
    helpers: dict[str, str] | None = Field(default=None, alias="credHelpers")
    proxies: dict[str, dict[str, str | None]] = {}


class _Endpoint(_Lenient):
    host: str = Field(alias="Host", min_length=1)
    unverified: bool = Field(default=False, alias="SkipTLSVerify")


class _Endpoints(_Lenient):
    docker: _Endpoint


class _Context(_Lenient):
    endpoints: _Endpoints = Field(alias="Endpoints")


def named(environ: Mapping[str, str]) -> Address | None:
    """The engine that the user names; `None` where nothing but the default is named.

    Raises `EngineError` for a context that is not there, for files that are not Docker's, and for another machine's engine.
    """
    folder = Path(environ.get("DOCKER_CONFIG") or _home(environ) / ".docker")
    configuration = _read(folder / "config.json", _Configuration) or _Configuration()
    if host := environ.get("DOCKER_HOST"):
        remedy = f"DOCKER_HOST names this engine: start it, or unset the variable; {_WITHOUT}"
        return _here(Address(host, "DOCKER_HOST", remedy, _encryption_of(environ)))
    for name, source, remedy in (
        (environ.get("DOCKER_CONTEXT"), "DOCKER_CONTEXT", "unset DOCKER_CONTEXT"),
        (configuration.current, str(folder / "config.json"), "leave it: docker context use default"),
    ):
        if name == "default":
            return None
        if name:
            return _of_context(name, source, remedy, folder / "contexts")
    return None


def sockets(environ: Mapping[str, str]) -> Iterator[Address]:
    """Where engines listen that nobody has to name, and that are this user's or the system's."""
    home, own = _home(environ), Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    for path, way in (
        (SYSTEM, "the system"),
        (own / "docker.sock", "Docker without root"),
        (PODMAN, "the system's podman"),
        (own / "podman" / "podman.sock", "podman without root"),
        (home / ".docker" / "desktop" / "docker.sock", "Docker Desktop"),
        (home / ".docker" / "run" / "docker.sock", "Docker Desktop"),
        (home / ".colima" / "default" / "docker.sock", "colima"),
        (home / ".rd" / "docker.sock", "Rancher Desktop"),
    ):
        try:
            owner = path.stat().st_uid
        except OSError:
            continue
        if owner in (0, os.getuid()):
            yield Address(f"unix://{path}", way)


def _of_context(name: str, source: str, remedy: str, contexts: Path) -> Address:
    """A context of Docker's, whose folder is named by the digest of its name."""
    shown, digest = ascii(name)[1:-1][:80], hashlib.sha256(os.fsencode(name)).hexdigest()
    file, keys = contexts / "meta" / digest / "meta.json", contexts / "tls" / digest / "docker"
    remedy = f"{remedy}; or name the engine with DOCKER_HOST; {_WITHOUT}"
    context = _read(file, _Context)
    if context is None:
        raise EngineError(
            f"{source} names the context {shown}, which Docker does not have here: {file} is missing or not readable",
            hint=f"docker context ls shows those that are there; {remedy}",
        )
    endpoint = context.endpoints.docker
    options = _encryption(keys, verify=not endpoint.unverified) if endpoint.unverified or keys.is_dir() else {}
    return _here(Address(endpoint.host, f"the context {shown}, named by {source}", f"start it, or {remedy}", options))


def _here(address: Address) -> Address:
    if address.host.partition("://")[0] in ("ssh", "npipe"):
        raise EngineError(
            f"{address} is on another machine: builds and trials need an engine on this one",
            hint=f"name one that is here, as in DOCKER_HOST=unix://{SYSTEM}; {_WITHOUT}",
        )
    return address


def _encryption(folder: Path, *, verify: bool) -> Mapping[str, Any]:
    from docker.errors import TLSParameterError
    from docker.tls import TLSConfig

    ca, certificate, key = (folder / f"{name}.pem" for name in ("ca", "cert", "key"))
    own = (str(certificate), str(key)) if certificate.exists() or key.exists() else None
    try:
        return {"tls": TLSConfig(own, str(ca) if ca.exists() else None, verify=verify)}
    except TLSParameterError as error:
        raise EngineError(f"{folder}: expected cert.pem and key.pem: {error}", hint="copy both there") from error


def _encryption_of(environ: Mapping[str, str]) -> Mapping[str, Any]:
    from docker.errors import TLSParameterError
    from docker.utils import kwargs_from_env

    try:
        return {name: value for name, value in kwargs_from_env(dict(environ)).items() if name == "tls"}
    except TLSParameterError as error:
        hint = "DOCKER_CERT_PATH names their folder; without encryption unset it and DOCKER_TLS_VERIFY"
        raise EngineError(f"no Docker engine answers; its keys are not there: {error}", hint=hint) from error


def _read(path: Path, shape: type[Shape]) -> Shape | None:
    """A file of Docker's; `None` where there is none that this user may read, as for Docker itself."""
    try:
        content = untrusted.read_regular(path, _MOST)
        return untrusted.as_model(shape, untrusted.load_json(content, repeated=True))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} is no file of Docker's: {error}", hint=f"mend or remove it; {_WITHOUT}") from error


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME") or "/")
