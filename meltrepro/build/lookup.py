"""Which artifacts of a plan the store has already, found out without asking anybody: for `meltrepro plan`.

An artifact is found by its key, as a build finds it; no lock is needed where every input is known without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meltrepro.build.framework import FrameworkModule
from meltrepro.build.identity import bundle_key, converted_key, logits_key, model_key
from meltrepro.build.pins import Pins
from meltrepro.build.render import render_recipe
from meltrepro.plan.model import BundleNode, LogitsNode, ModelNode, Plan


@dataclass(frozen=True)
class Found:
    """What is known of the artifacts of a plan."""

    stored: Mapping[str, int]
    """Node id -> bytes, of artifacts that the store has."""
    unknown: frozenset[str]
    """Ids of nodes whose key hangs on a source that nobody has looked up: they may be there or not."""


@dataclass
class Lookup:
    """Looks up the nodes of one plan."""

    modules: Mapping[str, FrameworkModule]
    pins: Pins
    _digests: dict[str, str] = field(default_factory=dict)
    _unknown: set[str] = field(default_factory=set)

    def find(self, plan: Plan) -> Found:
        """Look up every node; raises what rendering a recipe raises."""
        by_use = {(node.purpose, node.framework_name): node for node in plan.bundles}
        for bundle in plan.bundles:
            self._note(bundle.id, self._bundle(bundle))
        for model in plan.models:
            name = model.framework_name
            run = by_use["run", name]
            self._note(model.id, self._model(model, run, by_use.get(("quantize", name)), by_use.get(("convert", name))))
        for logits in plan.logits:
            self._note(logits.id, self._logits(logits))
        sizes = {name: self.pins.store.path(digest).stat().st_size for name, digest in self._digests.items()}
        return Found(sizes, frozenset(self._unknown))

    def _note(self, name: str, key: str | None) -> None:
        """`None` for a key that hangs on something unknown, the empty text for one of something that must be built first."""
        if key is None:
            self._unknown.add(name)
            return
        ref = self.pins.store.get_ref("artifacts", key) if key else None
        if ref is not None and self.pins.store.has(ref["digest"]):
            self._digests[name] = ref["digest"]

    def _bundle(self, node: BundleNode) -> str | None:
        source = self.modules[node.kind].bundle_recipe(node)
        digests = {name: self.pins.known(item) for name, item in source.inputs.items()}
        if source.interpreter:
            packages = self.pins.known_interpreter()
            if packages is None:
                return None
            digests |= {f"{package.name}.deb": package.digest for package in packages}
        whole = {name: digest for name, digest in digests.items() if digest is not None}
        if len(whole) < len(digests):
            return None
        paths = {name: self.pins.store.path(digest) for name, digest in whole.items()}
        return bundle_key(render_recipe(source, paths, whole))

    def _model(
        self, node: ModelNode, run: BundleNode, quantizer: BundleNode | None, convert: BundleNode | None
    ) -> str | None:
        recipe = self.modules[run.kind].model_recipe(node, run.release)
        tools = [each.id for each, used in ((quantizer, recipe.command), (convert, recipe.converter)) if each and used]
        origin = self.pins.known(node.source)
        if origin is None or any(name in self._unknown for name in tools):
            return None
        if any(name not in self._digests for name in tools):
            return ""
        if convert is not None and recipe.converter:
            origin = converted_key(origin, self._digests[convert.id], recipe)
        return model_key(origin, self._digests[quantizer.id] if quantizer and recipe.command else None, recipe)

    def _logits(self, node: LogitsNode) -> str | None:
        text = self.pins.known(node.workload.text)
        needed = (node.model.id, node.bundle.id)
        if text is None or any(name in self._unknown for name in needed):
            return None
        if any(name not in self._digests for name in needed):
            return ""
        scorer = self.modules[node.bundle.kind].scorer
        assert scorer is not None, node.id
        command = scorer.logits_command(node.workload, node.bundle.release.name)
        return logits_key(text, self._digests[node.model.id], self._digests[node.bundle.id], command)
