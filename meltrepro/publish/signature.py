"""Signatures of entries: OpenSSH's, in a file beside the entry, so that `ssh-keygen -Y verify` alone can check one.

`ssh-keygen` signs, with keys that users have already and that code hosts publish, be they in a file, in an agent or on a token,
and it decides who a key belongs to. Whether a signature fits its bytes is computed here, with `cryptography`: a process for
each of a thousand entries takes longer than all the rest of a gallery (PROTOCOL.sshsig of OpenSSH describes the format).
"""

from __future__ import annotations

import base64
import hashlib
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from meltrepro.errors import EntryError, WrongSignature

NAMESPACE = "meltrepro-entry"
"""What a signature is good for: one that the same key made of something else is none of an entry."""
SUFFIX = ".sig"
"""Of a signature's file, after the name of the entry's."""
MOST_BYTES = 20_000
"""Of a signature's file."""
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_MAGIC = b"SSHSIG"
_DIGESTS = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
_RSA = {"rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}
_CURVES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
_TOKEN = "sk-"
_LEAST_RSA = 2048
_INSTALL = "install OpenSSH's client: apt-get install openssh-client"


@dataclass(frozen=True)
class SignerKey:
    """The public key that a signature fits."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")


def sign(content: bytes, key: Path) -> bytes:
    """The signature of an entry's content by a key, or by what the agent has for a public one; raises `EntryError`."""
    try:
        done = subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", str(key)],
            input=content,
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise EntryError(f"ssh-keygen cannot be started: {error.strerror}", hint=_INSTALL) from error
    if done.returncode:
        raise EntryError(
            f"not signed with {key}: {_last(done.stderr)}",
            hint="name a private key, or a public one whose private part the agent has: --sign ~/.ssh/id_ed25519",
        )
    check(content, done.stdout)
    return done.stdout


def check(content: bytes, signature: bytes) -> SignerKey:
    """The key that made the signature of this content; raises `WrongSignature` where none did."""
    try:
        blob, signed, made = _unpacked(content, signature)
        kind = _string(blob, 0)[0].decode()
        _verify(kind, blob, signed, made)
    except InvalidSignature as error:
        raise WrongSignature("the signature is of another content") from error
    except (ValueError, struct.error, UnsupportedAlgorithm, KeyError, IndexError) as error:
        raise WrongSignature(f"no signature of an entry: {error}") from error
    return SignerKey(kind, blob)


def principal(allowed: Path, content: bytes, signature: bytes) -> str | None:
    """Whose key made a signature by an `allowed_signers` file of OpenSSH, as that file calls them; `None` for nobody's there.

    Raises `EntryError` where `ssh-keygen` cannot be started.
    """
    with tempfile.NamedTemporaryFile(suffix=SUFFIX) as file:
        file.write(signature)
        file.flush()
        found = _ask(["find-principals", "-s", file.name, "-f", str(allowed)], content)
        names = [name for line in (found or "").splitlines() for name in line.split(",")]
        for name in names:
            if _ask(["verify", "-f", str(allowed), "-I", name, "-n", NAMESPACE, "-s", file.name], content) is not None:
                return name
    return None


def _ask(arguments: Sequence[str], content: bytes) -> str | None:
    """What ssh-keygen says; `None` where it refuses."""
    try:
        done = subprocess.run(["ssh-keygen", "-Y", *arguments], input=content, capture_output=True, check=False)
    except OSError as error:
        raise EntryError(f"ssh-keygen cannot be started: {error.strerror}", hint=_INSTALL) from error
    return None if done.returncode else done.stdout.decode("utf-8", "replace").strip()


def _last(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else "ssh-keygen does not say why"


def _unpacked(content: bytes, signature: bytes) -> tuple[bytes, bytes, bytes]:
    """The public key, what was signed, and the signature itself; raises `ValueError` and its kin."""
    lines = signature.decode("ascii").strip().splitlines()
    if len(lines) < 3 or (lines[0], lines[-1]) != (_BEGIN, _END):
        raise ValueError(f"expected a file that begins with {_BEGIN}")
    raw = base64.b64decode("".join(lines[1:-1]), validate=True)
    if raw[:6] != _MAGIC or struct.unpack_from(">I", raw, 6) != (1,):
        raise ValueError("expected an SSH signature of version 1")
    blob, at = _string(raw, 10)
    namespace, at = _string(raw, at)
    reserved, at = _string(raw, at)
    algorithm, at = _string(raw, at)
    made, at = _string(raw, at)
    if at != len(raw):
        raise ValueError("something follows it")
    if namespace != NAMESPACE.encode():
        raise ValueError(f"it is for {namespace.decode('ascii', 'replace')[:80]!r}, not for {NAMESPACE!r}")
    digest = _DIGESTS[algorithm.decode()](content).digest()
    return blob, _MAGIC + b"".join(map(_packed, (namespace, reserved, algorithm, digest))), made


def _verify(kind: str, blob: bytes, signed: bytes, made: bytes) -> None:
    """Raise `InvalidSignature` where a key did not sign these bytes, and `ValueError` for a kind that is not known."""
    if "-cert-" in kind:
        raise ValueError("it was made by a certificate: sign with the key itself")
    encoding, at = _string(made, 0)
    value, at = _string(made, at)
    if kind.startswith(_TOKEN):  # a token signs what it was asked with its own counter
        signed = hashlib.sha256(_last_string(blob)).digest() + made[at : at + 5] + hashlib.sha256(signed).digest()
        at += 5
    if at != len(made):
        raise ValueError("something follows it")
    key = load_ssh_public_key(kind.encode() + b" " + base64.b64encode(blob))
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _LEAST_RSA:
            raise ValueError(f"an RSA key of {key.key_size} bits is too short")
        key.verify(value, signed, padding.PKCS1v15(), _RSA[encoding.decode()])
        return
    if encoding.decode() != kind:
        raise ValueError("key and signature are of different kinds")
    if isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(value, signed)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        r, at = _string(value, 0)
        s, at = _string(value, at)
        numbers = (int.from_bytes(each, "big", signed=True) for each in (r, s))
        key.verify(encode_dss_signature(*numbers), signed, ec.ECDSA(_CURVES[key.key_size]))
    else:
        raise ValueError(f"a key of kind {kind} is not known")


def _string(raw: bytes, at: int) -> tuple[bytes, int]:
    """A string of SSH's at a place, and where it ends."""
    (size,) = struct.unpack_from(">I", raw, at)
    end = at + 4 + size
    if end > len(raw):
        raise ValueError("it ends too soon")
    return raw[at + 4 : end], end


def _last_string(raw: bytes) -> bytes:
    """Of a token's key: whose it says that it is."""
    found, at = b"", 0
    while at < len(raw):
        found, at = _string(raw, at)
    return found


def _packed(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text
