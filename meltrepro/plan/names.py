"""The names in a manifest, looked up in the catalog; the ones that nobody knows are reported all at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.accuracy import TextWorkload
from meltrepro.manifest.apps import IosBuild
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.manifest.schema import Framework, Ndk
from meltrepro.manifest.sources import GitSource
from meltrepro.plan.isa import built_with, built_with_cuda
from meltrepro.plan.model import AS_IS, IOS, Catalog, CudaBuild, FrameworkInfo, Isa, Release


@dataclass(frozen=True)
class KnownFramework:
    """A framework of the manifest and what the catalog says about it."""

    name: str
    info: FrameworkInfo
    release: Release
    extra_isas: tuple[Isa, ...]
    """Levels to build besides those that the targets need."""
    ndk: Ndk | None = None
    """Builds what is for Android devices."""
    ios: IosBuild | None = None
    """Where the app for iPhones comes from."""
    cuda: CudaBuild | None = None
    """Builds what is for Jetson boards."""


def resolve(loaded: LoadedManifest, catalog: Catalog) -> Mapping[str, KnownFramework]:
    """The manifest's frameworks by name; raises `ManifestError` with every name that is unknown."""
    manifest = loaded.manifest
    problems: list[Problem] = []

    def check(path: tuple[str | int, ...], what: str, name: str, known: Collection[str]) -> bool:
        if name in known:
            return True
        problem = problem_at(loaded, path, f"unknown {what} {name!r}", value=name, known=known)
        if path[-1] == name:  # the name is the key itself, not its value
            at = loaded.keys[path]
            problem = replace(problem, file=at.file, line=at.line, column=at.column)
        problems.append(problem)
        return False

    resolved: dict[str, KnownFramework] = {}
    for name, entry in manifest.frameworks.items():
        at, kind = ("frameworks", name), entry.kind or name
        if not check(at if entry.kind is None else (*at, "kind"), "framework", kind, catalog.frameworks):
            continue
        info = catalog.frameworks[kind]
        if entry.release is not None:
            check((*at, "release"), f"release of {kind}", entry.release, info.releases)
        levels = {level.name: level for level in info.isas}
        for i, level in enumerate(entry.build.isas):
            check((*at, "build", "isas", i), f"CPU level of {kind}", level, levels)
        ndk = entry.build.toolchain
        if ndk is not None and not any(target.kind == "android" for target in manifest.targets.values()):
            message = "the NDK builds for Android devices, and no target is one"
            problems.append(
                problem_at(loaded, (*at, "build", "toolchain"), message, "leave it out: zig builds the rest")
            )
        ios = entry.build.ios
        if ios is not None and not any(target.kind == "ios" for target in manifest.targets.values()):
            message = "it says where the app for iPhones comes from, and no target is one"
            problems.append(problem_at(loaded, (*at, "build", "ios"), message, "leave it out"))
        for i, level in enumerate(entry.build.isas):
            if level in levels and levels[level].triple == IOS:
                message = "apps for iPhones are built where a target needs them"
                problems.append(problem_at(loaded, (*at, "build", "isas", i), message, "leave it out"))
        cuda = None
        if entry.build.cuda is not None:
            at_cuda, wanted = (*at, "build", "cuda"), entry.build.cuda.jetpack
            check((*at_cuda, "jetpack"), f"JetPack for {kind}", wanted, info.cuda)
            cuda = info.cuda.get(wanted)
            if cuda is not None and entry.release not in cuda.releases:
                message = f"with CUDA {cuda.cuda}, {kind} is built of release {', '.join(sorted(cuda.releases))} alone"
                problems.append(
                    problem_at(
                        loaded, at_cuda, message, "older ones cannot do without the virtual memory that Orin lacks"
                    )
                )
            if not any(target.kind == "jetson" for target in manifest.targets.values()):
                message = "CUDA is built for Jetson boards, and no target is one"
                problems.append(problem_at(loaded, at_cuda, message, "leave it out: all else runs on CPUs"))
        if not problems:
            extra = tuple(built_with_cuda(built_with(levels[level], ndk), cuda) for level in entry.build.isas)
            resolved[name] = KnownFramework(name, info, _release(entry, info), extra, ndk, ios, cuda)

    infos = [catalog.frameworks.get(entry.kind or name) for name, entry in manifest.frameworks.items()]
    known = [info for info in infos if info is not None]
    quantizations = {AS_IS}.union(*(info.quantizations for info in known))
    isas = {"auto"}.union(level.name for info in known for level in info.isas)
    for name, model in manifest.models.items():
        check(("models", name, "chat_template"), "chat template", model.chat_template, catalog.chat_templates)
        for i, quantization in enumerate(model.quantizations):
            if len(known) == len(infos):  # it may belong to the framework that is unknown
                check(("models", name, "quantizations", i), "quantization", quantization, quantizations)
    for name, scored in manifest.accuracy.items():
        if isinstance(scored, TextWorkload) and "against" in scored.model_fields_set and len(known) == len(infos):
            check(("workloads", name, "against"), "quantization", scored.against, quantizations)
    for name, target in manifest.targets.items():
        if len(known) == len(infos):
            check(("targets", name, "isa"), "CPU level", target.isa, isas)
    if problems:
        raise ManifestError(problems)
    return resolved


def _release(entry: Framework, info: FrameworkInfo) -> Release:
    if entry.release is not None:
        return info.releases[entry.release]
    assert entry.source is not None, "the manifest demands a release or a source"
    source = entry.source
    # A source of one's own stands where a release's stands: the recipe knows it under the same name.
    names = next(iter(info.releases.values())).sources if info.releases else {"source": source}
    commit = source.commit if isinstance(source, GitSource) else ""
    pin = commit or source.digest or "unpinned"
    return Release(name=f"custom-{pin[:12]}", commit=commit, date="", sources={next(iter(names)): source})
