"""What head, nodes and clients of a lab say to each other, and how they know that they are of one lab.

dask carries it, by TLS. Whoever has the lab's token has its one key, and nobody else gets a connection. What is carried are
values of this module, pickled: they can be read where versions are the same, which is asked first.
"""

from __future__ import annotations

import datetime
import hashlib
import pickle
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import meltrepro
from meltrepro.atomic import reason_of, write_bytes
from meltrepro.campaign.trial import CellRun
from meltrepro.errors import DriverMissing, LabError, UsageError
from meltrepro.record.layout import Trial
from meltrepro.settings import Settings
from meltrepro.targets.base import DeviceFacts, Source

if TYPE_CHECKING:
    from distributed.security import Security

PORT = 8786
CHUNK = 4 << 20
"""Bytes of a file that travel together."""
CLOCKS_APART_S = 60.0
"""Records of a lab are put in order by their times."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{40,100}")
_QUIET = {
    # What dask does all the time by itself takes CPU time that trials are measured with.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "30s",
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # Devices are what work waits for, and no other worker has them.
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.allowed-failures": 1000,
    "distributed.scheduler.worker-ttl": None,
    "distributed.comm.timeouts.connect": "10s",
    "distributed.comm.timeouts.tcp": "20s",
    "distributed.comm.retry.count": 0,
    "distributed.logging.distributed": "critical",
}


@dataclass(frozen=True)
class Offer:
    """A device that a node has."""

    node: str
    entry: Mapping[str, Any]
    """How the node reaches it, as a target of a manifest."""
    facts: DeviceFacts
    lane: str
    """What its trials share with no other: devices that would take each other's CPUs have one lane."""
    sources: Sequence[Source] = ()
    """What can be read on it while trials run."""
    reports: Mapping[str, str] = field(default_factory=dict)
    """What the node knows of it by probing and calibrating, by the folder that it is kept in."""

    @property
    def id(self) -> str:
        return self.facts.id


@dataclass(frozen=True)
class TrialOrder:
    """See to it that this trial has a record."""

    campaign: str
    name: str
    """Of the campaign, for people."""
    trial: Trial
    attempt: int
    run: CellRun
    """With the paths of whoever orders it; files are known by their digests."""
    entry: Mapping[str, Any]
    """The target, as the manifest wants it and the node reaches it."""
    device: str


@dataclass(frozen=True)
class TrialAnswer:
    """The record of a trial, or why there is none."""

    node: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    """For those who watch."""
    error: str | None = None
    busy: bool = False
    """Whether somebody else measures on the device, who is waited for."""


def packed(value: object) -> bytes:
    return pickle.dumps(value)


def unpacked(content: bytes) -> Any:
    """A value that somebody with the lab's token packed."""
    return pickle.loads(content)


def versions() -> dict[str, str]:
    """What must be the same in all of a lab."""
    return {"meltrepro": meltrepro.__version__, "dask.distributed": metadata.version("distributed")}


def refusal(who: str, theirs: Mapping[str, str], wall_ns: int) -> str | None:
    """Why somebody cannot be of this lab, on one line; `None` where nothing is in the way."""
    for name, own in versions().items():
        if theirs.get(name) != own:
            return f"{who} has {name} {theirs.get(name)}, the head has {own}: install the same version"
    apart_s = wall_ns / 1e9 - time.time()
    if abs(apart_s) > CLOCKS_APART_S:
        return (
            f"the clock of {who} is {abs(apart_s):.0f} s {'ahead of' if apart_s > 0 else 'behind'} the head's: set it"
        )
    return None


def configured() -> None:
    """Have dask leave the CPUs of its processes alone; raises `DriverMissing` where it is not installed."""
    try:
        import dask
        import distributed  # noqa: F401
    except ImportError as error:
        raise DriverMissing(
            "a lab of many hosts needs dask.distributed, which is not installed",
            hint="pip install 'meltrepro[lab]'",
        ) from error
    dask.config.set(_QUIET)
    import logging

    logging.getLogger("distributed").setLevel(logging.CRITICAL)


def token_path(settings: Settings) -> Path:
    """Where a lab's token is kept on the machine of its head."""
    return settings.home / "lab" / "token"


