"""Bundles that were damaged on the way, and bundles made to do harm: found, named, and nothing of them is kept.

After every refusal the specs, the records and the store are compared with what they were: nothing is half-written.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meltrepro import errors
from meltrepro.cli.app import main
from meltrepro.replay import archive
from meltrepro.store.archive import EPOCH
from tests.fault.project import MODEL, RECORD, SDIST, TRIAL, Project, Refusal, Refuse, flip, runner_of, sha256

# -- bundles: damaged on the way ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Where a member lies in a bundle."""

    name: str
    header: int
    begin: int
    end: int
    padded: int


def parts_of(bundle: Path) -> list[Part]:
    """The members of a bundle in order; long names make headers of several blocks."""
    parts: list[Part] = []
    with tarfile.open(bundle) as tar:
        for entry in tar:
            header = parts[-1].padded if parts else 0
            end = entry.offset_data + entry.size
            parts.append(Part(entry.name, header, entry.offset_data, end, end + -end % 512))
    return parts


@pytest.fixture(scope="session")
def parts(made: Project) -> list[Part]:
    return parts_of(made.bundle)


def kinds_of(made: Project, parts: list[Part]) -> dict[str, Part]:
    """One member of every kind, by kind."""
    lock = made.read_lock()
    names = {
        "index": archive.INDEX,
        "seal": archive.SEAL,
        "manifest": "manifest.yaml",
        "lock": "lock.yaml",
        "source": f"objects/{lock.sources[SDIST].digest}",
        "model": f"objects/{lock.artifacts[MODEL].digest}",
        "binary": f"objects/{lock.artifacts[runner_of(lock)].digest}",
        "base": f"objects/{lock.base.layer if lock.base else ''}",
        "attestation": f"attestations/{MODEL}/sbom.json",
        "metadata": "ro-crate-metadata.json",
        "report": "report/index.html",
        **{name: f"records/{made.campaign.name}/{TRIAL}/{name}" for name in RECORD},
        "campaign": f"records/{made.campaign.name}/campaign.json",
    }
    found = {part.name: part for part in parts}
    return {kind: found[name] for kind, name in names.items()}


