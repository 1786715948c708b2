"""What building asked of a framework before `frameworks.base`; goes away once nothing is left that asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from meltrepro.build.model import ModelRecipe, RecipeSource
from meltrepro.frameworks.base import Scorer
from meltrepro.plan.model import BundleNode, FrameworkInfo, ModelNode, Release


class FrameworkModule(Protocol):
    """What building needs of a framework; `meltrepro.frameworks` has the implementations."""

    scorer: Scorer | None

    def info(self) -> FrameworkInfo:
        """What the framework offers."""
        ...

    def bundle_recipe(self, node: BundleNode) -> RecipeSource:
        """The recipe that builds a bundle."""
        ...

    def model_recipe(self, node: ModelNode, release: Release) -> ModelRecipe:
        """How a model is made from its source for one release."""
        ...

    def convert(self, conversion: str, source: Path, destination: Path) -> bool:
        """Rewrite a model file on this machine; `False` where it needs nothing, and nothing was written."""
        ...

    def check_model(self, path: Path) -> None:
        """Raise `ModelError` where a file is no model that the framework can load."""
        ...

    def check_checkpoint(self, files: Mapping[str, Path]) -> None:
        """Raise `ModelError` where the files of a checkpoint, by name, are damaged or of a kind that is not converted."""
        ...
