"""Models are made step by step: files and folders, what several share, what fits one variant alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from meltrepro.build.keys import look_up
from meltrepro.build.model import Execution, Exit, Recipe
from meltrepro.build.pipeline import Builder
from meltrepro.errors import ModelError
from meltrepro.frameworks.base import ModelStep, Variant
from meltrepro.manifest.lock import Lock, LockedArtifact
from meltrepro.manifest.sources import FileSource, FolderSource, Source
from meltrepro.plan.model import BundleNode, Costs, ModelNode, Plan
from meltrepro.registry import FRAMEWORKS
from meltrepro.steps import Sink
from meltrepro.store.archive import pack_tree
from meltrepro.store.cas import Store
from tests.support.building import tools
from tests.support.checkpoints import write_llama
from tests.support.frameworks import Fake, bundle
from tests.support.manifests import GOOD, load

BOARD = Variant("board", "board", "aarch64-linux-gnu", "glibc")
TOOLS = [replace(bundle("x86_64_v3", purpose="quantize"), purpose=purpose) for purpose in ("convert", "compile")]
FILE = FileSource(file="m.bin")
CONVERT = ModelStep("convert", "convert", ("convert",), output="folder", shared=True)
COMPILE = ModelStep("compile", "compile", ("compile", "board"), per_variant=True)


@dataclass
class Engine:
    """Writes what a command was called with, and what it saw at `/source`."""

    name: str = "fake"
    ran: list[str] = field(default_factory=list)

    def version(self) -> str:
        return "fake 1"

    def build(self, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False) -> Mapping[str, str]:
        raise AssertionError("nothing is built")

    def execute(self, execution: Execution) -> Exit:
        command, out = " ".join(execution.argv), execution.writable["/out"] / "model"
        self.ran.append(command)
        seen = [_read(path) for _, path in sorted(execution.readonly.items())]
        if execution.argv[0] == "convert":
            (out / "deep").mkdir(parents=True)
            (out / "deep" / "weights").write_text(f"{command}({','.join(seen)})")
        else:
            out.write_text(f"{command}({','.join(seen)})")
        assert execution.stdout is not None
        execution.stdout.parent.mkdir(parents=True, exist_ok=True)
        execution.stdout.write_text("done\n")
        return Exit(0)

    def beside(self, execution: Execution) -> AbstractContextManager[str]:
        raise AssertionError("nothing is watched")

    def stop_strays(self, owner: str) -> int:
        return 0


def _read(path: Path) -> str:
    return "+".join(file.read_text() for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.name[:1]


class Steps(Fake):
    """A framework that loads whatever it is given."""

    def check_checkpoint(self, files: Mapping[str, Path]) -> None:
        assert "config.json" in files


def rewrite(source: Path, destination: Path) -> bool:
    destination.write_text(f"rewritten {source.read_text()}")
    return True


def nothing_to_do(source: Path, destination: Path) -> bool:
    return False


Build = Callable[..., Mapping[str, Path]]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def builder(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.setitem(FRAMEWORKS.loaded, "steps", Steps("steps", (BOARD,), {}))
    store = Store(tmp_path / "cache" / "store")
    (tmp_path / "out").mkdir()
    (tmp_path / "m.bin").write_text("source")
    write_llama(tmp_path / "checkpoint")
    artifacts = {}
    for number, node in enumerate(TOOLS):
        (tmp_path / "out" / "program").write_text(node.purpose)
        pack_tree(tmp_path / "out", tmp_path / "tar", prefix="bundle")
        artifacts[node.id] = LockedArtifact(key=f"{number}" * 64, digest=store.put_file(tmp_path / "tar", move=True))
    return Builder(tools(tmp_path, Lock(lock=1, manifest="0" * 64, artifacts=artifacts), engine), recorded=True)


def model(
    *steps: ModelStep,
    source: Source = FILE,
    quantization: str = "q",
    variant: Variant | None = None,
) -> ModelNode:
    return ModelNode("m", quantization, "f", source, "steps", steps, variant)


def plan_of(folder: Path, models: Sequence[ModelNode], bundles: Sequence[BundleNode] = TOOLS) -> Plan:
    manifest = load(folder, GOOD.replace("llama.cpp: {", "f: {kind: llama.cpp, ")).manifest
    return Plan(manifest, (), (), tuple(bundles), tuple(models), Costs(None, None, {}))


def test_a_source_that_needs_nothing_is_the_model(builder: Builder, tmp_path: Path) -> None:
    node = model(ModelStep("nothing", run=nothing_to_do))
    artifact = builder.build(plan_of(tmp_path, [model(quantization="a"), node])).artifacts[node.id]
    assert artifact.path.read_text() == "source" and not artifact.is_folder


def test_steps_follow_each_other(builder: Builder, engine: Engine, tmp_path: Path) -> None:
    node = model(ModelStep("rewrite", run=rewrite), COMPILE, variant=BOARD)
    built = builder.build(plan_of(tmp_path, [node]))
    assert node.id == "m/q/f/board"
    assert built.artifacts[node.id].path.read_text() == "compile board(m)"
    assert built.logs[node.id].read_text() == "done\n"


def test_a_last_step_with_nothing_to_do_leaves_what_was_there(builder: Builder, tmp_path: Path) -> None:
    node = model(COMPILE, ModelStep("nothing", run=nothing_to_do), variant=BOARD)
    artifact = builder.build(plan_of(tmp_path, [node])).artifacts[node.id]
    assert artifact.path.read_text().startswith("compile board(")


def test_a_folder_is_kept_whole_and_handed_on(builder: Builder, engine: Engine, tmp_path: Path) -> None:
    folder, file = model(CONVERT), model(CONVERT, COMPILE, quantization="c", variant=BOARD)
    built = builder.build(plan_of(tmp_path, [folder, file]))
    artifact = built.artifacts[folder.id]
    assert artifact.is_folder and (artifact.path / "deep" / "weights").is_file()
    assert engine.ran == ["convert", "compile board"], "one conversion serves both"
    assert built.artifacts[file.id].path.read_text().startswith("compile board(convert(")


def test_what_is_shared_outlives_the_model_that_it_was_made_for(
    builder: Builder, engine: Engine, tmp_path: Path
) -> None:
    builder.build(plan_of(tmp_path, [model(CONVERT, COMPILE, variant=BOARD)]))
    other = ModelStep("compile", "compile", ("compile", "phone"), per_variant=True)
    again = Builder(builder.tools, recorded=True)
    again.build(plan_of(tmp_path, [model(CONVERT, other, quantization="other")]))
    assert engine.ran == ["convert", "compile board", "compile phone"]


def test_a_checkpoint_can_be_the_model(builder: Builder, tmp_path: Path) -> None:
    node = model(source=FolderSource(folder="checkpoint"))
    artifact = builder.build(plan_of(tmp_path, [node])).artifacts[node.id]
    assert artifact.is_folder and (artifact.path / "config.json").read_bytes()
    assert artifact.path.joinpath("config.json").read_text() == (tmp_path / "checkpoint" / "config.json").read_text()


def test_a_plan_finds_what_a_build_has_made(builder: Builder, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, [model(CONVERT), model(quantization="as-is")], TOOLS[:1])
    before = look_up(plan, builder.tools.pins)
    assert not before.stored.keys() & {node.id for node in plan.models}
    builder.build(plan)
    found = look_up(plan, builder.tools.pins)
    assert plan.models[1].id in found.stored


def test_a_step_that_leaves_no_model_is_told_with_the_name(builder: Builder, tmp_path: Path) -> None:
    class Strict(Fake):
        def check_model(self, path: Path) -> None:
            if path.read_text() != "source":
                raise ModelError("not one of ours")

    FRAMEWORKS.loaded["steps"] = Strict("steps", (BOARD,), {})
    with pytest.raises(ModelError, match=r"m/q/f, from file:m\.bin: not one of ours"):
        builder.build(plan_of(tmp_path, [model(ModelStep("rewrite", run=rewrite))]))
