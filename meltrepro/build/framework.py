"""What building asked of a framework before `frameworks.base`; goes away once nothing is left that asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from meltrepro.build.model import RecipeSource
from meltrepro.frameworks.base import ModelStep, Scorer, Skip
from meltrepro.manifest.sources import Source
from meltrepro.plan.model import BundleNode, FrameworkInfo, Release


class FrameworkModule(Protocol):
    """What building needs of a framework; `meltrepro.frameworks` has the implementations."""

    scorer: Scorer | None

    def info(self) -> FrameworkInfo:
        """What the framework offers."""
        ...

    def bundle_recipe(self, node: BundleNode) -> RecipeSource:
        """The recipe that builds a bundle."""
        ...

    def model_steps(self, source: Source, quantization: str, release: Release) -> Sequence[ModelStep] | Skip:
        """How a model is made from its source; no step at all where the source is the model."""
        ...

    def check_model(self, path: Path) -> None:
        """Raise `ModelError` where a file is no model that the framework can load."""
        ...

    def check_checkpoint(self, files: Mapping[str, Path]) -> None:
        """Raise `ModelError` where the files of a checkpoint, by name, are damaged or of a kind that is not converted."""
        ...