KINDS = (
    *("index", "seal", "manifest", "lock", "source", "model", "binary", "base", "attestation", "metadata", "report"),
    *RECORD,
    "campaign",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_is_found_and_its_member_named(
    made: Project, parts: list[Part], project: Project, refuse: Refuse, kind: str
) -> None:
    """In the header, the content and the padding of every kind of member."""
    part = kinds_of(made, parts)[kind]
    raw = made.bundle.read_bytes()
    span = max((part.end - part.begin) // 12, 1)
    contents = [*range(part.begin, part.end, span), part.end - 1]
    headers = [part.header + at for at in (0, 100, 124, 148, 156, 257, 511)]
    paddings = [part.end, part.padded - 1] if part.padded > part.end else []
    before = project.snapshot()
    for at in (*headers, *contents, *paddings):
        damaged = bytearray(raw)
        damaged[at] ^= 0x20
        project.bundle.write_bytes(damaged)
        refusal = refuse(errors.BundleError, "bundle", "verify", project.bundle)
        assert part.name in refusal.message, f"byte {at}: {refusal.message}"
        if at in contents:
            assert re.search(re.escape(part.name) + r"( \(.*\))? is damaged: ", refusal.message), refusal.message
            assert (
                len(set(re.findall(r"[0-9a-f]{64}", refusal.message.partition("is damaged")[2]))) == 2 or kind == "seal"
            )
    refuse(errors.BundleError, "bundle", "import", project.bundle)
    refuse(errors.BundleError, "replay", project.bundle, "--no-track")
    assert project.snapshot() == before


def test_objects_are_called_by_what_they_are(made: Project, project: Project, refuse: Refuse) -> None:
    lock = made.read_lock()
    for digest, label in (
        (lock.sources[SDIST].digest, f"the source {SDIST}"),
        (lock.artifacts[MODEL].digest, f"the artifact {MODEL}"),
    ):
        shutil.copy(made.bundle, project.bundle)
        part = next(part for part in parts_of(made.bundle) if part.name.endswith(digest))
        flip(project.bundle, part.begin)
        refusal = refuse(errors.BundleError, "bundle", "verify", project.bundle)
        assert f"objects/{digest} ({label}) is damaged" in refusal.message


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_flipped_byte_names_the_member_that_it_is_in(
    made: Project, parts: list[Part], tmp_path: Path, data: st.DataObject
) -> None:
    raw = bytearray(made.bundle.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "damaged.melt"
    damaged.write_bytes(raw)
    with pytest.raises(errors.BundleError) as caught:
        archive.verify(damaged)
    inside = next((part for part in parts if at < part.padded), parts[-1])
    assert inside.name in caught.value.message


def test_a_truncated_bundle(made: Project, parts: list[Part], project: Project, refuse: Refuse) -> None:
    """At the bounds of every sixth member, in its middle, and at the last bytes."""
    raw = made.bundle.read_bytes()
    bounds = {(part.header, part.begin, (part.begin + part.end) // 2, part.padded) for part in parts[::6]}
    offsets = {*(at for each in bounds for at in each), 0, 1, 511, len(raw) - 1024, len(raw) - 1}
    before = project.snapshot()
    for at in sorted(offsets):
        project.bundle.write_bytes(raw[:at])
        refusal = refuse(errors.TruncatedBundle, "bundle", "verify", project.bundle)
        cut = next((part for part in parts if at < part.padded), parts[-1])
        assert cut.name in refusal.message, at
        assert "bytes" in refusal.message
        assert "get it again" in refusal.hint
    for at in (300, len(raw) // 2, len(raw) - 600):
        project.bundle.write_bytes(raw[:at])
        refuse(errors.TruncatedBundle, "bundle", "import", project.bundle)
        refuse(errors.TruncatedBundle, "replay", project.bundle, "--no-track")
    assert project.snapshot() == before


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_truncated_anywhere(made: Project, tmp_path: Path, data: st.DataObject) -> None:
    raw = made.bundle.read_bytes()
    damaged = tmp_path / "truncated.melt"
    damaged.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(errors.TruncatedBundle):
        archive.verify(damaged)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda raw: raw[:5000], errors.TruncatedBundle),
        (lambda raw: raw[:5000] + b"#" + raw[5001:], errors.BundleError),
        (lambda raw: b"GGUF" + raw, errors.BundleError),
    ],
)
def test_as_a_process(
    made: Project, tmp_path: Path, damage: Callable[[bytes], bytes], error: type[errors.MeltreproError]
) -> None:
    damaged = tmp_path / "damaged.melt"
    damaged.write_bytes(damage(made.bundle.read_bytes()))
    command = [sys.executable, "-m", "meltrepro", "bundle", "verify", str(damaged)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == error.exit_code
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first.startswith("error: ")
    assert second.startswith("next: ")
    assert list(tmp_path.iterdir()) == [damaged]


# -- bundles: made to do harm -------------------------------------------------------------------------------------


def forge(
    path: Path, files: Mapping[str, bytes], entries: Mapping[str, tarfile.TarInfo] | None = None, **index: Any
) -> None:
    """A bundle by somebody who knows the format: index, digests and seal are right, whatever the names are.

    `entries` replace the tar headers of members; `index` replaces keys of the index.
    """
    document = {
        "format": 1,
        "about": {"name": "forged"},
        "members": {name: {"size": len(content), "sha256": sha256(content)} for name, content in files.items()},
        **index,
    }
    raw = json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"
    members = {archive.INDEX: raw, **dict(sorted(files.items())), archive.SEAL: sha256(raw).encode() + b"\n"}
    with path.open("wb") as out:
        for name, content in members.items():
            entry = (entries or {}).get(name, tarfile.TarInfo(name))
            entry.mtime, entry.mode = EPOCH, 0o644
            entry.size = len(content) if entry.isreg() else 0
            out.write(entry.tobuf(tarfile.GNU_FORMAT))
            if entry.isreg():
                out.write(content + b"\0" * (-len(content) % 512))
        out.write(b"\0" * 1024)


def contents(bundle: Path) -> dict[str, bytes]:
    """The files of a bundle by name."""
    found: dict[str, bytes] = {}
    archive.verify(bundle, lambda name, pieces: found.__setitem__(name, b"".join(pieces)))
    return found


def refuse_bundle(project: Project, refuse: Refuse, error: type[errors.MeltreproError]) -> Refusal:
    """No command takes the bundle, and nothing of it is kept, inside or outside of the folders."""
    before, around = project.snapshot(), sorted(project.folder.parent.iterdir())
    if error is not errors.BundleError and not issubclass(error, errors.LockError):
        refuse(error, "bundle", "verify", project.bundle)
    refusal = refuse(error, "bundle", "import", project.bundle)
    refuse(error, "replay", project.bundle, "--no-track")
    assert project.snapshot() == before
    assert sorted(project.folder.parent.iterdir()) == around
    return refusal


@pytest.mark.parametrize("place", ["index", "header"])
@pytest.mark.parametrize("name", ["../evil", "records/../../evil", "/tmp/evil-of-meltrepro", "..\\evil", "objects/.."])
def test_a_path_that_escapes(made: Project, project: Project, refuse: Refuse, name: str, place: str) -> None:
    files = contents(made.bundle)
    if place == "index":
        forge(project.bundle, {**files, name: b"evil"})
    else:
        forge(project.bundle, files, {"manifest.yaml": tarfile.TarInfo(name)})
    refusal = refuse_bundle(project, refuse, errors.EscapingPath)
    assert repr(name) in refusal.message
    assert "do not trust" in refusal.hint
    assert not Path("/tmp/evil-of-meltrepro").exists()


@pytest.mark.parametrize(
    ("kind", "type_", "target"),
    [
        ("a symbolic link", tarfile.SYMTYPE, "/etc/passwd"),
        ("a hard link", tarfile.LNKTYPE, "lock.yaml"),
        ("a character device", tarfile.CHRTYPE, ""),
        ("a block device", tarfile.BLKTYPE, ""),
        ("a pipe", tarfile.FIFOTYPE, ""),
        ("a folder", tarfile.DIRTYPE, ""),
    ],
)
@pytest.mark.parametrize("member", ["manifest.yaml", "ro-crate-metadata.json"])
def test_a_link_or_a_device(
    made: Project, project: Project, refuse: Refuse, member: str, kind: str, type_: bytes, target: str
) -> None:
    entry = tarfile.TarInfo(member)
    entry.type, entry.linkname, entry.devmajor, entry.devminor = type_, target, 1, 3
    forge(project.bundle, contents(made.bundle), {member: entry})
    refusal = refuse_bundle(project, refuse, errors.UnsafeMember)
    assert f"{member} is {kind}" in refusal.message
    assert target in refusal.message
    assert "expected a plain file" in refusal.message


def test_a_link_below_which_a_file_would_land(made: Project, project: Project, refuse: Refuse) -> None:
    """A symbolic link to a folder outside, then a file through it."""
    link = tarfile.TarInfo("a")
    link.type, link.linkname = tarfile.SYMTYPE, str(project.folder.parent)
    forge(project.bundle, {**contents(made.bundle), "a": b"", "a/evil": b"evil"}, {"a": link})
    refusal = refuse_bundle(project, refuse, errors.BundleError)
    assert "a/evil lies below a, which is a file" in refusal.message
    assert not (project.folder.parent / "evil").exists()


MANIFEST, LOCK = "manifest.yaml", "lock.yaml"
LIES: dict[str, tuple[Callable[[dict[str, bytes], str], dict[str, bytes]], type[errors.MeltreproError], str]] = {
    "an object under another's name": (
        lambda files, campaign: {**files, f"objects/{'0' * 64}": b"evil"},
        errors.BundleError,
        "is not what its name says",
    ),
    "an object without a digest for a name": (
        lambda files, campaign: {**files, "objects/evil": b"evil"},
        errors.BundleError,
        "objects/evil is not what its name says",
    ),
    "no manifest": (
        lambda files, campaign: {k: v for k, v in files.items() if k != MANIFEST},
        errors.BundleError,
        "manifest.yaml is no manifest",
    ),
    "no lock": (
        lambda files, campaign: {k: v for k, v in files.items() if k != LOCK},
        errors.BundleError,
        "there is no lock.yaml",
    ),
    "a manifest of nothing": (
        lambda files, campaign: {**files, MANIFEST: b"meltrepro: 1\n"},
        errors.BundleError,
        "manifest.yaml is no manifest",
    ),
    "a manifest that is no YAML": (
        lambda files, campaign: {**files, MANIFEST: b"[" * 5000},
        errors.BundleError,
        "manifest.yaml is no manifest",
    ),
    "a lock of a newer format": (
        lambda files, campaign: {**files, LOCK: files[LOCK].replace(b"lock: 1\n", b"lock: 2\n")},
        errors.LockFormatError,
        "format version 2, expected 1",
    ),
    "a statement that is none": (
        lambda files, campaign: {**files, f"attestations/{MODEL}/sbom.json": b"[]"},
        errors.BundleError,
        "sbom.json is no statement",
    ),
    "a changed record": (
        lambda files, campaign: {
            **files,
            f"{campaign}/{TRIAL}/events.jsonl": files[f"{campaign}/{TRIAL}/events.jsonl"].replace(
                b'"hwm": 2', b'"hwm": 3', 1
            ),
        },
        errors.BundleError,
        f"{TRIAL}/events.jsonl was changed after it was recorded: expected sha256",
    ),
    "a campaign that is none": (
        lambda files, campaign: {**files, f"{campaign}/campaign.json": b"{}"},
        errors.BundleError,
        "is no sound campaign",
    ),
    "a campaign under another name": (
        lambda files, campaign: {k.replace(campaign, "records/.hidden"): v for k, v in files.items()},
        errors.BundleError,
        "records/.hidden calls itself",
    ),
    "no campaign at all": (
        lambda files, campaign: {k: v for k, v in files.items() if not k.startswith(campaign)},
        errors.BundleError,
        "there is no campaign",
    ),
}


@pytest.mark.parametrize("lie", list(LIES))
def test_a_sealed_bundle_that_lies(made: Project, project: Project, refuse: Refuse, lie: str) -> None:
    """Every digest and the seal are right, as whoever made it could make them; what they stand for is not."""
    change, error, message = LIES[lie]
    shutil.rmtree(project.folder / "home")
    shutil.rmtree(project.store / "objects")
    (project.folder / "home").mkdir()
    forge(project.bundle, change(contents(made.bundle), f"records/{made.campaign.name}"))
    assert message in refuse_bundle(project, refuse, error).message


def test_a_bundle_does_not_say_where_a_campaign_is_logged(made: Project, project: Project) -> None:
    shutil.rmtree(project.folder / "home")
    (project.folder / "home").mkdir()
    record = f"records/{made.campaign.name}"
    forge(project.bundle, {**contents(made.bundle), f"{record}/tracking.json": b'{"format": 1, "places": []}'})
    assert main(["bundle", "import", str(project.bundle)]) == 0
    assert (project.folder / "home" / record / "campaign.json").is_file()
    assert not (project.folder / "home" / record / "tracking.json").exists()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"format": 2}, "format version 2, expected 1"),
        ({"format": "x" * 10}, "format version 'xxxxxxxxxx', expected 1"),
        ({"members": []}, "bundle.json is damaged"),
        ({"members": {"a": {"size": -1, "sha256": "0" * 64}}}, "bundle.json is damaged"),
        ({"members": {"a": {"size": 10**30, "sha256": "0" * 64}}}, "bundle.json is damaged"),
        ({"members": {"a": {"size": float("inf"), "sha256": "0" * 64}}}, "bundle.json is damaged"),
        ({"members": {"a" * 256: {"size": 0, "sha256": "0" * 64}}}, "unsafe member name"),
        ({"members": {"\ud800": {"size": 0, "sha256": "0" * 64}}}, "half of a character"),
        ({"members": {"a/" * 100_000 + "a": {"size": 0, "sha256": "0" * 64}}}, "unsafe member name"),
        ({"members": {"a\0b": {"size": 0, "sha256": "0" * 64}}}, "unsafe member name"),
        ({"members": {"bundle.sha256": {"size": 0, "sha256": "0" * 64}}}, "unsafe member name"),
    ],
)
def test_an_index_that_nobody_wrote_with_meltrepro(
    project: Project, refuse: Refuse, index: dict[str, Any], message: str
) -> None:
    forge(project.bundle, {}, **index)
    assert message in refuse_bundle(project, refuse, errors.BundleError).message


@given(content=st.binary(max_size=3000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_bytes_for_an_index(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.melt"
    entry = tarfile.TarInfo(archive.INDEX)
    entry.size, entry.mtime, entry.mode = len(content), EPOCH, 0o644
    path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + content + b"\0" * (-len(content) % 512))
    with pytest.raises(errors.BundleError):
        archive.verify(path)
