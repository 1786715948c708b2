"""What the models of a manifest are, as far as their files are here: looked at before anything is planned, fetched or built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from meltrepro.build.pins import Pins
from meltrepro.chat.choice import chosen, is_built_in, written
from meltrepro.chat.own import OwnTemplates
from meltrepro.chat.render import ends
from meltrepro.chat.template import BUILT_IN, TemplateError
from meltrepro.errors import ModelError, Problem, SourceError
from meltrepro.frameworks.base import Look, framework
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.manifest.sources import (
    FileSource,
    FolderSource,
    HuggingFaceSource,
    PypiSource,
    Source,
    SyntheticSource,
    UrlSource,
    files_of,
    has_parts,
    is_checkpoint,
    is_split,
    source_kind,
)
from meltrepro.manifest.yaml.tree import FieldPath
from meltrepro.plan.model import EVERY, Plan, Refusals
from meltrepro.plan.names import KnownFramework
from meltrepro.store import checkpoint
from meltrepro.store.names import local_path, redact
from meltrepro.store.source import key_of

_HINT = "name other models, or other releases of the framework"
OTHER_TEMPLATES = f"name a built-in one ({', '.join(BUILT_IN)}), or a file of yours: {{file: mine.jinja}}"
"""What to do where a model brings no chat template that can be used."""
Files = Path | Mapping[str, Path]
"""The file of a model, or the files of a checkpoint by name, of which some may not be here, or all of a split model."""
Find = Callable[[Source], Files | None]
"""Where the files of a source are; `None` where they are not here. Raises `SourceError` where they cannot be a model's."""


@dataclass(frozen=True)
class Looks:
    """What was seen."""

    broken: Sequence[Problem] = ()
    """Of models that are none, or damaged."""
    refusals: Refusals = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def require_whole(self, matters: Callable[[Problem], bool] = lambda _: True) -> None:
        """Raise `ModelError` with every problem that matters."""
        problems, hint = [problem for problem in self.broken if matters(problem)], _HINT
        if len(problems) == 1 and (step := problems[0].suggestion) is not None:
            problems, hint = [replace(problems[0], suggestion=None)], step
        if problems:
            raise ModelError("\n".join(map(str, problems)), problems=problems, hint=hint)


def look(loaded: LoadedManifest, frameworks: Mapping[str, KnownFramework], find: Find) -> Looks:
    """Look at every model as each framework of the manifest sees it."""
    broken: dict[str, Problem] = {}
    refusals: dict[tuple[str, str, str], str] = {}
    warnings: dict[str, None] = {}
    for name, model in loaded.manifest.models.items():
        template = written(model, loaded.path.parent)
        for framework_name, (entry_name, point) in loaded.manifest.points.items():
            known = frameworks[entry_name]
            source = known.source(model)
            if (problem := _adapter_problem(loaded, name, known, find)) is not None:
                broken.setdefault(name, problem)
            where: FieldPath = ("models", name, "source", source_kind(source) or "")
            try:
                files = find(source)
                if files is None:
                    refused = known.framework.name_refusal(_file_name(source))
                    found = Look(refused, chat=_none_made(source))
                    where = (*where[:-1], "file") if isinstance(source, HuggingFaceSource) else where
                else:
                    found = known.framework.look(point.options, files, known.release, template)
            except (SourceError, ModelError) as error:
                broken.setdefault(name, problem_at(loaded, where, error.message, error.hint))
                continue
            except OSError as error:
                broken.setdefault(name, problem_at(loaded, where, f"a file of it cannot be read: {error}"))
                continue
            if (problem := _template_problem(loaded, name, found)) is not None:
                broken.setdefault(name, problem)
            if found.refusal is not None:
                refusals[name, framework_name, EVERY] = found.refusal
            refusals |= {(name, framework_name, quantization): why for quantization, why in found.unmade.items()}
            for warning in found.warnings:
                warnings[str(problem_at(loaded, where, warning))] = None
            warnings |= dict.fromkeys(_beyond_training(loaded, name, found))
    return Looks(tuple(broken.values()), refusals, tuple(warnings))


def _adapter_problem(loaded: LoadedManifest, name: str, known: KnownFramework, find: Find) -> Problem | None:
    """What is wrong with a model's adapter, as far as its file is here, and that of the model."""
    model = loaded.manifest.models[name]
    if model.lora is None or known.framework.adapter_refusal(known.release) is not None:
        return None
    where: FieldPath = ("models", name, "lora", "source", source_kind(model.lora.source) or "")
    try:
        adapter, whole = find(model.lora.source), find(known.source(model))
        if isinstance(adapter, Path):
            known.framework.check_adapter(adapter, whole if isinstance(whole, Path) else None)
    except (SourceError, ModelError) as error:
        return problem_at(loaded, where, error.message, error.hint)
    except OSError as error:
        return problem_at(loaded, where, f"a file of it cannot be read: {error}")
    return None


