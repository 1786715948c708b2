"""Converters of checkpoints as builds have them, for tests that call them by themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from meltrepro import settings
from meltrepro.build.model import Artifact, Recipe
from meltrepro.build.pipeline import Builder
from meltrepro.build.tool_run import run_tool
from meltrepro.build.toolchain import USUAL, Conditions
from meltrepro.build.tools import EngineName, Tools
from meltrepro.frameworks.llamacpp import convert as llamacpp_convert
from meltrepro.manifest.lock import Lock
from meltrepro.plan.model import BundleNode, Costs, Plan
from meltrepro.steps import silent
from tests.support.frameworks import bundle
from tests.support.manifests import GOOD, load

OLD, NEW = "2024-02-27", "2026-10-01"
Converters = Mapping[str, tuple[Artifact, Recipe]]
"""The converter of each release and its recipe."""


def tools(engine: EngineName, conditions: Conditions = USUAL) -> Tools:
    return Tools(settings.load(), silent, Lock(lock=1, manifest="0" * 64), engine, conditions=conditions)


def node(release: str) -> BundleNode:
    return bundle(llamacpp_convert.VARIANT, release, "convert", name="llama.cpp")


def build(folder: Path) -> Converters:
    """All of them, built without Docker where the store has none."""
    manifest = load(folder, GOOD).manifest
    made = {}
    for release in (OLD, NEW):
        builder = Builder(tools("process"))
        built = builder.build(Plan(manifest, (), (), (node(release),), (), Costs(None, None, {})))
        made[release] = built.artifacts[node(release).id], built.recipes[node(release).id]
    return made


def convert(made: Tools, converter: Artifact, checkpoint: Path, folder: Path, kind: str = "f16") -> Path:
    """Convert as a build does; the files are seen one by one, as they are in the store."""
    folder.mkdir()
    files = {f"/source/{path.name}": path for path in checkpoint.iterdir()}
    command = llamacpp_convert.command(kind)
    return run_tool(made.engine(), converter, command, files, folder, folder / "log", "converting it")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
