"""A toy framework: its model is a text, of which it has counted which byte follows which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from meltrepro import resources
from meltrepro.build.model import RecipeSource
from meltrepro.errors import ModelError
from meltrepro.frameworks.base import AS_IS, AUTO, Framework, ModelStep, Release, Skip, SkipKind, Variant
from meltrepro.manifest.sources import Source
from meltrepro.targets.base import DeviceFacts

RELEASES = {"1.0": Release("1.0", commit="70" * 20, date="2026-01-01", sources={})}
"""Its source is a part of the recipe, so that there is nothing to fetch; others have archives here, by digest."""
RECIPE = files(__package__) / "recipe"
VARIANTS = {
    "x86_64": Variant("x86_64", level="x86_64", triple="x86_64-linux-musl", libc="musl"),
    "aarch64": Variant("aarch64", level="aarch64", triple="aarch64-linux-musl", libc="musl"),
}


class Options(BaseModel):
    """What a manifest may say in `frameworks.NAME.options`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    smoothing: int = Field(1, ge=1, le=1000, description="How often every pair of bytes counts as seen beforehand.")


class Toy(Framework):
    kind = "toy"
    options = Options

    def releases(self) -> Mapping[str, Release]:
        return RELEASES

    def quantizations(self) -> Mapping[str, float]:
        return {AS_IS: 8.0, "half": 4.0}

    def levels(self) -> Sequence[str]:
        return list(VARIANTS)

    def variant(self, options: Any, release: Release, device: DeviceFacts, level: str = AUTO) -> Variant | Skip:
        if device.arch not in VARIANTS:
            return Skip(SkipKind.variant, f"toy has no build for {device.arch}")
        if level not in (AUTO, device.arch):
            return Skip(SkipKind.variant, f"toy has no CPU level {level} for {device.arch}")
        return VARIANTS[device.arch]

    def recipe(self, options: Any, release: Release, variant: Variant, purpose: str) -> RecipeSource:
        return RecipeSource(
            name=f"toy/{release.name}/{purpose}/{variant.name}",
            folders={"": RECIPE, "runner": resources.runner()},
            variables={
                "release": release.name,
                "commit": release.commit,
                "isa": variant.name,
                "triple": variant.triple,
            },
            inputs={},
            triple=variant.triple,
        )

    def model_steps(
        self, source: Source, quantization: str, release: Release, variant: Variant
    ) -> Sequence[ModelStep] | Skip:
        return [ModelStep("halve-1", run=halve)] if quantization == "half" else []

    def check_model(self, path: Path) -> None:
        text = path.read_bytes()
        if len(text) < 2 or b"\0" in text or text.lstrip().startswith(b"<"):
            raise ModelError("it is no text", hint="a toy model is a text file of two bytes or more")

    def request(self, options: Any, variant: Variant) -> Mapping[str, JsonValue]:
        return {"smoothing": options.smoothing}


def halve(source: Path, destination: Path) -> bool:
    """Keep the first half of a text."""
    text = source.read_bytes()
    destination.write_bytes(text[: max(2, len(text) // 2)])
    return True


FRAMEWORK = Toy()
