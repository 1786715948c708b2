"""The manifests that are meant by paths: one by one, or those of a folder; and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meltrepro import resources
from meltrepro import settings as settings_module
from meltrepro.atomic import write_bytes
from meltrepro.chat.contexts import beyond_training
from meltrepro.errors import ManifestError, ModelError, Problem, UsageError
from meltrepro.manifest.files import missing_files, require_files
from meltrepro.manifest.loader import LoadedManifest, load_manifest
from meltrepro.plan.names import resolve
from meltrepro.settings import Settings
from meltrepro.store.mirror import load_mirrors
from meltrepro.workflow.fits import check_fits
from meltrepro.workflow.models import Looks, look, on_disk, refused


def read_manifest(spec: Path, overrides: Sequence[str]) -> LoadedManifest:
    """Load a manifest with its overrides; raises `ManifestError`, and `UsageError` for a folder."""
    if spec.is_dir():
        inside = manifests_of([spec])
        raise UsageError(
            f"{spec} is a folder, and this command takes one manifest",
            hint=f"name one, such as {inside[0]}; validate and study take folders",
        )
    try:
        return load_manifest(spec, overrides)
    except ManifestError as error:
        meant = Path("specs") / f"{spec.stem}.yaml"
        if spec.exists() or not meant.is_file():
            raise
        raise ManifestError(error.problems, hint=f"is {meant} meant?") from error


def manifests_of(specs: Sequence[Path]) -> list[Path]:
    """The manifests that are meant, those of a folder by name; raises `UsageError` where there are none.

    `*.yaml` in a shell names locks too: one beside its manifest is passed over.
    """
    found: list[Path] = []
    for path in specs:
        inside = sorted(each for each in path.glob("*.yaml") if not each.name.endswith(".lock.yaml"))
        if path.is_dir() and not inside:
            raise UsageError(
                f"{path} holds no manifest (*.yaml)", hint="name a folder of manifests, such as specs/paper/smoke"
            )
        found += inside if path.is_dir() else [path]
    return [path for path in found if path.with_name(path.name.replace(".lock.yaml", ".yaml")) not in {*found} - {path}]


def write_quickstart(folder: Path | str) -> Path:
    """Write the quickstart with its lock and prompts into a folder, and return its manifest.

    Raises `UsageError` where one of the files is there already with other content.
    """
    files = {folder_of(folder) / name: content for name, content in resources.quickstart().items()}
    for path, content in files.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            raise UsageError(f"{path} is there already", hint="name another folder: meltrepro init FOLDER")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    return next(iter(files))


def folder_of(path: Path | str) -> Path:
    """Where a manifest is to be written; raises `UsageError` where that is a file."""
    if Path(path).is_file():
        raise UsageError(f"{path} is a file", hint="name the folder to write into: meltrepro init FOLDER")
    return Path(path)


@dataclass(frozen=True)
class Validated:
    """Manifests that were looked at, and whether each is well."""

    good: Sequence[tuple[Path, LoadedManifest]]
    warnings: Sequence[str]
    error: ManifestError | ModelError | None
    """All that is wrong with the others; those with missing files, and those with models that are none, last."""


def validate(
    manifests: Sequence[Path | str], *, overrides: Sequence[str] = (), settings: Settings | None = None
) -> Validated:
    """Check manifests, and those of folders, and that the files they name are there; asks no device, server or store.

    What is wrong with them is in the value. Raises `UsageError` for a folder without any.
    """
    mirrors = load_mirrors((settings or settings_module.load()).mirrors)
    good: list[tuple[Path, LoadedManifest]] = []
    warnings: list[str] = []
    lost: list[Problem] = []
    broken: list[Problem] = []
    problems: list[Problem] = []
    for path in manifests_of(list(map(Path, manifests))):
        try:
            loaded = read_manifest(path, overrides)
            frameworks = resolve(loaded)
            too_small, tight = check_fits(loaded, loaded.manifest.workloads)
            if too_small:
                raise ManifestError(too_small)
            missing = missing_files(loaded, mirrors.has)
        except ManifestError as error:
            problems.extend(error.problems)
            continue
        looks = look(loaded, frameworks, on_disk(loaded.path.parent))
        refusals = [*refused(loaded, looks)]
        unfit = [*looks.broken, *(problem for alone, problem in refusals if alone)]
        lost.extend(missing)
        broken.extend(unfit)
        warnings.extend(map(str, (*loaded.warnings, *tight, *beyond_training(loaded))))
        warnings.extend(str(problem) for alone, problem in refusals if not alone)
        warnings.extend(looks.warnings)
        if not missing and not unfit:
            good.append((path, loaded))
    return Validated(good, warnings, _error(problems, lost, broken))


def _error(problems: list[Problem], lost: list[Problem], broken: list[Problem]) -> ManifestError | ModelError | None:
    if problems:
        return ManifestError([*problems, *lost, *broken])
    try:
        require_files([*lost, *broken] if lost else [])
        Looks(broken).require_whole()
    except (ManifestError, ModelError) as error:
        return error
    return None
