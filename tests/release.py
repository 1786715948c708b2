"""What a release consists of: `python -m tests.release FOLDER` (`make release`) builds it twice and compares the bytes.

The wheel and the source archive, a CycloneDX bill of what the wheel installs at the locked versions, and SHA256SUMS.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from shutil import copy2

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
NAME = "meltrepro"
_ENTRY = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ \\]+)[^\n]*\\\n(?P<hashes>(?: {4}--hash=[^\n]+\n)+)", re.MULTILINE
)


def copy_sources(folder: Path) -> Path:
    """A copy of what git knows, as it is now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def build(sources: Path, folder: Path, epoch: int) -> list[Path]:
    """The source archive, and the wheel that is built from it; times in them are `epoch`, in Unix seconds."""
    command: list[str | Path] = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, sources]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return sorted(folder.iterdir())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def bill(wheel: Path) -> str:
    """The CycloneDX bill of a wheel: what it installs, from the lock; the same wheel has the same bill."""
    digest, version = sha256(wheel), wheel.name.split("-")[1]
    lock = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8")
    locked: dict[str, re.Match[str]] = {canonicalize_name(entry["name"]): entry for entry in _ENTRY.finditer(lock)}
    subject = Component(
        name=NAME,
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=digest,
        purl=PackageURL("pypi", None, NAME, version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )
    components = [
        Component(
            name=name,
            version=locked[name]["version"],
            type=ComponentType.LIBRARY,
            bom_ref=f"{name}=={locked[name]['version']}",
            purl=PackageURL("pypi", None, name, locked[name]["version"]),
            hashes=[
                HashType(alg=HashAlgorithm.SHA_256, content=found)
                for found in re.findall(r"sha256:([0-9a-f]{64})", locked[name]["hashes"])
            ],
        )
        for name in sorted(set(_installed(NAME, frozenset(), set())) - {NAME})
    ]
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digest),
        metadata=BomMetaData(component=subject),
        components=components,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing says what depends on what
        document = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"].pop("timestamp", None)
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _installed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """What a package needs on this machine, itself included, as the packages of this environment declare it."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    yield name
    for text in metadata.requires(name) or ():
        wanted = Requirement(text)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield from _installed(canonicalize_name(wanted.name), frozenset(wanted.extras), seen)


def main(folder: Path) -> None:
    """Build a release of the last commit; a release is of nothing else."""
    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout:
        sys.exit("commit first: a release is of a commit")
    said = subprocess.run([*git, "log", "-1", "--format=%ct"], capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory() as name:
        first, second = (
            build(copy_sources(Path(name, each)), Path(name, f"{each}.dist"), int(said)) for each in ("one", "another")
        )
        for one, other in zip(first, second, strict=True):
            if sha256(one) != sha256(other):
                sys.exit(f"{one.name}: two builds have different bytes")
        folder.mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob(f"{NAME}-*"), *folder.glob("SHA256SUMS")):
            old.unlink()
        files = [Path(copy2(path, folder)) for path in first]
    (wheel,) = (path for path in files if path.suffix == ".whl")
    sbom = folder / f"{wheel.stem}.cdx.json"
    sbom.write_text(bill(wheel), encoding="utf-8")
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted([*files, sbom]))
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    print(sums, end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
