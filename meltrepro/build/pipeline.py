"""From a plan to artifacts: look up what exists, fetch and build what does not, and keep the lock true.

Nothing is contacted for what is already in the store: neither network nor engine. An artifact is looked up by the
digest of everything that goes into it; what comes out is checked against the lock, so that a build that is not
reproducible can never pass unnoticed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from meltrepro.build import interpreter
from meltrepro.build.attest import Making, attest
from meltrepro.build.causes import check_killed, check_room, writing_below
from meltrepro.build.framework import FrameworkModule
from meltrepro.build.identity import bundle_key, converted_key, logits_key, model_key, recipe_digest
from meltrepro.build.model import (
    Artifact,
    Engine,
    Execution,
    Maker,
    ModelRecipe,
    Recipe,
)
from meltrepro.build.render import render_recipe
from meltrepro.build.tools import Tools
from meltrepro.build.transform import plain_result, transform
from meltrepro.errors import BuildError, ModelError, VerifyError
from meltrepro.manifest.lock import LockedArtifact
from meltrepro.manifest.sources import Source
from meltrepro.plan.model import BundleNode, LogitsNode, ModelNode, Plan
from meltrepro.steps import Step, step
from meltrepro.store.source import key_of


@dataclass(frozen=True)
class Built:
    """Every artifact of a plan, by node id, and how each came to be."""

    artifacts: Mapping[str, Artifact]
    recipes: Mapping[str, Recipe]
    logs: Mapping[str, Path]
    """Logs of the builds that made the artifacts, now or earlier, as far as the store still has them."""
    reused: frozenset[str]


@dataclass
class Builder:
    """Builds the nodes of one plan against one lock."""

    tools: Tools
    modules: Mapping[str, FrameworkModule]
    rebuild: bool = False
    """Build even what the store has and leave what it and the lock know as it is; `replay.verify` compares the two."""
    recorded: bool = False
    """Take the very artifacts that the lock names where they are here, whatever today's recipes would make."""
    _made: dict[str, Maker] = field(default_factory=dict)
    _used: Engine | None = None
    _artifacts: dict[str, Artifact] = field(default_factory=dict)
    _recipes: dict[str, Recipe] = field(default_factory=dict)
    _logs: dict[str, Path] = field(default_factory=dict)
    _reused: set[str] = field(default_factory=set)

    def build(self, plan: Plan) -> Built:
        """Build or reuse every node of the plan. Raises the errors of fetching and building; rerun to go on."""
        runs = {node.framework_name: node for node in plan.bundles if node.purpose == "run"}
        quantizers = {node.framework_name: node for node in plan.bundles if node.purpose == "quantize"}
        converters = {node.framework_name: node for node in plan.bundles if node.purpose == "convert"}
        for bundle in plan.bundles:
            self._bundle(bundle)
        for model in plan.models:
            name = model.framework_name
            self._model(model, runs[name], quantizers.get(name), converters.get(name))
        for logits in plan.logits:
            self._logits(logits)
        if not self.rebuild:
            self.tools.pins.record(
                {name: LockedArtifact(key=a.key, digest=a.digest) for name, a in self._artifacts.items()},
                {recipe.name: recipe_digest(recipe) for recipe in self._recipes.values()},
            )
        return Built(
            artifacts=dict(self._artifacts),
            recipes=dict(self._recipes),
            logs={name: log for name, log in self._logs.items() if log.is_file()},
            reused=frozenset(self._reused),
        )

    def recipe_digests(self, plan: Plan) -> dict[str, str]:
        """The digest of every recipe of the plan by name, without building any."""
        return {recipe.name: recipe_digest(recipe) for recipe in map(self.recipe, plan.bundles)}

    # -- bundles --------------------------------------------------------------------------------------------------

    def recipe(self, node: BundleNode) -> Recipe:
        """The rendered recipe of a bundle, with the places of inputs that the store already has."""
        source = self.modules[node.kind].bundle_recipe(node)
        digests = {name: self._digest(item) for name, item in source.inputs.items()}
        if source.interpreter:
            digests |= {f"{package.name}.deb": package.digest for package in self.tools.pins.interpreter()}
        paths = {name: self.tools.store.path(digest) for name, digest in digests.items()}
        return render_recipe(source, paths, digests)

    def _bundle(self, node: BundleNode) -> None:
        recipe = self._recipes[node.id] = self.recipe(node)
        key = bundle_key(recipe)

        def make(scratch: Path) -> str:
            for item in node.sources.values():
                self.tools.fetcher.get(self._locked(item), self.tools.pins.base_dir)
            if node.purpose == "convert":
                interpreter.bring(self.tools.pins.interpreter(), self.tools.store, self.tools.sink)
            out, log = scratch / "bundle", self._log(node.id, key)
            with writing_below(scratch):
                out.mkdir()
            maker = self._made[node.id] = self.tools.maker(recipe)
            maker.build(recipe, out, log, self.tools.sink, fresh=self.rebuild)
            if not any(out.iterdir()):
                raise BuildError(f"building {recipe.name} left nothing behind", hint=f"log: {log}")
            self.tools.store.pack_tree(out, scratch / "bundle.tar", prefix="bundle")
            return self.tools.store.put_file(scratch / "bundle.tar", move=True)

        started = time.time_ns()
        # A signature holds its time, so that no two builds of a signed app have the same bytes.
        digest = self._resolve(node.id, key, make, unique=recipe.maker == "mac-ssh")
        file = self.tools.store.verify(digest)
        artifact = self._artifacts[node.id] = Artifact(
            id=node.id,
            kind="bundle",
            key=key,
            digest=digest,
            file=file,
            path=self.tools.store.unpack(digest) / "bundle",
            size=file.stat().st_size,
            platform=node.isa.triple.split("-")[0],
        )
        self._attest(artifact, node.sources, started, recipe=recipe)

    # -- models ---------------------------------------------------------------------------------------------------

    def _model(
        self, node: ModelNode, run: BundleNode, quantizer: BundleNode | None, convert: BundleNode | None
    ) -> None:
        module, node = self.modules[run.kind], replace(node, source=self._locked(node.source))
        recipe = module.model_recipe(node, run.release)
        source_digest = self._digest(node.source)
        origin = source_digest
        bundle = self._artifacts[quantizer.id] if quantizer and recipe.command else None
        converter = self._artifacts[convert.id] if convert and recipe.converter else None
        if converter is not None:
            origin = converted_key(source_digest, converter.digest, recipe)
        key = model_key(origin, bundle.digest if bundle else None, recipe)

        def make(scratch: Path) -> str:
            digest = source_digest
            if converter is not None:
                digest = self._converted(node, module, converter, recipe, origin, scratch)
            else:
                self.tools.fetcher.get(node.source, self.tools.pins.base_dir)
            source = original = self.tools.store.path(digest)
            with _about(node):
                module.check_model(source)
                if recipe.conversion:
                    with (
                        step(self.tools.sink, "convert", node.id, conversion=recipe.conversion),
                        writing_below(scratch),
                    ):
                        if module.convert(recipe.conversion, source, scratch / "converted"):
                            source = scratch / "converted"
            if bundle is not None:
                log = self._log(node.id, key)
                with step(self.tools.sink, "quantize", node.id):
                    source = transform(
                        self._engine(),
                        bundle,
                        recipe.command,
                        {"/source": source},
                        scratch,
                        log,
                        f"quantizing {node.id}",
                    )
            if source == original:
                return digest
            module.check_model(source)
            return self.tools.store.put_file(source, move=True)

        started = time.time_ns()
        digest = self._resolve(node.id, key, make)
        file = self.tools.store.verify(digest)
        artifact = self._artifacts[node.id] = Artifact(
            id=node.id, kind="model", key=key, digest=digest, file=file, path=file, size=file.stat().st_size
        )
        sources = {node.model_name: node.source}
        tools = tuple(tool for tool in (converter, bundle) if tool is not None)
        self._attest(artifact, sources, started, tools=tools, commands=(recipe.converter, recipe.command))

    def _converted(
        self,
        node: ModelNode,
        module: FrameworkModule,
        converter: Artifact,
        recipe: ModelRecipe,
        key: str,
        scratch: Path,
    ) -> str:
        """The digest of what the converter makes of a checkpoint; made once for all quantizations, and anew by a rebuild."""
        known = self.tools.store.get_ref("converted", key)
        if known is not None and self.tools.store.has(known["digest"]) and not self.rebuild:
            self.tools.store.verify(known["digest"])
            return str(known["digest"])
        self.tools.fetcher.get(node.source, self.tools.pins.base_dir)
        pinned = node.source.model_copy(update={"digest": self._digest(node.source)})
        files = {
            name: self.tools.fetcher.get(part, self.tools.pins.base_dir)
            for name, part in self.tools.fetcher.parts(pinned).items()
        }
        module.check_checkpoint(files)
        readonly = {f"/source/{name}": path for name, path in files.items()}
        log = self._log(f"{node.id}/convert", key)
        with step(self.tools.sink, "checkpoint.convert", node.id, files=len(files)):
            made = transform(
                self._engine(), converter, recipe.converter, readonly, scratch, log, f"converting {node.model_name}"
            )
        module.check_model(made)
        digest = self.tools.store.put_file(made, move=True)
        if not self.rebuild:
            self.tools.store.put_ref("converted", key, {"name": node.id, "digest": digest})
        return digest

    def _logits(self, node: LogitsNode) -> None:
        """Have the unquantized model write down what it expects of a text, for others to be compared with."""
        scorer = self.modules[node.bundle.kind].scorer
        assert scorer is not None, node.id
        command = scorer.logits_command(node.workload, node.bundle.release.name)
        text, model, bundle = (
            self._locked(node.workload.text),
            self._artifacts[node.model.id],
            self._artifacts[node.bundle.id],
        )
        key = logits_key(self._digest(text), model.digest, bundle.digest, command)

        def make(scratch: Path) -> str:
            source, log = self.tools.fetcher.get(text, self.tools.pins.base_dir), self._log(node.id, key)
            with writing_below(scratch):
                (scratch / "out").mkdir()
            with step(self.tools.sink, "logits", node.id):
                end = self._engine().execute(
                    Execution(
                        argv=command,
                        bundle=bundle,
                        readonly={"/model": model.path, "/text": source},
                        writable={"/out": scratch / "out"},
                        stdout=log,
                        stderr=log,
                    )
                )
            result = scratch / "out" / "logits"
            said = log.read_text(errors="replace")
            if end.status != 0 or not os.path.lexists(result):
                tail = "\n".join(line for line in said.splitlines()[-12:] if line.strip())
                check_room(scratch, tail)
                check_killed(end.status, f"making {node.id}", log)
                raise BuildError(f"making {node.id} ended with status {end.status}:\n{tail}", hint=f"log: {log}")
            plain_result(result, f"making {node.id}")
            try:
                scorer.check_logits(node.workload, result, said)
            except BuildError as error:
                check_room(scratch, said)
                raise BuildError(f"making {node.id}: {error.message}", hint=error.hint or f"log: {log}") from error
            return self.tools.store.put_file(result, move=True)

        started = time.time_ns()
        digest = self._resolve(node.id, key, make)
        file = self.tools.store.verify(digest)
        artifact = self._artifacts[node.id] = Artifact(
            id=node.id, kind="logits", key=key, digest=digest, file=file, path=file, size=file.stat().st_size
        )
        self._attest(artifact, {node.id: text}, started, tools=(bundle,), commands=(command,))

    # -- both -----------------------------------------------------------------------------------------------------

    def _resolve(self, name: str, key: str, make: Callable[[Path], str], *, unique: bool = False) -> str:
        """The digest of an artifact: from the store, or made now; checked against the lock either way.

        Where every build is `unique`, one that is made now takes the place of what a lock names that may change.
        """
        locked = self.tools.pins.lock.artifacts.get(name)
        if self.recorded and locked is not None and self.tools.store.has(locked.digest):
            self.tools.store.verify(locked.digest)
            return self._reuse(name, locked.key, locked.digest)
        known = self.tools.store.get_ref("artifacts", key)
        if known is not None and self.tools.store.has(known["digest"]) and not self.rebuild:
            self._check(name, key, known["digest"])
            return self._reuse(name, key, known["digest"])

        def wait(message: str) -> None:
            self.tools.sink(Step("artifact", "note", name, detail={"status": message}))

        with self.tools.store.lock(f"artifact-{key}", wait):
            known = None if self.rebuild else self.tools.store.get_ref("artifacts", key)
            if known is not None and self.tools.store.has(known["digest"]):
                self._check(name, key, known["digest"])  # another process made it while this one waited
                return self._reuse(name, key, known["digest"])
            with self.tools.store.scratch() as scratch:
                digest = make(scratch)
            if not self.rebuild:
                if unique and not self.recorded:
                    self._note_anew(name, key, digest)
                else:
                    self._check(name, key, digest)
                self.tools.store.put_ref("artifacts", key, {"name": name, "digest": digest})
        self._logs[name] = self._log(name, key)
        return digest

    def _reuse(self, name: str, key: str, digest: str) -> str:
        """Note that an artifact is here already, and the log of its build; a node of another name may have made it."""
        self._reused.add(name)
        self.tools.sink(Step("artifact", "note", name, detail={"reused": True, "digest": digest}))
        made = self.tools.store.get_ref("artifacts", key)
        if made is not None and made["digest"] == digest:
            self._logs[name] = self._log(made.get("name", name), key)
        return digest

    def _note_anew(self, name: str, key: str, digest: str) -> None:
        locked = self.tools.pins.lock.artifacts.get(name)
        if locked is not None and locked.key == key and locked.digest != digest:
            why = "signed anew: the same app in other bytes than the lock names"
            self.tools.sink(Step("artifact", "note", name, detail={"digest": digest, "why": why}))

    def _check(self, name: str, key: str, digest: str) -> None:
        locked = self.tools.pins.lock.artifacts.get(name)
        if locked is not None and locked.key == key and locked.digest != digest:
            raise VerifyError(
                f"{name}: the same inputs gave other bytes: the lock has {locked.digest}, this build {digest}",
                hint="meltrepro verify SPEC shows where they differ",
            )

    def _attest(
        self,
        artifact: Artifact,
        sources: Mapping[str, Source],
        started_ns: int,
        *,
        recipe: Recipe | None = None,
        tools: tuple[Artifact, ...] = (),
        commands: tuple[tuple[str, ...], ...] = (),
    ) -> None:
        """Say how an artifact was made, if it was made now."""
        maker = self._made.get(artifact.id, self._used)
        if artifact.id in self._reused or maker is None or self.rebuild:
            return
        inputs = {name: (source, self.tools.pins.entry(source)) for name, source in sources.items()}
        for name, source in sources.items():
            parts = self.tools.fetcher.parts(source.model_copy(update={"digest": self._digest(source)}))
            inputs |= {f"{name}/{part}": (each, self.tools.pins.entry(each)) for part, each in parts.items()}
        packages = (
            self.tools.pins.interpreter() if recipe and any(name.endswith(".deb") for name in recipe.inputs) else ()
        )
        making = Making(inputs, recipe, tools, tuple(command for command in commands if command), tuple(packages))
        times = (started_ns, time.time_ns())
        attest(artifact, making, self.tools.pins.lock, self.tools.store, maker.version(), times)

    def _engine(self) -> Engine:
        self._used = self.tools.engine()
        return self._used

    def _digest(self, source: Source) -> str:
        return self.tools.pins.digest(source, recorded=self.recorded)

    def _locked(self, source: Source) -> Source:
        return self.tools.pins.pinned(source, recorded=self.recorded)

    def _log(self, name: str, key: str) -> Path:
        """Where the log of a build belongs; that of a rebuild is no log of what the store has."""
        kind = "rebuild.log" if self.rebuild else "log"
        return self.tools.store.place / "logs" / f"{name.replace('/', ',')}-{key[:16]}.{kind}"


@contextmanager
def _about(node: ModelNode) -> Iterator[None]:
    """Name the model in what is said of its file, whose own name in the store is a digest."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{node.id}, from {key_of(node.source)}: {error.message}", hint=error.hint) from error
