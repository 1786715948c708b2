"""What engines have in common whose libraries come compiled, in wheels: a bundle with its own C library, models by way of llama.cpp.

Such an engine says which wheels it takes, what of them goes into a bundle, and how a GGUF file becomes a folder that it loads. Tokens
are llama.cpp's, and so are its converter and its quantizer: models of all engines have the same codes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.chat.template import ChatTemplate
from meltrepro.frameworks.base import (
    AS_IS,
    AUTO,
    RUN,
    Framework,
    Look,
    ModelStep,
    OptionProblem,
    Purpose,
    Release,
    Scorer,
    Skip,
    SkipKind,
    Variant,
    Weights,
)
from meltrepro.frameworks.llamacpp import checkpoints, gguf, split
from meltrepro.frameworks.llamacpp.module import FRAMEWORK as LLAMA
from meltrepro.frameworks.llamacpp.options import Options as LlamaOptions
from meltrepro.frameworks.llamacpp.synthetic import header_of
from meltrepro.frameworks.prebuilt import glibc, llama
from meltrepro.frameworks.prebuilt.folder import facts_of
from meltrepro.frameworks.prebuilt.scorer import LogitsScorer
from meltrepro.manifest.sources import PypiSource, Source, SyntheticSource
from meltrepro.targets.base import DeviceFacts

TOKENIZER = LLAMA.releases()["2026-10-01"]
"""Whose tokenizer, converter and quantizer are used."""
_TOKENIZER = "llama.cpp.tar.gz"
_ALIASES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True)
class Wheel:
    """A wheel for several machines, and what of it a bundle gets."""

    pypi: str
    version: str
    filenames: Mapping[str, str]
    """By machine, and so are the digests."""
    digests: Mapping[str, str]
    libraries: Mapping[str, str]
    """Name below `lib` -> place in the wheel."""
    licenses: Mapping[str, str]
    """Name below `licenses` -> place in the wheel."""
    own_libraries: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By machine, those that no other has."""

    def contents(self, machine: str) -> Mapping[str, str]:
        """What a bundle gets -> place in the wheel."""
        libraries = {**self.libraries, **self.own_libraries.get(machine, {})}
        parts = (("lib", libraries), ("licenses", self.licenses))
        return {f"{folder}/{name}": place for folder, files in parts for name, place in files.items()}

    def source(self, machine: str) -> PypiSource:
        name, digest = self.filenames[machine], self.digests[machine]
        return PypiSource(pypi=self.pypi, version=self.version, filename=name, digest=digest)


@dataclass(frozen=True)
class Scheme:
    """A quantization."""

    begin: str
    """What of llama.cpp a conversion begins with."""
    bits: float
    """Per weight."""
    steps: Sequence[ModelStep]


@dataclass(frozen=True)
class WheelEngine:
    """What is known of an engine without looking at a model."""

    kind: str
    title: str
    """As people write it."""
    homepage: str
    license: str
    date: str
    commit: str
    wheels: Sequence[Wheel]
    """The first is the engine itself, whose version is that of the release."""
    variants: Sequence[Variant]
    """Of those of a machine, the first that a CPU can run is taken."""
    schemes: Mapping[str, Scheme]
    files: Sequence[str]
    """What a converted model consists of besides what every one has (folder.py)."""
    architectures: Collection[str] = llama.LLAMA
    """Of models that it converts, as llama.cpp names them."""
    whole: bool = True
    """Whether heads must fill a model's width and turn whole."""

    @property
    def labels(self) -> Mapping[str, str]:
        return {
            "org.opencontainers.image.version": self.wheels[0].version,
            "org.opencontainers.image.revision": self.commit,
            "org.opencontainers.image.source": self.homepage,
            "org.opencontainers.image.licenses": self.license,
        }

    def release(self) -> Release:
        wheels = {
            f"{wheel.pypi}-{machine}.whl": wheel.source(machine) for wheel in self.wheels for machine in wheel.digests
        }
        libc = {name: source for machine in glibc.LOADERS for name, source in glibc.packages(machine).items()}
        sources: Mapping[str, Source] = {**wheels, _TOKENIZER: TOKENIZER.sources["source.tar.gz"], **libc}
        return Release(self.wheels[0].version, self.commit, self.date, sources)