def _none_made(source: Source) -> OwnTemplates | None:
    """The templates of a model that is not here, where it is known that it brings none: its weights are made up without one."""
    return OwnTemplates() if isinstance(source, SyntheticSource) and not source.shape.has_template else None


def _template_problem(loaded: LoadedManifest, model: str, found: Look) -> Problem | None:
    """What is wrong with the chat template that a model is to bring."""
    entry = loaded.manifest.models[model]
    if found.chat is None or is_built_in(entry) or not loaded.manifest.talks:
        return None
    try:
        ends(chosen(model, entry, loaded.path.parent, found.chat))  # which renders it
    except TemplateError as error:
        return problem_at(loaded, ("models", model, "chat_template"), str(error), OTHER_TEMPLATES)
    return None


def _beyond_training(loaded: LoadedManifest, model: str, found: Look) -> Iterator[str]:
    """Workloads whose context is longer than a model's file says; where the manifest says it, cells are skipped.

    What is planned must not hang on which files are here, so that this is a warning.
    """
    if found.context is None or loaded.manifest.models[model].trained_context is not None:
        return
    for name, workload in loaded.manifest.workloads.items():
        if workload.context > found.context:
            message = (
                f"{workload.context} tokens are more than model {model} was trained for: {found.context}, says its file"
            )
            yield str(problem_at(loaded, ("workloads", name, "context"), message))


def refused(loaded: LoadedManifest, looks: Looks) -> Iterator[tuple[bool, Problem]]:
    """The refusals as problems, each with whether no framework of the manifest loads that model."""
    for (name, kind, quantization), reason in looks.refusals.items():
        if quantization != EVERY:  # said by the plan, of the cells that want it
            continue
        alone = all((name, other, EVERY) in looks.refusals for other in loaded.manifest.points)
        yield alone, problem_at(loaded, ("models", name, "source"), f"framework {kind} cannot load it: {reason}")


def require_loadable(plan: Plan, pins: Pins) -> None:
    """Raise `ModelError` where what pinning a plan's models brought here, such as a configuration, says that one cannot be loaded.

    So it is known before weights are fetched.
    """
    releases, find = {bundle.framework_name: bundle.release for bundle in plan.bundles}, at_hand(pins)
    for node in plan.models:
        files = find(node.source) if not node.is_adapter else None
        if files is None:
            continue
        template = written(plan.manifest.models[node.model_name], pins.base_dir)
        name = f"models.{node.model_name}, from {key_of(node.source)}"
        try:
            found = framework(node.kind).look(plan.options(node), files, releases[node.framework_name], template)
        except ModelError as error:
            raise ModelError(f"{name}: {error.message}", hint=error.hint) from error
        if (refusal := found.refusal or found.unmade.get(node.quantization)) is not None:
            raise ModelError(f"{name}: framework {node.framework_name} cannot load it: {refusal}", hint=_HINT)


def on_disk(base: Path) -> Find:
    """Finds what a manifest in a folder names on this machine; asks no store."""

    def find(source: Source) -> Files | None:
        if not isinstance(source, FileSource | FolderSource):
            return None
        try:
            path = local_path(base, source.file if isinstance(source, FileSource) else source.folder)
        except SourceError:  # said where files are looked for
            return None
        if isinstance(source, FolderSource):
            return checkpoint.in_folder(source, path) if path.is_dir() else None
        if is_split(source):
            files = [local_path(base, name) for name in files_of(source)]
            return {each.name: each for each in files} if all(each.is_file() for each in files) else None
        return path if path.is_file() and path.stat().st_size else None

    return find


def at_hand(pins: Pins) -> Find:
    """Finds what is on this machine or in the store; asks nobody."""
    here = on_disk(pins.base_dir)

    def find(source: Source) -> Files | None:
        found = here(source)
        digest = pins.known(source) if found is None else None
        if digest is None or not pins.store.has(digest):
            return found
        if not has_parts(source):
            return pins.store.path(digest)
        parts = checkpoint.parts(source, pins.store.path(digest))
        there = {name: each.digest for name, each in parts.items() if each.digest and pins.store.has(each.digest)}
        enough = {checkpoint.CONFIG} if is_checkpoint(source) else parts.keys()
        return {name: pins.store.path(each) for name, each in there.items()} if enough <= there.keys() else None

    return find


def _file_name(source: Source) -> str:
    match source:
        case HuggingFaceSource():
            return "" if is_split(source) else source.file or ""
        case PypiSource():
            return source.member or ""
        case UrlSource():
            return redact(source.url)
        case FileSource():
            return source.file
    return ""
