"""The names in a manifest, looked up among what is installed; the ones that nobody knows are reported all at once.

And the names of cells, of which `--only` chooses some.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import translate
from functools import cached_property

from pydantic import BaseModel

from meltrepro.chat.choice import is_built_in, written
from meltrepro.chat.render import ends
from meltrepro.chat.template import BUILT_IN, TemplateError
from meltrepro.errors import ManifestError, Problem, UsageError
from meltrepro.frameworks.base import AS_IS, AUTO, Framework, ModelStep, Release, Skip, Variant, framework
from meltrepro.manifest.accuracy import TextWorkload
from meltrepro.manifest.axes import points
from meltrepro.manifest.loader import LoadedManifest, problem_at
from meltrepro.manifest.schema import FrameworkEntry, Model, Workload
from meltrepro.manifest.sources import GitSource, Source
from meltrepro.manifest.yaml.suggest import nearest
from meltrepro.manifest.yaml.tree import FieldPath
from meltrepro.record.ids import ModelId
from meltrepro.registry import FRAMEWORKS


@dataclass(frozen=True)
class KnownFramework:
    """A framework of the manifest, with what is behind its name."""

    name: str
    framework: Framework
    options: BaseModel
    """With lists of values, where they are axes: those decide nothing that is built."""
    release: Release
    unfit: Mapping[str, str] = field(default_factory=dict)
    """Why points cannot be had, by their names."""
    _steps: dict[tuple[str, str, str], Sequence[ModelStep] | Skip] = field(default_factory=dict)
    """What many cells share, by model, quantization and variant."""

    @cached_property
    def quantizations(self) -> Mapping[str, float]:
        return {AS_IS: 16.0, **self.framework.quantizations()}

    def steps(self, model: str, source: Source, quantization: str, variant: Variant) -> Sequence[ModelStep] | Skip:
        """How a model is made, or why it cannot be."""
        key = (model, quantization, variant.name)
        if key not in self._steps:
            self._steps[key] = self.framework.model_steps(source, quantization, self.release, variant)
        return self._steps[key]

    def source(self, model: Model) -> Source:
        """Where a model comes from: made-up weights are written in the format of the framework that loads them."""
        if not model.synthetic or self.framework.weights is None:
            return model.source
        return model.source.model_copy(update={"format": self.framework.weights.format})

    def model_id(self, model: str, source: Source, quantization: str, variant: Variant) -> ModelId:
        """What a model is called that this variant loads."""
        steps = self.steps(model, source, quantization, variant)
        alone = not isinstance(steps, Skip) and any(step.per_variant for step in steps)
        return ModelId(model, quantization, self.name, variant.name if alone else "")


def references(frameworks: Mapping[str, KnownFramework]) -> Mapping[str, KnownFramework]:
    """By the name of each framework, what writes down what its unquantized models expect: it or another of them, or one more."""
    found = {}
    for name, known in frameworks.items():
        other, release = known.framework.reference(known.release)
        found[name] = known if other is known.framework else _referred(frameworks, other, release)
    return found


def _referred(frameworks: Mapping[str, KnownFramework], other: Framework, release: Release) -> KnownFramework:
    """The entry of a manifest for a framework as it usually is, or one of a name that no entry has."""
    options = other.options()
    wanted = (other.kind, release, other.pinned(options))
    for each in frameworks.values():
        if (each.framework.kind, each.release, each.framework.pinned(each.options)) == wanted:
            return each
    name = f"{other.kind}-{release.name}"
    while name in frameworks:
        name += "-reference"
    return KnownFramework(name, other, options, release)


def resolve(loaded: LoadedManifest) -> Mapping[str, KnownFramework]:
    """The manifest's frameworks by name; raises `ManifestError` with every name that is unknown."""
    names = _Names(loaded)
    found = {name: names.framework(name, entry) for name, entry in loaded.manifest.frameworks.items()}
    known = {name: each for name, each in found.items() if each is not None}
    if len(known) == len(found):  # else what is unknown may belong to the framework that is
        names.check_values(known)
    names.check_drafts()
    names.check_offloads()
    names.check_templates()
    names.check_thinking()
    names.check_assumed()
    if names.problems:
        raise ManifestError(names.problems)
    return known


