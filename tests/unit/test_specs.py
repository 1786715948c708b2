"""The manifests that come with the project: valid, and with locks that belong to them and to today's recipes.

Where the last test fails after a recipe changed, build anew and check the locks in:
`meltrepro build specs/X.yaml --set 'frameworks.F.options.isas=[x86_64_v3,armv8_2]'`, then `meltrepro lock specs/X.yaml`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.build import toolchain
from meltrepro.build.keys import bundle_key, model_key, recipe_digest
from meltrepro.build.model import Recipe
from meltrepro.build.render import render_recipe
from meltrepro.frameworks.base import AS_IS, framework
from meltrepro.frameworks.llamacpp.module import LlamaCpp
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.lock import Lock, load_lock, lock_path
from meltrepro.manifest.pins import manifest_digest, prompt_digests
from meltrepro.store.source import key_of
from tests.support.frameworks import bundle
from tests.support.frameworks import model as model_node

SPECS = Path(__file__).parents[2] / "specs"


def _locked(*patterns: str) -> list[Path]:
    """Those whose locks are here: of manifests of several engines, which are built of whatever engines there are, they are not."""
    found = {path for pattern in patterns for path in SPECS.glob(pattern)}
    return sorted(p for p in found if not p.name.endswith(".lock.yaml") and not p.name.startswith("engines"))


BUILT = _locked("*.yaml", "paper/accuracy.yaml", "paper/smoke/*.yaml")
"""The manifests whose artifacts are in their locks."""
LARGE = _locked("paper/laptop/*.yaml", "paper/full/*.yaml")
"""Those whose artifacts take hours: their locks pin what these are made of."""
LEVELS = {"x86_64_v3", "armv8_2"}
"""Every framework's bundle for these is in its lock, whatever CPU wrote it."""


def name_of(path: Path) -> str:
    return str(path.relative_to(SPECS).with_suffix(""))


def lock_of(spec: Path) -> Lock:
    lock = load_lock(lock_path(spec))
    assert lock is not None, f"{spec.name} has no lock"
    return lock


def recipe_of(framework: str, release: str, level: str, purpose: str) -> Recipe:
    source = bundle(level, release, purpose, name=framework).recipe
    digests = {name: item.digest or "" for name, item in source.inputs.items()}
    return render_recipe(source, {}, digests)


@pytest.mark.parametrize("spec", [*BUILT, *LARGE], ids=name_of)
def test_a_lock_is_of_its_manifest_and_of_this_toolchain(spec: Path) -> None:
    lock = lock_of(spec)
    loaded = load_manifest(spec)
    assert lock.manifest == manifest_digest(loaded.manifest)
    assert lock.prompts == prompt_digests(loaded)
    assert lock.toolchain is not None and lock.toolchain.digest == toolchain.identity()
    assert lock.base is not None and len(lock.base.packages) > 30


@pytest.mark.parametrize("name", ["engines", "engines-1b"])
def test_engines_are_compared_on_schemes_that_each_offers(name: str) -> None:
    """Each quantization is offered by some engine, each engine offers one, and codes are given to more than one."""
    manifest = load_manifest(SPECS / f"{name}.yaml").manifest
    (model,) = manifest.models.values()
    offered = {
        name: framework(one.kind or name).quantizations().keys() & set(model.quantizations)
        for name, one in manifest.frameworks.items()
    }
    assert all(offered.values())
    assert set().union(*offered.values()) == set(model.quantizations)
    for codes in ("q8_0", "q4_0"):
        assert sum(codes in schemes for schemes in offered.values()) > 1


@pytest.mark.parametrize("spec", LARGE, ids=name_of)
def test_a_lock_pins_todays_recipes(spec: Path) -> None:
    lock = lock_of(spec)
    assert lock.recipes and lock.sources
    for name in lock.recipes:
        kind, release, purpose, level = name.split("/")
        assert lock.recipes[name] == recipe_digest(recipe_of(kind, release, level, purpose))


@pytest.mark.parametrize("spec", BUILT, ids=name_of)
def test_a_lock_has_every_artifact_made_by_todays_recipes(spec: Path) -> None:
    lock = lock_of(spec)
    manifest = load_manifest(spec).manifest
    tool = LlamaCpp().tool_variant("quantize").name
    for name, entry in manifest.frameworks.items():
        assert entry.release is not None
        levels = {artifact.split("/")[2] for artifact in lock.artifacts if artifact.startswith(f"{name}/run/")}
        assert levels >= LEVELS
        bundles = [*((level, "run") for level in levels), (tool, "quantize")]
        for level, purpose in bundles:
            recipe = recipe_of(name, entry.release, level, purpose)
            assert lock.recipes[recipe.name] == recipe_digest(recipe)
            assert lock.artifacts[f"{name}/{purpose}/{level}"].key == bundle_key(recipe)


@pytest.mark.parametrize("spec", BUILT, ids=name_of)
def test_a_lock_has_every_model_made_by_todays_steps(spec: Path) -> None:
    lock = lock_of(spec)
    manifest = load_manifest(spec).manifest
    tool = LlamaCpp().tool_variant("quantize").name
    for name, entry in manifest.frameworks.items():
        quantizer = lock.artifacts[f"{name}/quantize/{tool}"].digest
        for model_name, model in manifest.models.items():
            for quantization in model.quantizations:
                steps = model_node(model.source, quantization, entry.release or "").steps
                chain = [(step, quantizer if step.purpose else entry.kind) for step in steps]
                source = model.source.digest or lock.sources[key_of(model.source)].digest
                key = model_key(source, chain)
                artifact = lock.artifacts.get(f"{model_name}/{quantization}/{name}")
                if artifact is None and quantization == AS_IS:  # a cell of the paper's that fits no machine here
                    continue
                assert artifact is not None and artifact.key == key