class WheelFramework(Framework):
    """Such an engine behind the seam of frameworks."""

    weights: Weights | None = LLAMA.weights
    scorer: Scorer | None = LogitsScorer()

    def __init__(self, engine: WheelEngine) -> None:
        self.engine, self.kind = engine, engine.kind
        release = engine.release()
        self._releases = {release.name: release}

    def releases(self) -> Mapping[str, Release]:
        return self._releases

    def quantizations(self) -> Mapping[str, float]:
        return {name: scheme.bits for name, scheme in self.engine.schemes.items()}

    # -- what is built --------------------------------------------------------------------------------------------

    def levels(self) -> Collection[str]:
        return tuple(variant.level for variant in self.engine.variants)

    def check_options(self, options: Any, release: str | None, targets: Collection[str]) -> Iterator[OptionProblem]:
        """Levels that nobody knows, and sources that no recipe reads."""
        if release is None:
            message = f"{self.kind} is taken from wheels of releases that it knows: {', '.join(self.releases())}"
            yield OptionProblem((), message, "name one by 'release'")
        for i, level in enumerate(options.isas):
            if level not in self.levels():
                message = f"unknown CPU level of {self.kind} {level!r}"
                yield OptionProblem(("isas", i), message, value=level, known=self.levels())

    def variant(self, options: Any, release: Release, device: DeviceFacts, level: str = AUTO) -> Variant | Skip:
        arch = device.arch.lower()
        offered = [each for each in self.engine.variants if each.machine == _ALIASES.get(arch, arch)]
        if not offered:
            return Skip(SkipKind.variant, f"it has no build for {device.arch}")
        named = [each for each in offered if level in (AUTO, each.level)]
        if not named:
            return Skip(SkipKind.variant, f"it has no CPU level {level} for {device.arch}")
        found = next((each for each in named if not each.missing(device.features)), None)
        if found is not None:
            return found
        least = named[-1]
        missing = ", ".join(least.missing(device.features))
        return Skip(SkipKind.variant, f"the CPU lacks {missing}, which {least.level} needs")

    def reference(self, release: Release) -> tuple[Framework, Release]:
        """llama.cpp's, whose programs are of one CPU level; libraries in wheels choose their code by the CPU."""
        return LLAMA, TOKENIZER

    def extra_variants(self, options: Any, release: Release) -> Sequence[Variant]:
        return tuple(variant for variant in self.engine.variants if variant.level in options.isas)

    def tool_variant(self, purpose: Purpose) -> Variant:
        return LLAMA.tool_variant(purpose)

    def recipe(self, options: Any, release: Release, variant: Variant, purpose: Purpose) -> RecipeSource:
        """Runner, sampler and agent with the libraries and their C library; llama.cpp's for what makes models."""
        if purpose != RUN:
            return LLAMA.recipe(LlamaOptions(), TOKENIZER, variant, purpose)
        engine, machine = self.engine, variant.machine
        return RecipeSource(
            name=f"{self.kind}/{release.name}/{purpose}/{variant.name}",
            folders={
                "": resources.images() / "prebuilt",
                "engine": resources.images() / self.kind / "engine",
                "runner": resources.runner(),
                "vocabulary": resources.images() / "vocabulary",
            },
            variables={
                "framework": self.kind,
                "title": engine.title,
                "release": release.name,
                "commit": release.commit,
                "isa": variant.level,
                "triple": variant.triple,
                "libc": variant.libc,
                "machine": machine,
                "loader": glibc.LOADERS[machine],
                "oldest_libc": glibc.OLDEST,
                "libc_libraries": glibc.LIBRARIES,
                "vocabulary": TOKENIZER.name,
                "wheels": {f"{wheel.pypi}.whl": wheel.contents(machine) for wheel in engine.wheels},
            },
            inputs={
                **{f"{wheel.pypi}.whl": release.sources[f"{wheel.pypi}-{machine}.whl"] for wheel in engine.wheels},
                _TOKENIZER: release.sources[_TOKENIZER],
                **glibc.packages(machine),
            },
            triple=f"{machine}-linux-musl",  # what the compiler has ready; what it compiles for glibc it gets ready itself
            phases=("configure", "compile", "install"),
            labels=engine.labels,
        )

    # -- models ---------------------------------------------------------------------------------------------------

    def model_steps(
        self, source: Source, quantization: str, release: Release, variant: Variant
    ) -> Sequence[ModelStep] | Skip:
        """What llama.cpp makes of the source, converted."""
        if isinstance(source, SyntheticSource):
            header, known = header_of(source.shape), self.engine.architectures
            why = llama.refusal(header, known, as_is=quantization == AS_IS)
            why = why or llama.misfit(header, whole=self.engine.whole)
            if why is not None:
                return Skip(SkipKind.model, why)
        scheme = self.engine.schemes[quantization]
        steps = LLAMA.model_steps(source, scheme.begin, TOKENIZER, variant)
        return steps if isinstance(steps, Skip) else [*steps, *scheme.steps]

    def parameter_count(self, path: Path) -> int | None:
        return facts_of(path, self.engine)["parameters"] if path.is_dir() else gguf.parameters(path)

    def check_model(self, path: Path) -> None:
        if path.is_dir():
            facts_of(path, self.engine)
        else:
            gguf.check(path)

    def check_checkpoint(self, files: Mapping[str, Path]) -> None:
        LLAMA.check_checkpoint(files)

    def name_refusal(self, name: str) -> str | None:
        return LLAMA.name_refusal(name)

    def look(
        self, options: Any, model: Path | Mapping[str, Path], release: Release, template: ChatTemplate | None = None
    ) -> Look:
        """What llama.cpp's tools make of it, and whether the result can be converted."""
        found = LLAMA.look(LlamaOptions(), model, TOKENIZER, template)
        if found.refusal is not None:
            return found
        known = self.engine.architectures
        if not isinstance(model, Path) and not split.is_split(model):
            kind = checkpoints.architecture(model)
            return found if kind in known else Look(llama.unknown(kind, known), context=found.context)
        header = split.header(model)
        why = llama.refusal(header, known) or llama.misfit(header, whole=self.engine.whole)
        if why is not None:
            return Look(why, context=found.context)
        kept = llama.refusal(header, known, as_is=True)
        return found if kept is None else replace(found, unmade={AS_IS: kept})

    def describe(self, model: Path, release: str) -> str | None:
        return None if model.is_dir() else gguf.describe(model)

    def pinned(self, options: Any) -> Mapping[str, Any]:
        """Nothing: all options are the runner's."""
        return {}


def conversion(name: str, convert: Callable[[Path, Path], None]) -> ModelStep:
    """The step that makes a folder of a GGUF file; the name holds a version of the code."""

    def run(source: Path, destination: Path) -> bool:
        convert(source, destination)
        return True

    return ModelStep(name, output="folder", run=run)
