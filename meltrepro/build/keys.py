"""What an artifact follows from, and its key: the digest of everything that can change its bytes, and of nothing else.

Builds make artifacts by their keys, plans look them up by the same ones. The base image is left out on purpose: static
binaries do not depend on it, and `meltrepro verify` proves it. So are the Dockerfile (it only places files) and the number
of jobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from meltrepro.build import toolchain
from meltrepro.build.model import Interpreter, Package, Recipe
from meltrepro.build.pins import Pins
from meltrepro.build.render import render_recipe
from meltrepro.frameworks.base import ModelStep, framework
from meltrepro.manifest.sources import Source
from meltrepro.plan.identity import digest_of
from meltrepro.plan.model import BundleNode, LogitsNode, ModelNode, Plan
from meltrepro.record.ids import RUN
from meltrepro.store.cas import Store

T = TypeVar("T")


def known(value: T | None) -> T:
    """What cannot be missing where every source is pinned."""
    assert value is not None
    return value


def recipe_digest(recipe: Recipe) -> str:
    """Digest of the rendered files and of how they are run."""
    files = {name: hashlib.sha256(content).hexdigest() for name, content in recipe.files.items()}
    return digest_of({"files": files, "phases": list(recipe.phases), "triple": recipe.triple})


def bundle_key(recipe: Recipe) -> str:
    """Recipe, inputs, toolchain, environment. Of an app the recipe names its toolchain."""
    if not recipe.by_engine:
        inputs = dict(recipe.input_digests)
        return digest_of({"kind": "app", "maker": recipe.maker, "recipe": recipe_digest(recipe), "inputs": inputs})
    return digest_of(
        {
            "kind": "bundle",
            "recipe": recipe_digest(recipe),
            "inputs": dict(recipe.input_digests),
            "toolchain": toolchain.identity(),
            "environment": toolchain.environment(recipe.triple),
        }
    )


def model_key(source: str, steps: Sequence[tuple[ModelStep, str]] = ()) -> str:
    """Source and steps, each with the digest of the bundle that runs it, or the kind of framework whose function it is.

    A shared step's result has the key of the chain that ends with it.
    """
    key = digest_of({"kind": "model", "source": source})
    for step, tool in steps:
        made = {"step": step.name, "command": list(step.command), "output": step.output, "tool": tool}
        key = digest_of({"kind": "model", "from": key, **made})
    return key


def logits_key(text: str, model: str, bundle: str, command: Sequence[str]) -> str:
    """Text, model, scorer's bundle (digests), command."""
    return digest_of({"kind": "logits", "text": text, "model": model, "bundle": bundle, "command": list(command)})


@dataclass(frozen=True)
class Keys:
    """The recipes, tools and keys of the nodes of a plan.

    With `None` for a digest that nobody knows, so is every key that hangs on it.
    """

    store: Store
    digest: Callable[[Source], str | None]
    packages: Callable[[Interpreter], Sequence[Package] | None]
    """Those of an interpreter that tools run on, by its kind."""

    def recipe(self, node: BundleNode) -> Recipe | None:
        """The rendered recipe of a bundle, with the places of inputs that the store already has."""
        source = node.recipe
        digests = {name: self.digest(item) for name, item in source.inputs.items()}
        packages = tuple(self.packages(source.interpreter) or ()) if source.interpreter else ()
        if source.interpreter and not packages:
            return None
        digests |= {f"{package.name}.deb": package.digest for package in packages}
        whole = {name: digest for name, digest in digests.items() if digest is not None}
        if len(whole) < len(digests):
            return None
        recipe = render_recipe(source, {name: self.store.path(digest) for name, digest in whole.items()}, whole)
        return replace(recipe, packages=packages)

    def tools(self, node: ModelNode, plan: Plan) -> tuple[BundleNode | None, ...]:
        """The bundle that runs each step of a model."""
        bundles: dict[str, BundleNode] = {
            each.purpose: each
            for each in plan.bundles
            if each.framework_name == node.framework_name and each.purpose != RUN
        }
        return tuple(bundles[step.purpose] if step.purpose is not None else None for step in node.steps)

    def model(
        self, node: ModelNode, tools: Sequence[BundleNode | None], made: Mapping[str, str]
    ) -> tuple[str, ...] | None:
        """The keys of a model's source and of what each of its steps gives; `made` are digests of bundles by node id."""
        source = self.digest(node.source)
        if source is None:
            return None
        steps = [(step, made[tool.id] if tool else node.kind) for step, tool in zip(node.steps, tools, strict=True)]
        return tuple(model_key(source, steps[:number]) for number in range(len(steps) + 1))

    def command(self, node: LogitsNode) -> tuple[str, ...]:
        """What makes logits."""
        return known(framework(node.bundle.kind).scorer).logits_command(node.workload, node.bundle.release.name)

    def logits(self, node: LogitsNode, made: Mapping[str, str]) -> str | None:
        """The key of logits; `made` are digests of models and bundles by node id."""
        text = self.digest(node.workload.text)
        if text is None:
            return None
        return logits_key(text, made[node.model.id], made[node.bundle.id], self.command(node))


@dataclass(frozen=True)
class Found:
    """What is known of the artifacts of a plan."""

    stored: Mapping[str, int]
    """Node id -> bytes, of artifacts that the store has."""
    unknown: frozenset[str]
    """Ids of nodes whose key hangs on a source that nobody has looked up: they may be there or not."""


def look_up(plan: Plan, pins: Pins) -> Found:
    """Which artifacts of a plan the store has, without asking anybody; raises what rendering a recipe raises."""
    keys = Keys(pins.store, pins.known, pins.known_interpreter)
    found = _Looking(pins.store)
    for bundle in plan.bundles:
        recipe = keys.recipe(bundle)
        found.note(bundle.id, bundle_key(recipe) if recipe is not None else None)
    for model in plan.models:
        tools = keys.tools(model, plan)
        if found.has(model.id, [tool.id for tool in tools if tool is not None]):
            made = keys.model(model, tools, found.digests)
            found.note(model.id, made[-1] if made is not None else None)
    for logits in plan.logits:
        if found.has(logits.id, [logits.model.id, logits.bundle.id]):
            found.note(logits.id, keys.logits(logits, found.digests))
    sizes = {name: pins.store.size(digest) for name, digest in found.digests.items()}
    return Found(sizes, frozenset(found.unknown))


@dataclass
class _Looking:
    store: Store
    digests: dict[str, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    def note(self, name: str, key: str | None) -> None:
        if key is None:
            self.unknown.add(name)
        elif (digest := self.store.result("artifacts", key)) is not None:
            self.digests[name] = digest

    def has(self, name: str, needed: Sequence[str]) -> bool:
        """Whether all is here that something is made by, so that its key can be told."""
        if any(each in self.unknown for each in needed):
            self.unknown.add(name)
        return all(each in self.digests for each in needed)
