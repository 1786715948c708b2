"""Recipe `prebuilt`: a signed app that somebody has built, pinned by digest, checked to be what it says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meltrepro.build.log import BuildLog, writing_below
from meltrepro.build.model import Recipe
from meltrepro.errors import BuildError
from meltrepro.plan.identity import canonical
from meltrepro.steps import Sink, step
from meltrepro.targets.ios.app_package import AppFacts, check_app
from meltrepro.targets.ios.options import UNPROVEN


class Prebuilt:
    """Builds nothing."""

    name = "prebuilt"

    def version(self) -> str:
        """What provenance says of how the app was made: nobody here knows."""
        return "prebuilt (by whoever signed it)"

    def build(self, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False) -> Mapping[str, str]:
        """Check the package among the inputs and lay it into the bundle; raises `BuildError`."""
        package = recipe.inputs["app.ipa"]
        with step(sink, "build", recipe.name), BuildLog(log, recipe.name, sink) as build_log:
            facts = check_app(package, wanted(recipe)["app"], f"{recipe.name}: app.ipa")
            build_log.write(f"{facts.app} {facts.version}: {facts.executable} has sha256 {facts.executable_sha256}\n")
            lay(recipe, package, facts, {}, out)
        return {}


def wanted(recipe: Recipe) -> dict[str, Any]:
    """What the parameters of an app's recipe ask for (app_recipe.py)."""
    parameters: dict[str, Any] = json.loads(recipe.files["parameters.json"])
    return parameters


def lay(recipe: Recipe, package: Path, facts: AppFacts, tools: dict[str, str], out: Path) -> None:
    """Make a bundle of a checked package; `tools` are the versions of what made it, as far as they are known."""
    parameters = wanted(recipe)
    bundle = {
        "format": 1,
        "framework": recipe.name.partition("/")[0],
        "triple": recipe.triple,
        "isa": "ios_arm64",
        **{key: parameters[key] for key in ("release", "commit", "app")},
        "maker": recipe.maker,
        "tools_of_maker": tools,
        "executable_sha256": facts.executable_sha256,
        "version": facts.version,
        "proof": UNPROVEN,
    }
    if not package.is_file():
        raise BuildError(f"{recipe.name}: its package is gone: {package}")
    with writing_below(out):
        (out / "app").mkdir()
        shutil.copyfile(package, out / "app" / "melt-runner.ipa")
        (out / "app" / "melt-runner.ipa").chmod(0o644)
        (out / "bundle.json").write_bytes(canonical(bundle) + b"\n")