@dataclass
class _Names:
    loaded: LoadedManifest
    problems: list[Problem] = field(default_factory=list)

    def framework(self, name: str, entry: FrameworkEntry) -> KnownFramework | None:
        """What an entry names; `None` where that is not installed."""
        at, kind = ("frameworks", name), entry.kind
        written = (*at, "kind") in self.loaded.keys
        if not FRAMEWORKS.has(kind):
            self.check((*at, "kind") if written else at, "framework", kind, FRAMEWORKS.kinds())
            return None
        found = framework(kind)
        releases = dict(found.releases())
        if entry.release is not None and entry.release not in releases:
            if (other := found.version(entry.release)) is not None:
                releases[entry.release] = other
            self.check((*at, "release"), f"release of {kind}", entry.release, releases)
        targets = {target.kind for target in self.loaded.manifest.targets.values()}
        wrong = {
            point.name: list(found.check_options(point.options, entry.release, targets))
            for point in points(entry.options)
        }
        unfit = {point: each[0].message for point, each in wrong.items() if each}
        if len(unfit) == len(wrong):  # nothing is left
            every = [each for listed in wrong.values() for each in listed]
            for each in [each for each in every if all(each in listed for listed in wrong.values())] or every:
                path: FieldPath = (*at, "options", *each.path)
                problem = problem_at(
                    self.loaded, path, each.message, each.suggestion, value=each.value, known=each.known
                )
                self.problems += [problem] if problem not in self.problems else []
        return KnownFramework(name, found, entry.options, _release(entry, releases), unfit)

    def check(self, path: FieldPath, what: str, name: str, known: Collection[str]) -> bool:
        """Whether a name is known; where it is not, that is a problem."""
        if name in known:
            return True
        problem = problem_at(self.loaded, path, f"unknown {what} {name!r}", value=name, known=known)
        if path[-1] == name:  # the name is the key itself, not its value
            at = self.loaded.keys[path]
            problem = replace(problem, file=at.file, line=at.line, column=at.column)
        self.problems.append(problem)
        return False

    def check_drafts(self) -> None:
        """Models that are to foresee what others say."""
        models = self.loaded.manifest.models
        for name, workload in self.loaded.manifest.workloads.items():
            if (
                isinstance(workload, Workload)
                and workload.speculate is not None
                and workload.speculate.model is not None
            ):
                at: FieldPath = ("workloads", name, "speculate", "model")
                known = self.check(at, "model", workload.speculate.model, models)
                if known and models[workload.speculate.model].lora is not None:
                    message = f"model {workload.speculate.model} has an adapter, and what drafts is loaded without"
                    self.problems.append(problem_at(self.loaded, at, message, "name the same model without 'lora'"))

    def check_offloads(self) -> None:
        """Targets whose engines are to answer others."""
        for name, workload in self.loaded.manifest.workloads.items():
            if isinstance(workload, Workload) and workload.offload is not None:
                at: FieldPath = ("workloads", name, "offload", "to")
                self.check(at, "target", workload.offload.to, self.loaded.manifest.targets)

    def check_templates(self) -> None:
        for name, model in self.loaded.manifest.models.items():
            at: FieldPath = ("models", name, "chat_template")
            try:
                template = written(model, self.loaded.path.parent)
                if template is not None:
                    ends(template)  # which renders it
            except TemplateError as error:
                hint = f"leave the key out for the one that the model brings; built in: {', '.join(BUILT_IN)}"
                self.problems.append(problem_at(self.loaded, at, str(error), hint))
                continue
            if model.chat_template_args and template is not None and template.trusted:
                at = ("models", name, "chat_template_args")
                self.problems.append(
                    problem_at(self.loaded, at, f"{template.label} is built in and takes no variables")
                )

    def check_thinking(self) -> None:
        """A limit of thinking needs a model whose thinking is told from its answers."""
        manifest = self.loaded.manifest
        if any(model.thinking is not None or not is_built_in(model) for model in manifest.models.values()):
            return
        for name, workload in manifest.talks.items():
            if workload.max_thinking_tokens is not None:
                at: FieldPath = ("workloads", name, "max_thinking_tokens")
                message = "no model of this manifest has marks of thinking, so that this limits nothing"
                self.problems.append(problem_at(self.loaded, at, message, "name them: models.NAME.thinking"))

    def check_assumed(self) -> None:
        """What devices are taken for while they are not there: machines of their kind, and features of those."""
        for name, target in self.loaded.manifest.targets.items():
            if (assumed := target.assume) is None:
                continue
            at: FieldPath = ("targets", name, "assume")
            if self.check((*at, "arch"), f"machine of {target.kind} devices", assumed.arch, target.machines):
                for i, feature in enumerate(assumed.features):
                    features = target.machines[assumed.arch]
                    self.check((*at, "features", i), f"CPU feature of {assumed.arch}", feature, features)

    def check_values(self, frameworks: Mapping[str, KnownFramework]) -> None:
        """Quantizations and CPU levels, which some framework must know."""
        manifest = self.loaded.manifest
        quantizations = {AS_IS}.union(*(each.quantizations for each in frameworks.values()))
        compared = {AS_IS}.union(*(each.quantizations for each in references(frameworks).values()))
        levels = {AUTO}.union(*(each.framework.levels() for each in frameworks.values()))
        for name, model in manifest.models.items():
            for i, quantization in enumerate(model.quantizations):
                self.check(("models", name, "quantizations", i), "quantization", quantization, quantizations)
        for name, scored in manifest.accuracy.items():
            if isinstance(scored, TextWorkload) and "against" in scored.model_fields_set:
                self.check(("workloads", name, "against"), "quantization", scored.against, compared)
        for name, workload in manifest.workloads.items():
            if isinstance(workload, Workload) and workload.speculate is not None and workload.speculate.quantization:
                at: FieldPath = ("workloads", name, "speculate", "quantization")
                self.check(at, "quantization", workload.speculate.quantization, quantizations)
        for name, target in manifest.targets.items():
            self.check(("targets", name, "isa"), "CPU level", target.isa, levels)


