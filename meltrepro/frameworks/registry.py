"""The framework modules there are: a lazy table, open to other packages.

A package adds its own with an entry point in the group `meltrepro.frameworks`, named as the framework is in manifests.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from meltrepro.build.framework import FrameworkModule
from meltrepro.errors import RecordError, UsageError
from meltrepro.frameworks.base import Scorer
from meltrepro.manifest.chat_templates import TEMPLATES
from meltrepro.plan.model import Catalog

_BUILT_IN = {"llama.cpp": "meltrepro.frameworks.llamacpp.module:LlamaCpp"}


def modules() -> Mapping[str, FrameworkModule]:
    """Every framework module by kind; raises `UsageError` for an entry point that cannot be loaded."""
    table = dict(_BUILT_IN)
    table |= {point.name: point.value for point in entry_points(group="meltrepro.frameworks")}
    return {kind: _load(kind, where) for kind, where in table.items()}


def catalog(modules: Mapping[str, FrameworkModule]) -> Catalog:
    """What planning needs to know of them."""
    return Catalog({kind: module.info() for kind, module in modules.items()}, frozenset(TEMPLATES))


@cache
def scorer_of(kind: str) -> Scorer:
    """What scores the models of a kind of framework; raises `RecordError` where nothing here does."""
    scorer: Scorer | None = getattr(modules().get(kind), "scorer", None)
    if scorer is None:
        raise RecordError(
            f"nothing here scores models of framework {kind!r}", hint="install the package that brings it"
        )
    return scorer


def _load(kind: str, where: str) -> FrameworkModule:
    module, _, name = where.partition(":")
    try:
        loaded: FrameworkModule = getattr(import_module(module), name)()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"framework {kind!r} cannot be loaded from {where}: {error}") from error
    return loaded
