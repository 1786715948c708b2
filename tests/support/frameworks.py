"""Frameworks for tests of what asks them: one that is made up, and nodes of the real one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, JsonValue

from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import (
    AS_IS,
    AUTO,
    RUN,
    Framework,
    ModelStep,
    OptionProblem,
    Release,
    Scorer,
    Skip,
    SkipKind,
    Variant,
    Weights,
)
from meltrepro.frameworks.llamacpp.module import FRAMEWORK as LLAMA_CPP
from meltrepro.frameworks.llamacpp.options import Options
from meltrepro.frameworks.llamacpp.variants import LEVELS, on_cpu
from meltrepro.manifest.base import Name, Strict
from meltrepro.manifest.sources import PypiSource, Source
from meltrepro.plan.model import BundleNode, ModelNode
from meltrepro.targets.base import DeviceFacts


def cpu(name: str) -> Variant:
    """A level of llama.cpp with static musl."""
    return on_cpu(LEVELS[name])


def bundle(
    variant: Variant | str, release: str = "2026-10-01", purpose: str = RUN, *, name: str = "f", **options: Any
) -> BundleNode:
    """A bundle of llama.cpp."""
    made = cpu(variant) if isinstance(variant, str) else variant
    known = LLAMA_CPP.releases()[release]
    recipe = LLAMA_CPP.recipe(Options.model_validate(options), known, made, purpose)
    return BundleNode(name, "llama.cpp", known, made, purpose, recipe)


def model(source: Source, quantization: str, release: str = "2026-10-01", *, name: str = "f") -> ModelNode:
    """A model `m` of llama.cpp."""
    steps = LLAMA_CPP.model_steps(source, quantization, LLAMA_CPP.releases()[release], cpu("x86_64_v3"))
    assert not isinstance(steps, Skip), steps.reason
    return ModelNode("m", quantization, name, source, "llama.cpp", tuple(steps))


class FakeOptions(Strict):
    isas: list[Name] = Field(default_factory=list)


SOURCE = PypiSource(pypi="source", version="1", digest="a" * 64)


@dataclass(frozen=True)
class Fake(Framework):
    """A framework whose variants are given, best first; its models are quantized by a bundle of the first."""

    kind: str
    variants: tuple[Variant, ...]
    bits: Mapping[str, float]
    scorer: Scorer | None = None
    weights: Weights | None = None
    known: Mapping[str, Release] = field(
        default_factory=lambda: {"2024-02-27": Release("2024-02-27", "c" * 40, "2024-02-27", {"source.tar.gz": SOURCE})}
    )
    options: type[BaseModel] = FakeOptions

    def releases(self) -> Mapping[str, Release]:
        return self.known

    def quantizations(self) -> Mapping[str, float]:
        return {**self.bits, AS_IS: 16.0}

    def levels(self) -> Collection[str]:
        return [each.level for each in self.variants]

    def check_options(
        self, options: FakeOptions, release: str | None, targets: Collection[str]
    ) -> Iterator[OptionProblem]:
        for i, level in enumerate(options.isas):
            if level not in self.levels():
                yield OptionProblem(("isas", i), f"unknown CPU level {level!r}", value=level, known=self.levels())

    def variant(self, options: FakeOptions, release: Release, device: DeviceFacts, level: str = AUTO) -> Variant | Skip:
        for each in self.variants:
            if level in (AUTO, each.level) and each.machine == device.arch and not each.missing(device.features):
                return each
        return Skip(SkipKind.variant, f"it has no build for {device.arch}")

    def extra_variants(self, options: FakeOptions, release: Release) -> Sequence[Variant]:
        return [each for level in options.isas for each in self.variants if each.level == level]

    def tool_variant(self, purpose: str) -> Variant:
        return self.variants[0]

    def recipe(self, options: FakeOptions, release: Release, variant: Variant, purpose: str) -> RecipeSource:
        name = f"{self.kind}/{release.name}/{purpose}/{variant.name}"
        return RecipeSource(name, {}, {}, release.sources, variant.triple)

    def model_steps(
        self, source: Source, quantization: str, release: Release, variant: Variant
    ) -> Sequence[ModelStep] | Skip:
        return [] if quantization == AS_IS else [ModelStep("quantize", "quantize", ("/bundle/bin/quantize",))]

    def check_model(self, path: Path) -> None:
        return None

    def pinned(self, options: FakeOptions) -> Mapping[str, JsonValue]:
        return {}