def _release(entry: FrameworkEntry, releases: Mapping[str, Release]) -> Release:
    if entry.source is None:
        return releases.get(entry.release or "") or Release("", "", "", {})  # an unknown one is a problem already
    source = entry.source
    # A source of one's own stands where a release's stands: the recipe knows it under the same name.
    names = next(iter(releases.values())).sources if releases else {"source": source}
    commit = source.commit if isinstance(source, GitSource) else ""
    pin = commit or source.digest or "unpinned"
    return Release(name=f"custom-{pin[:12]}", commit=commit, date="", sources={next(iter(names)): source})


class Selection:
    """Glob patterns over cell ids; `*` also matches `/`, case counts, no pattern at all wants everything."""

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._patterns = {pattern: re.compile(translate(pattern)) for pattern in patterns}
        self._idle = set(patterns)

    def wants(self, cell_id: str) -> bool:
        """Whether any pattern matches; remembers which ones did."""
        if not self._patterns:
            return True
        hits = [pattern for pattern, compiled in self._patterns.items() if compiled.match(cell_id)]
        self._idle.difference_update(hits)
        return bool(hits)

    def refuse_idle(self, cells: Iterable[str]) -> None:
        """Raise `UsageError` where a pattern matched none of the cells that there are: it is a slip, not a wish."""
        cells = list(cells) if self._idle else []
        idle = [pattern for pattern in self._patterns if pattern in self._idle]
        if not idle:
            return
        example = next(iter(cells), "none")
        hint = f"cells are named model/quantization/framework/target/workload, for example {example}"
        meant = [f"*{word}*" for pattern in idle if (word := _near(pattern.strip("*/"), cells))]
        if meant:
            hint = f"did you mean {' '.join(f'--only {shlex.quote(glob)}' for glob in meant)}? {hint}"
        raise UsageError(f"--only: no cell matches {', '.join(map(repr, idle))}", hint=hint)


def _near(wanted: str, cells: Collection[str]) -> str | None:
    """The part of a cell's id that a pattern was meant for; a pattern has to match the whole of one."""
    if any(wanted in cell for cell in cells):
        return wanted
    parts = {part for cell in cells for part in (cell, *cell.split("/"))}
    return nearest(wanted, sorted(parts))
