"""What a bundle cannot hold, and whether this machine can repeat it: told before anything long begins."""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from meltrepro.atomic import free_bytes
from meltrepro.build.tools import EngineName
from meltrepro.errors import BundleError, EngineError, ManifestError, PlanError
from meltrepro.frameworks.base import framework
from meltrepro.manifest.accuracy import source_of
from meltrepro.manifest.loader import parse_manifest
from meltrepro.manifest.lock import Lock, load_lock
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.yaml.positions import MAX_BYTES
from meltrepro.plan.names import Selection
from meltrepro.record.campaign import CAMPAIGN, LOCK, MANIFEST, CampaignDocument, parse_campaign
from meltrepro.record.ids import RUN, BundleId, artifact_id, model_of
from meltrepro.record.reader import own_folders
from meltrepro.replay import archive
from meltrepro.replay.claims import RECORDS
from meltrepro.settings import Settings
from meltrepro.store import checkpoint
from meltrepro.store.cas import Store
from meltrepro.store.mirror import load_mirrors
from meltrepro.store.source import key_of
from meltrepro.untrusted import read_regular

NOT_FREE = "the manifest does not say that it may be passed on (redistributable: true)"
_LICENCE = "its licence does not allow passing it on"
_MACHINES = {"x86_64": "x86", "aarch64": "arm", "arm64": "arm"}
"""How the levels of a machine's programs begin."""


@dataclass(frozen=True)
class Gap:
    """Bytes that a bundle names and does not hold, and that are not here either."""

    name: str
    """As locks and mirror maps call it."""
    digest: str
    size: int | None
    why: str
    remedy: str
    fetched: bool
    """Whether a replay can get it by itself, where it reaches the server."""

    def __str__(self) -> str:
        size = "" if self.size is None else f", {self.size / 1e6:.1f} MB"
        return f"{self.name}{size}, sha256 {self.digest}: {self.remedy}"


def withheld(manifest: Manifest, lock: Lock) -> Mapping[str, str]:
    """Digests of what a bundle leaves out, each with the reason: what frameworks say of their tools and programs, data of
    accuracy workloads, and weights (of the source, and of everything made of it)."""
    made = {artifact_id(name): artifact.digest for name, artifact in lock.artifacts.items()}
    found: dict[str, str] = {}
    for name, entry in manifest.frameworks.items():
        engine = framework(entry.kind)
        kept = {each.digest for key, each in lock.sources.items() if engine.withholds(entry.options, key)}
        bundles = {key: digest for key, digest in made.items() if isinstance(key, BundleId) and key.framework == name}
        kept |= {digest for key, digest in bundles.items() if key.variant in engine.withheld_variants()}
        found |= dict.fromkeys(kept, _LICENCE)
    for workload in manifest.accuracy.values():
        data = lock.sources.get(key_of(source_of(workload)))
        if data is not None and not workload.redistributable:
            found[data.digest] = NOT_FREE
    for name, model in manifest.models.items():
        if model.redistributable or model.synthetic:
            continue
        found |= {digest: NOT_FREE for key, digest in made.items() if model_of(key) == name}
        found |= {
            each.digest: NOT_FREE
            for key, each in lock.sources.items()
            if any(checkpoint.is_of(key, part) for part in model.sources)
        }
    return found


def gaps(manifest: Manifest, lock: Lock, store: Store) -> list[Gap]:
    """What is in no bundle of this campaign and not here, as far as repeating its trials takes it.

    A model that is here needs no source; one that is not is made again of it. Tools of compilers are in what they made.
    """
    left = {digest: why for digest, why in withheld(manifest, lock).items() if not store.has(digest)}
    whole = {
        name
        for name, model in manifest.models.items()
        if not any(model_of(artifact_id(key)) == name and each.digest in left for key, each in lock.artifacts.items())
        and not model.synthetic
    }
    found = []
    for key, source in lock.sources.items():
        owners = {
            name
            for name, model in manifest.models.items()
            if any(checkpoint.is_of(key, part) for part in model.sources)
        }
        data = key in {key_of(source_of(workload)) for workload in manifest.accuracy.values()}
        if source.digest not in left or not (data or owners - whole):
            continue
        local = key.startswith(("file:", "folder:"))
        mapped = f"name your copy in a mirror map (mirrors: {{{key!r}: PATH}}) and set MELTREPRO_MIRRORS to it"
        remedy = f"ask its owner for it; {mapped}" if local else f"fetched by the replay; without a network, {mapped}"
        found.append(Gap(key, source.digest, source.size, left[source.digest], remedy, not local))
    for name, artifact in lock.artifacts.items():
        if artifact.digest in left and model_of(artifact_id(name)) is None:
            remedy = "built anew by: meltrepro replay BUNDLE --rebuild"
            found.append(Gap(name, artifact.digest, None, left[artifact.digest], remedy, fetched=True))
    return found


