"""Who a virtual iPhone is: its key, the values that it tells, and the TLS of a session with one host."""

from __future__ import annotations

import hashlib
import platform
import ssl
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from meltrepro.lab.iphone.frames import Malformed

PRODUCT = "Virtual iPhone"
VERSION = "16.7"
BUILD = "20H19"
STORAGE_BYTES = 128 * 10**9
OPEN_VALUES = frozenset(
    {
        *("BuildVersion", "CPUArchitecture", "DeviceClass", "DeviceName", "DevicePublicKey", "HardwareModel"),
        *("MeltreproVirtual", "ProductName", "ProductType", "ProductVersion", "ProtocolVersion", "UniqueChipID"),
        *("UniqueDeviceID", "WiFiAddress"),
    }
)
"""Values that a host gets to know before it is trusted."""


@dataclass(frozen=True)
class Identity:
    name: str
    key_pem: bytes
    programs: Mapping[str, Any] | None = None
    """Which programs of Linux run on it, where it says so: `machine` and `features`, as the kernel spells them."""

    @property
    def chip(self) -> int:
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:6], "big")

    @property
    def udid(self) -> str:
        return f"0000FFFF-{self.chip:016X}"

    @cached_property
    def public_pem(self) -> bytes:
        """Its public key, for which a host makes the certificate that the device shows later."""
        from cryptography.hazmat.primitives import serialization

        key = serialization.load_pem_private_key(self.key_pem, None)
        return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)

    def values(self) -> dict[str, Any]:
        """What lockdownd tells in no domain."""
        digits = f"{self.chip:012x}"
        address = ":".join(digits[place : place + 2] for place in range(0, 12, 2))
        return {
            "ActivationState": "Activated",
            "BuildVersion": BUILD,
            "CPUArchitecture": platform.machine() if self.programs is None else str(self.programs["machine"]),
            "DeviceClass": "iPhone",
            "DeviceName": f"{PRODUCT} {self.name}",
            "DevicePublicKey": self.public_pem,
            "HardwareModel": "MV1AP",
            "HostAttached": True,
            "MeltreproVirtual": True,
            "ProductName": PRODUCT,
            "ProductType": "VirtualiPhone1,1",
            "ProductVersion": VERSION,
            "ProtocolVersion": "2",
            "SerialNumber": f"MELT{self.name.upper()}",
            "TimeIntervalSince1970": time.time(),
            "TimeZone": "UTC",
            "TrustedHostAttached": True,
            "UniqueChipID": self.chip,
            "UniqueDeviceID": self.udid,
            "WiFiAddress": address,
            **({} if self.programs is None else {"MeltreproPrograms": dict(self.programs)}),
        }


def load(folder: Path, name: str, programs: Mapping[str, Any] | None = None) -> Identity:
    """The identity of the device of a folder; made where there is none yet."""
    path = folder / "device.key"
    if not path.exists():
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        path.touch(mode=0o600)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
    return Identity(name, path.read_bytes(), programs)


def check_pair_record(identity: Identity, record: dict[str, Any]) -> tuple[str, str, str]:
    """Host id, device certificate and host certificates of a record that fits this device; raises `Malformed`."""
    host = record.get("HostID")
    if not isinstance(host, str) or not host:
        raise Malformed("no HostID")
    try:
        device_pem = bytes(record["DeviceCertificate"]).decode("ascii")
        # libimobiledevice shows the root's certificate where others show the host's.
        host_pem = b"\n".join(bytes(record[f"{name}Certificate"]) for name in ("Host", "Root")).decode("ascii")
        tls(identity, device_pem, host_pem)  # which is what they are for
    except (KeyError, TypeError, ValueError, ssl.SSLError) as error:
        raise Malformed(f"certificates that are of no use: {error}") from error
    return host, device_pem, host_pem


def tls(identity: Identity, device_pem: str, host_pem: str) -> ssl.SSLContext:
    """What a session with one host is spoken in: the device shows its certificate, the host must show one of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # With 1.3 a refused host would learn of it after its first request only.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # hosts of today still sign pairings with SHA-1
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # these very certificates, whoever signed them
    context.load_verify_locations(cadata=host_pem)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "device.pem"
        place.touch(mode=0o600)
        place.write_bytes(device_pem.encode() + b"\n" + identity.key_pem)
        context.load_cert_chain(place)
    return context
