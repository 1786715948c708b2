"""Signatures of entries: as OpenSSH makes and checks them, whatever the kind of key."""

from __future__ import annotations

import base64
import hashlib
import struct
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meltrepro.errors import EntryError, WrongSignature
from meltrepro.publish.signature import NAMESPACE, check, principal, sign
from tests.support.entries import allow, make_key

CONTENT = b"the content of an entry\n"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_key(tmp_path_factory.mktemp("keys"))


def accepted(content: bytes, signature: bytes, folder: Path) -> bool:
    """What OpenSSH says of it."""
    path = folder / "it.sig"
    path.write_bytes(signature)
    command = ["ssh-keygen", "-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(path)]
    return subprocess.run(command, input=content, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("kind", "bits"), [("ed25519", None), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("rsa", 2048)]
)
def test_every_kind_of_key(tmp_path: Path, kind: str, bits: int | None) -> None:
    key = make_key(tmp_path, kind=kind, bits=bits)
    signature = sign(CONTENT, key)
    listed = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    assert check(CONTENT, signature).fingerprint == listed.split()[1]
    assert accepted(CONTENT, signature, tmp_path)
    with pytest.raises(WrongSignature, match="another content"):
        check(CONTENT + b" ", signature)


def test_a_token_signs_with_its_counter(tmp_path: Path) -> None:
    """No token is here, so that its part is played; OpenSSH is asked whether it would take the same."""
    private = ed25519.Ed25519PrivateKey.generate()
    kind, application = b"sk-ssh-ed25519@openssh.com", b"ssh:"

    def packed(*texts: bytes) -> bytes:
        return b"".join(struct.pack(">I", len(text)) + text for text in texts)

    blob = packed(kind, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), application)
    signed = b"SSHSIG" + packed(NAMESPACE.encode(), b"", b"sha512", hashlib.sha512(CONTENT).digest())
    counter = b"\x01" + struct.pack(">I", 7)
    made = private.sign(hashlib.sha256(application).digest() + counter + hashlib.sha256(signed).digest())
    raw = (
        b"SSHSIG"
        + struct.pack(">I", 1)
        + packed(blob, NAMESPACE.encode(), b"", b"sha512", packed(kind, made) + counter)
    )
    signature = b"-----BEGIN SSH SIGNATURE-----\n%s\n-----END SSH SIGNATURE-----\n" % base64.b64encode(raw)
    assert accepted(CONTENT, signature, tmp_path)
    assert check(CONTENT, signature).kind == kind.decode()
    with pytest.raises(WrongSignature):
        check(b"other", signature)


def test_no_changed_byte_is_taken(key: Path) -> None:
    lines = sign(CONTENT, key).decode().splitlines()
    raw = base64.b64decode("".join(lines[1:-1]))
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        armored = "\n".join([lines[0], base64.b64encode(bytes(changed)).decode(), lines[-1]]).encode()
        with pytest.raises(WrongSignature):
            check(CONTENT, armored)


def test_nothing_may_follow_a_signature(key: Path) -> None:
    """Else one signature would have many forms."""
    lines = sign(CONTENT, key).decode().splitlines()
    raw = base64.b64decode("".join(lines[1:-1]))
    size = struct.unpack(">I", raw[-87:-83])[0]
    assert size == 83, "of an Ed25519 signature with its name"
    inside = raw[:-87] + struct.pack(">I", size + 1) + raw[-83:] + b"x"
    for longer in (raw + b"x", inside):
        armored = "\n".join([lines[0], base64.b64encode(longer).decode(), lines[-1]]).encode()
        with pytest.raises(WrongSignature, match="something follows it"):
            check(CONTENT, armored)


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\xff",
        b"-----BEGIN SSH SIGNATURE-----\n!\n-----END SSH SIGNATURE-----",
        b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----",
    ],
)
def test_what_is_no_signature(signature: bytes) -> None:
    with pytest.raises(WrongSignature, match="no signature of an entry"):
        check(CONTENT, signature)


def test_one_for_something_else_is_none(key: Path) -> None:
    command = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(key)]
    other = subprocess.run(command, input=CONTENT, capture_output=True, check=True).stdout
    with pytest.raises(WrongSignature, match="it is for 'git'"):
        check(CONTENT, other)


def test_a_short_rsa_key_counts_for_nothing(tmp_path: Path) -> None:
    signature = sign_with_any(make_key(tmp_path, kind="rsa", bits=1024))
    with pytest.raises(WrongSignature, match="1024 bits"):
        check(CONTENT, signature)


def sign_with_any(key: Path) -> bytes:
    command = ["ssh-keygen", "-Y", "sign", "-n", NAMESPACE, "-f", str(key)]
    return subprocess.run(command, input=CONTENT, capture_output=True, check=True).stdout


def test_who_a_key_belongs_to_is_what_the_file_of_signers_says(tmp_path: Path, key: Path) -> None:
    other = make_key(tmp_path, "other")
    signature = sign(CONTENT, key)
    assert principal(allow(tmp_path / "both", ann=key, bob=other), CONTENT, signature) == "ann@example.org"
    assert principal(allow(tmp_path / "one", bob=other), CONTENT, signature) is None
    public = key.with_name("key.pub").read_text()
    for rule, name in (
        ('namespaces="git"', None),
        (f'namespaces="{NAMESPACE}"', "ann"),
        ('valid-before="20200101"', None),
    ):
        (tmp_path / "rule").write_text(f"ann {rule} {public}")
        assert principal(tmp_path / "rule", CONTENT, signature) == name, rule
    assert principal(tmp_path / "missing", CONTENT, signature) is None


def test_a_key_that_cannot_sign_is_told(tmp_path: Path) -> None:
    with pytest.raises(EntryError, match="not signed with") as caught:
        sign(CONTENT, tmp_path / "missing")
    assert "--sign" in str(caught.value.hint)


def test_without_openssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: Path) -> None:
    signature = sign(CONTENT, key)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EntryError, match="ssh-keygen cannot be started"):
        sign(CONTENT, key)
    with pytest.raises(EntryError, match="ssh-keygen cannot be started"):
        principal(tmp_path / "signers", CONTENT, signature)
    check(CONTENT, signature)