def token(settings: Settings, given: str | None, *, make: bool = False) -> str:
    """The lab's token: from a file that is `given`, or the one of this machine, which the head can `make`.

    Raises `UsageError` where there is none, or it is no token.
    """
    path = Path(given).expanduser() if given else token_path(settings)
    if make and not path.exists():
        write_bytes(path, (secrets.token_urlsafe(48) + "\n").encode())
        path.chmod(0o600)
    try:
        found = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = reason_of(error) if isinstance(error, OSError) else "it is no text"
        raise UsageError(
            f"the lab's token {path} cannot be read: {why}",
            hint="copy the file that `meltrepro lab head` names from its machine, and name it with --token",
        ) from error
    if not _TOKEN.fullmatch(found):
        raise UsageError(f"{path} holds no token of a lab", hint="`meltrepro lab head` makes one, and says where it is")
    return found


def security(secret: str) -> Security:
    """TLS for both sides by one key and certificate, both made of the token alone."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from distributed.security import Security

    # A token is 384 bits of chance, so that a plain digest is as good as any derivation.
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"meltrepro lab {secret}".encode()).digest())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "meltrepro lab")])
    begin, end = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2020, 2100))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, None)
    )
    plain = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    certified = certificate.public_bytes(serialization.Encoding.PEM).decode()
    private = key.private_bytes(*plain).decode()
    sides = {
        f"tls_{side}_{part}": text
        for side in ("scheduler", "worker", "client")
        for part, text in (("cert", certified), ("key", private))
    }
    return Security(require_encryption=True, tls_ca_file=certified, **sides)


def address(written: str) -> str:
    """The address of a head as dask has it: `tls://HOST:PORT`; raises `UsageError`."""
    found = re.fullmatch(r"(?:tls://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?/?", written)
    if found is None or int(found[2] or PORT) > 65535:
        raise UsageError(
            f"{written!r} is no address of a lab's head", hint=f"it is written tls://HOST or tls://HOST:{PORT}"
        )
    return f"tls://{found[1]}:{found[2] or PORT}"


def denied(error: BaseException) -> bool:
    """Whether a head let nobody in, which is all that TLS tells whoever has the wrong token."""
    said, each = "", error
    while each is not None:
        said += f" {type(each).__name__} {each}"
        each = each.__cause__ or each.__context__  # type: ignore[assignment]
    return re.search(r"(?i)\bssl|certificate|handshake|decrypt", said) is not None


def unreachable(where: str, error: BaseException) -> LabError:
    """What is to be said of a head that cannot be asked."""
    if denied(error):
        return LabError(
            f"the head {where} does not take this token",
            hint="copy the token's file anew from the head's machine, and name it with --token",
        )
    return LabError(
        f"no head of a lab answers at {where}",
        hint="start it there: meltrepro lab head; is its port open to this machine?",
    )


@dataclass(frozen=True)
class Reservation:
    """A device that one user alone may use until a time."""

    who: str
    until_wall_s: float


@dataclass(frozen=True)
class OfferedDevice:
    """A device of a lab as its head knows it."""

    offer: Offer
    there: bool
    """Whether its node is there now."""
    since_wall_s: float
    """Since when it is there, or away."""
    unplugged: bool = False
    """Whether its node has told that it is away."""
    running: str | None = None
    """The trial that runs on it, as its campaign calls it."""
    queue: int = 0
    """How many campaigns have a trial waiting for it."""
    quarantined: str | None = None
    """Why nothing is run on it until somebody has looked at it."""
    reserved: Reservation | None = None


@dataclass(frozen=True)
class LabCampaign:
    """A campaign that somebody runs on a lab."""

    id: str
    who: str
    priority: int
    done: int
    total: int
    begun_wall_s: float
    seen_wall_s: float
    at_first: int = 0
    """How many trials were done when it was heard of."""

    @property
    def eta_s(self) -> float | None:
        """How long it will still take at the pace that it has had; `None` where that is not known yet."""
        new = self.done - self.at_first
        return (self.total - self.done) * (self.seen_wall_s - self.begun_wall_s) / new if new > 0 else None


@dataclass(frozen=True)
class LabState:
    """A lab at one moment."""

    devices: Sequence[OfferedDevice]
    campaigns: Sequence[LabCampaign]
