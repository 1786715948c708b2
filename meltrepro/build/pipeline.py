"""From a plan to artifacts: look up what exists, fetch and build what does not, and keep the lock true.

Nothing is contacted for what is already in the store: neither network nor engine. An artifact is looked up by the
digest of everything that goes into it; what comes out is checked against the lock, so that a build that is not
reproducible can never pass unnoticed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from meltrepro.build import interpreter
from meltrepro.build.keys import Keys, bundle_key, known, recipe_digest
from meltrepro.build.log import check_space, first_error, within_memory, writing_below
from meltrepro.build.model import PLAIN_ALONE, Artifact, ArtifactKind, Engine, Maker, Recipe
from meltrepro.build.statements import Making, attest, statements
from meltrepro.build.tool_run import StepInput, odd_below, run_tool, stored
from meltrepro.build.tools import Tools
from meltrepro.errors import BuildError, ModelError, VerifyError
from meltrepro.frameworks.base import Framework, Release, framework
from meltrepro.manifest.lock import LockedArtifact
from meltrepro.manifest.sources import Source, has_parts
from meltrepro.plan.model import BundleNode, LogitsNode, ModelNode, Plan
from meltrepro.record.ids import RUN
from meltrepro.steps import Step
from meltrepro.steps import step as progress
from meltrepro.store.archive import pack_tree
from meltrepro.store.cas import Store
from meltrepro.store.source import key_of
from meltrepro.targets.base import RUNNERS

_Node = TypeVar("_Node", BundleNode, ModelNode)


@dataclass(frozen=True)
class Built:
    """Every artifact of a plan, by node id, and how each came to be."""

    artifacts: Mapping[str, Artifact]
    recipes: Mapping[str, Recipe]
    logs: Mapping[str, Path]
    """Logs of the builds that made the artifacts, now or earlier, as far as the store still has them."""
    reused: frozenset[str]
    failed: Mapping[str, str] = field(default_factory=dict)
    """Why optional entries of frameworks could not be built, by name; what needs them is not among the artifacts."""

    def files(self, store: Store) -> dict[str, Mapping[str, bytes]]:
        """What a record keeps of every build, by node id: what was executed, its log, the artifact's statements."""
        kept = {name: statements(artifact, store) for name, artifact in self.artifacts.items()}
        for name, recipe in self.recipes.items():
            artifact = self.artifacts[name]
            executed = store.get_ref("executed", artifact.digest)
            kept[name] |= {file: text.encode() for file, text in executed["files"].items()} if executed else {}
            if bundle_key(recipe) == artifact.key:  # else it was made by another recipe than today's
                script = "build.sh" if recipe.by_engine else "parameters.json"
                kept[name][script] = recipe.files[script]
        for name, log in self.logs.items():
            if log.is_file():
                kept[name]["build.log"] = log.read_bytes()
        return dict(kept)