def read(folder: Path) -> tuple[Manifest, Lock]:
    """Manifest and lock of a campaign or of an unpacked bundle; raises `BundleError` and `LockError`."""
    lock = load_lock(folder / LOCK)
    if lock is None:
        raise BundleError(
            f"there is no {LOCK} in {folder}", hint="name the folder of a campaign, or a bundle that was made of one"
        )
    try:
        return parse_manifest(read_regular(folder / MANIFEST, MAX_BYTES), MANIFEST), lock
    except (OSError, ManifestError) as error:
        raise BundleError(
            f"{MANIFEST} is no manifest: {error}", hint="meltrepro of another version may have written it"
        ) from error


def peek(bundle: Path) -> tuple[archive.Index, Manifest, Lock]:
    """What a bundle is about, without reading its objects; raises `BundleError` and its kin, and `LockError`."""
    with tempfile.TemporaryDirectory() as name:
        index, contents = archive.peek(bundle, (MANIFEST, LOCK))
        for member, content in contents.items():
            (Path(name) / member).write_bytes(content)
        return index, *read(Path(name))


def require_room(index: archive.Index, store: Store) -> None:
    """Raise `PlanError` where a bundle does not fit beside what is here."""
    if line := _room(index, store):
        raise PlanError(line, hint="free some, for example with: meltrepro gc; or set MELTREPRO_CACHE to another disk")


def _room(index: archive.Index, store: Store) -> str | None:
    needed, free = sum(member.size for member in index.members.values()), free_bytes(store.root)
    if needed <= free:
        return None
    return f"unpacked it takes {needed / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free at {store.root}"


def require_ready(
    bundle: Path,
    settings: Settings,
    engine: EngineName,
    *,
    only: Sequence[str] = (),
    rebuild: bool = False,
    elsewhere: bool = False,
) -> None:
    """Raise `PlanError` with everything at once that keeps this machine from repeating a bundle, before it is unpacked.

    `only`: patterns of the cells that are repeated. `elsewhere`: another target is named, so that nothing is said of this
    machine.
    """
    index, manifest, lock = peek(bundle)
    store = Store(settings.store)
    problems = [line for line in (_room(index, store),) if line]
    mirrors = load_mirrors(settings.mirrors).paths or {}
    problems += [
        f"not in the bundle, nor here: {gap}"
        for gap in gaps(manifest, lock, store)
        if not gap.fetched and gap.name not in mirrors
    ]
    campaign = _campaign(bundle, index)
    wanted = Selection(only).wants
    used = {cell.target for cell in campaign.cells if wanted(cell.id)} if campaign is not None else {*manifest.targets}
    here = {name: target for name, target in manifest.targets.items() if target.here and name in used}
    if here and not elsewhere:
        problems += _machine(_variants(lock, campaign, here, wanted))
        if rebuild or any(target.contained for target in here.values()) or not _is_own(campaign, settings):
            problems += engine_problems(settings, engine)
    if problems:
        raise PlanError(
            "\n".join([f"{bundle.name} cannot be repeated here yet:", *(f"  {line}" for line in problems)]),
            hint="nothing was unpacked; mend these, and replay again. What was recorded can be read as it is: meltrepro report BUNDLE",
        )


def _campaign(bundle: Path, index: archive.Index) -> CampaignDocument | None:
    """What a bundle's record says it measured; `None` where that cannot be read, which an import says with the reason."""
    names = [name for name in index.members if PurePosixPath(name).match(f"{RECORDS}/*/{CAMPAIGN}")]
    for content in archive.peek(bundle, names)[1].values():
        with suppress(ValueError):
            return parse_campaign(content)
    return None


def _is_own(campaign: CampaignDocument | None, settings: Settings) -> bool:
    """Whether this machine measured it: its programs run as they did then, others in a sandbox only."""
    return campaign is not None and campaign.id in {folder.name for folder in own_folders(settings.records)}


def _variants(
    lock: Lock, campaign: CampaignDocument | None, targets: Collection[str], wanted: Callable[[str], bool]
) -> set[str]:
    """Of the programs that cells of these targets ran; of all that were built, where it cannot be read which ones did."""
    if campaign is None:
        return {
            key.variant for key in map(artifact_id, lock.artifacts) if isinstance(key, BundleId) and key.purpose == RUN
        }
    return {cell.isa for cell in campaign.cells if cell.target in targets and wanted(cell.id)}


def _machine(variants: Set[str]) -> list[str]:
    begins = _MACHINES.get(platform.machine())
    if begins is None or any(variant.startswith(begins) for variant in variants):
        return []
    return [
        f"its programs are for {', '.join(sorted(variants))}, this machine is {platform.machine()}: name a device with --target"
    ]


def engine_problems(settings: Settings, engine: EngineName) -> list[str]:
    """Why an engine would run nothing here."""
    if engine == "process":
        there = shutil.which("bwrap") is not None
        return [] if there else ["the engine process needs bubblewrap: apt-get install bubblewrap"]
    from meltrepro.build import daemon

    try:
        daemon.find(settings)[0].close()
    except EngineError as error:
        return [f"{error.message}: start one, or replay with --engine process"]
    return []