@dataclass
class Builder:
    """Builds the nodes of one plan against one lock."""

    tools: Tools
    rebuild: bool = False
    """Build even what the store has and leave what it and the lock know as it is; `replay.verify` compares the two."""
    recorded: bool = False
    """Take the very artifacts that the lock names where they are here, whatever today's recipes would make."""
    _made: dict[str, Maker] = field(default_factory=dict)
    _used: Engine | None = None
    _releases: dict[str, Release] = field(default_factory=dict)
    _options: dict[str, BaseModel] = field(default_factory=dict)
    _artifacts: dict[str, Artifact] = field(default_factory=dict)
    _recipes: dict[str, Recipe] = field(default_factory=dict)
    _logs: dict[str, Path] = field(default_factory=dict)
    _reused: set[str] = field(default_factory=set)
    _failed: dict[str, str] = field(default_factory=dict)

    def build(self, plan: Plan) -> Built:
        """Build or reuse every node of the plan. Raises the errors of fetching and building; rerun to go on."""
        nodes: tuple[BundleNode | ModelNode, ...] = (*plan.bundles, *plan.models)
        self._options = {node.framework_name: plan.options(node) for node in nodes}
        for bundle in plan.bundles:
            self._releases[bundle.framework_name] = bundle.release
            self._tried(bundle, plan, lambda node: self._bundle(node, optional=plan.optional(node)))
        for model in plan.models:
            self._tried(model, plan, lambda node: self._made_to_fit(node, plan))
        if self._failed and not plan.without(self._failed).cells:
            raise BuildError(next(iter(self._failed.values())), hint="nothing is left to run: name other releases")
        for logits in plan.without(self._failed).logits:
            self._logits(logits)
        if not self.rebuild:
            self.tools.pins.record(
                {name: LockedArtifact(key=a.key, digest=a.digest) for name, a in self._artifacts.items()},
                {recipe.name: recipe_digest(recipe) for recipe in self._recipes.values()},
            )
        return Built(
            artifacts=dict(self._artifacts),
            recipes={name: recipe for name, recipe in self._recipes.items() if name in self._artifacts},
            logs={name: log for name, log in self._logs.items() if log.is_file()},
            reused=frozenset(self._reused),
            failed=dict(self._failed),
        )

    def _made_to_fit(self, model: ModelNode, plan: Plan) -> None:
        self._model(model, self._keys.tools(model, plan))
        if model.is_adapter:
            self._require_fit(model, plan)

    def _tried(self, node: _Node, plan: Plan, make: Callable[[_Node], None]) -> None:
        """Make a node, or note why that cannot be where others go on without it."""
        if node.framework_name in self._failed:
            return
        try:
            make(node)
        except BuildError as error:
            if not plan.optional(node) or self.rebuild:
                raise
            self._failed[node.framework_name] = error.message
            self.tools.sink(Step("warning", "note", f"left out: {node.framework_name}: {error.message}"))

    def recipe_digests(self, plan: Plan) -> dict[str, str]:
        """The digest of every recipe of the plan by name, without building any."""
        return {recipe.name: recipe_digest(recipe) for recipe in map(self.recipe, plan.bundles)}

    def recipe(self, node: BundleNode) -> Recipe:
        """The rendered recipe of a bundle, with the places of inputs that the store already has."""
        return known(self._keys.recipe(node))

    @property
    def _keys(self) -> Keys:
        return Keys(self.tools.store, self._digest, self.tools.pins.interpreter)

    @property
    def _digests(self) -> dict[str, str]:
        return {name: artifact.digest for name, artifact in self._artifacts.items()}

    # -- bundles --------------------------------------------------------------------------------------------------

    def _bundle(self, node: BundleNode, *, optional: bool = False) -> None:
        recipe = self._recipes[node.id] = self.recipe(node)
        key, store = bundle_key(recipe), self.tools.store
        failed = store.get_ref("failures", key) if optional and not self.rebuild else None
        if failed is not None and self._known(key) is None and Path(failed["log"]).is_file():
            raise BuildError(failed["reason"])  # as long as its log is there

        def make(scratch: Path) -> str:
            maker = self._made[node.id] = self.tools.maker(recipe)  # before anything that takes long
            for item in node.sources.values():
                self.tools.fetcher.get(self._locked(item), self.tools.pins.base_dir)
            if (kind := node.recipe.interpreter) is not None:
                offline = self.tools.settings.offline
                interpreter.bring(recipe.packages, self.tools.store, self.tools.sink, kind, offline=offline)
            out, log = scratch / "bundle", self._log(node.id, key)
            with writing_below(scratch):
                out.mkdir()
            executed = maker.build(recipe, out, log, self.tools.sink, fresh=self.rebuild)
            if (odd := odd_below(out)) is not None:  # the engine docker has said so already, in these words
                place = f"out/{odd.relative_to(out)}"
                raise BuildError(
                    f"what {recipe.name} left: unsafe to unpack: {place!r} is neither a plain file nor a folder",
                    hint=PLAIN_ALONE,
                )
            if not any(out.iterdir()):
                raise BuildError(f"building {recipe.name} left nothing behind", hint=f"log: {log}")
            if node.purpose == RUN and not any((out / member).is_file() for member in RUNNERS):
                raise BuildError(
                    f"building {recipe.name} left no runner: expected {' or '.join(RUNNERS)}", hint=f"log: {log}"
                )
            digest = self._pack(out, "bundle", scratch)
            if not self.rebuild:
                self.tools.store.put_ref("executed", digest, {"files": dict(executed)})
            return digest

        started = time.time_ns()
        try:
            digest = self._resolve(node.id, key, make, unique=recipe.signed)
        except BuildError as error:
            log = self._log(node.id, key)
            if not optional or self.rebuild or not log.is_file():
                raise
            reason = f"{recipe.name} does not build: {first_error(log) or error.message}"
            store.put_ref(
                "failures",
                key,
                {"reason": f"{reason} (remembered as long as its log is there: {log.name})", "log": str(log)},
            )
            raise BuildError(reason, hint=f"log: {log}") from error
        artifact = self._add(node.id, "bundle", key, digest, folder="bundle", platform=node.variant.machine)
        self._attest(artifact, node.sources, started, recipe=recipe)

    # -- models ---------------------------------------------------------------------------------------------------

    def _model(self, node: ModelNode, tools: Sequence[BundleNode | None]) -> None:
        node = replace(node, source=self._locked(node.source))
        bundles = [self._artifacts[tool.id] if tool is not None else None for tool in tools]
        keys = known(self._keys.model(node, tools, self._digests))

        def make(scratch: Path) -> str:
            with _about(node):
                return self._take_steps(node, bundles, keys, scratch)

        started = time.time_ns()
        digest = self._resolve(node.id, keys[-1], make)
        artifact = self._add(node.id, "model", keys[-1], digest, folder="model" if node.is_folder else None)
        commands = tuple(step.command for step in node.steps if step.command)
        used = tuple(dict.fromkeys(bundle for bundle in bundles if bundle is not None))
        self._attest(artifact, {node.model_name: node.source}, started, tools=used, commands=commands)

    def _require_fit(self, node: ModelNode, plan: Plan) -> None:
        """Raise `ModelError` where an adapter is not one of the models that it is for, which are made before it."""
        for each in plan.models:
            if (each.model_name, each.framework_name) == (node.model_name, node.framework_name) and each != node:
                with _about(node):
                    model, adapter = self._artifacts[each.id].path, self._artifacts[node.id].path
                    framework(node.kind).check_adapter(adapter, model)

    def _take_steps(
        self, node: ModelNode, bundles: Sequence[Artifact | None], keys: Sequence[str], scratch: Path
    ) -> str:
        """Make a model from its source, or from what is kept of a chain that begins alike; returns its digest."""
        engine, store = framework(node.kind), self.tools.store
        kept = {number: digest for number in range(1, len(node.steps)) if (digest := self._kept(node, number, keys))}
        first = max(kept, default=0)
        kept_source = stored(store, kept[first], node.steps[first - 1].output) if first else None
        current = kept_source or self._source(node, engine)
        for number, step in enumerate(node.steps[first:], first + 1):
            bundle, here = bundles[number - 1], scratch / str(number)
            last = number == len(node.steps)
            with writing_below(scratch):
                here.mkdir()
            if bundle is not None:
                log = self._log(node.id if last else f"{node.id}/{step.name}", keys[number])
                what = f"step {step.name} of {node.id}"
                with progress(self.tools.sink, step.name, node.id):
                    made = run_tool(self._engine(), bundle, step.command, current.mounts, here, log, what, step.output)
            else:
                made, what = here / "model", f"step {step.name} of {node.id}"
                with progress(self.tools.sink, step.name, node.id), writing_below(scratch), within_memory(what):
                    done = step.run(current.on_disk(here), made) if step.run is not None else False
                if done is not made.exists():
                    raise BuildError(
                        f"{what} returned {done!r} and left {'a' if made.exists() else 'no'} result",
                        hint=f"a function of framework {node.kind} returns True where it wrote one, and False where not",
                    )
                if not done:
                    continue
            engine.check_model(made)
            if not (step.shared or last):
                current = StepInput({"/source": made})
                continue
            digest = self._put(made, here)
            if not (last or self.rebuild):
                store.put_ref("artifacts", keys[number], {"name": f"{node.id}/{step.name}", "digest": digest})
            current = stored(store, digest, step.output)
        if current.digest is not None:
            return current.digest
        whole = current.mounts.get("/source")  # else it is several files that are loaded as they are
        return self._put(whole if whole is not None else current.copied(scratch / "whole"), scratch)

    def _kept(self, node: ModelNode, number: int, keys: Sequence[str]) -> str | None:
        """What is here of the first steps of a model, where others begin with them too; made anew by a rebuild."""
        return self._known(keys[number]) if node.steps[number - 1].shared else None

    def _source(self, node: ModelNode, engine: Framework) -> StepInput:
        """What the first step begins with, fetched and looked at."""
        fetcher, base = self.tools.fetcher, self.tools.pins.base_dir
        path = fetcher.get(node.source, base)
        if node.is_adapter:
            engine.check_adapter(path, None)
            return StepInput({"/source": path}, self._digest(node.source))
        if not has_parts(node.source):
            engine.check_model(path)
            seen = engine.look(self._options[node.framework_name], path, self._releases[node.framework_name])
            if (refusal := seen.refusal or seen.unmade.get(node.quantization)) is not None:
                hint = "name another model, or run it again: the file is here now, and the plan leaves its cells out"
                raise ModelError(refusal, hint=hint)
            return StepInput({"/source": path}, self._digest(node.source))
        pinned = node.source.model_copy(update={"digest": self._digest(node.source)})
        files = {name: fetcher.get(part, base) for name, part in fetcher.parts(pinned).items()}
        engine.check_checkpoint(files)
        return StepInput({f"/source/{name}": path for name, path in files.items()})

    def _logits(self, node: LogitsNode) -> None:
        """Have the unquantized model write down what it expects of a text, for others to be compared with."""
        text, model, bundle = (
            self._locked(node.workload.text),
            self._artifacts[node.model.id],
            self._artifacts[node.bundle.id],
        )
        scorer, command = known(framework(node.bundle.kind).scorer), self._keys.command(node)
        key = known(self._keys.logits(node, self._digests))

        def make(scratch: Path) -> str:
            source, log = self.tools.fetcher.get(text, self.tools.pins.base_dir), self._log(node.id, key)
            mounts, what = {"/model": model.path, "/text": source}, f"making {node.id}"
            with progress(self.tools.sink, "logits", node.id):
                result = run_tool(self._engine(), bundle, command, mounts, scratch, log, what, name="logits")
            said = log.read_text(errors="replace")
            try:
                scorer.check_logits(node.workload, result, said)
            except BuildError as error:
                check_space(scratch, said)
                raise BuildError(f"{what}: {error.message}", hint=error.hint or f"log: {log}") from error
            return self.tools.store.put_file(result, move=True)

        started = time.time_ns()
        artifact = self._add(node.id, "logits", key, self._resolve(node.id, key, make))
        self._attest(artifact, {node.id: text}, started, tools=(bundle,), commands=(command,))

    # -- all of them ----------------------------------------------------------------------------------------------

    def _add(
        self, name: str, kind: ArtifactKind, key: str, digest: str, folder: str | None = None, platform: str = ""
    ) -> Artifact:
        """Take an artifact up; `folder` is what one that is a folder is called in its tar."""
        file = self.tools.store.verify(digest)
        path = self.tools.store.unpack(digest) / folder if folder is not None else file
        self._artifacts[name] = Artifact(name, kind, key, digest, file, path, file.stat().st_size, platform)
        return self._artifacts[name]

    def _pack(self, folder: Path, name: str, scratch: Path) -> str:
        """Put a folder into the store as a tar with everything below `name`; returns its digest."""
        pack_tree(folder, scratch / f"{name}.tar", prefix=name)
        return self.tools.store.put_file(scratch / f"{name}.tar", move=True)

    def _put(self, made: Path, scratch: Path) -> str:
        """Put a model into the store, be it a file or a folder; returns its digest."""
        if made.is_dir():
            return self._pack(made, "model", scratch)
        return self.tools.store.put_file(made, move=True)

    def _resolve(self, name: str, key: str, make: Callable[[Path], str], *, unique: bool = False) -> str:
        """The digest of an artifact: from the store, or made now; checked against the lock either way.

        Where every build is `unique`, one that is made now takes the place of what a lock names that may change.
        """
        locked = self.tools.pins.lock.artifacts.get(name)
        if self.recorded and locked is not None and self.tools.store.has(locked.digest):
            self.tools.store.verify(locked.digest)
            return self._reuse(name, locked.key, locked.digest)
        if (known := self._known(key)) is not None:
            self._check(name, key, known)
            return self._reuse(name, key, known)

        def wait(message: str) -> None:
            self.tools.sink(Step("artifact", "note", name, detail={"status": message}))

        with self.tools.store.lock(f"artifact-{key}", wait):
            if (known := self._known(key)) is not None:  # another process made it while this one waited
                self._check(name, key, known)
                return self._reuse(name, key, known)
            with self.tools.store.scratch() as scratch:
                digest = make(scratch)
            if not self.rebuild:
                self._check(name, key, digest, anew=unique and not self.recorded)
                self.tools.store.put_ref("artifacts", key, {"name": name, "digest": digest})
        self._logs[name] = self._log(name, key)
        return digest

    def _known(self, key: str) -> str | None:
        return None if self.rebuild else self.tools.store.result("artifacts", key)

    def _reuse(self, name: str, key: str, digest: str) -> str:
        """Note that an artifact is here already, and the log of its build; a node of another name may have made it."""
        self._reused.add(name)
        self.tools.sink(Step("artifact", "note", name, detail={"reused": True, "digest": digest}))
        made = self.tools.store.get_ref("artifacts", key)
        if made is not None and made["digest"] == digest:
            self._logs[name] = self._log(made.get("name", name), key)
        return digest

    def _check(self, name: str, key: str, digest: str, *, anew: bool = False) -> None:
        """Raise `VerifyError` where the lock has other bytes for the same inputs; note it where they are signed `anew`."""
        locked = self.tools.pins.lock.artifacts.get(name)
        if locked is None or locked.key != key or locked.digest == digest:
            return
        if not anew:
            raise VerifyError(
                f"{name}: the same inputs gave other bytes: the lock has {locked.digest}, this build {digest}",
                hint="meltrepro verify SPEC shows where they differ",
            )
        why = "signed anew: the same app in other bytes than the lock names"
        self.tools.sink(Step("artifact", "note", name, detail={"digest": digest, "why": why}))

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
        making = Making(inputs, recipe, tools, commands)
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
