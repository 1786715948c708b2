"""Engines from wheels beside llama.cpp, for real: the same codes give the same tokens, operators are told, and what is damaged is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.build.model import Artifact
from meltrepro.build.tool_run import run_tool
from meltrepro.errors import StoreError
from meltrepro.frameworks.mlc import compiler
from meltrepro.measure.operators import breakdown
from meltrepro.record.trace import OperatorPhase
from meltrepro.store.cas import Store
from tests.fault.test_store_faults import mounted, root_only
from tests.integration import prebuilt, sandbox_rig
from tests.integration.bundles import Bundle
from tests.integration.prebuilt import Campaign, Engines
from tests.integration.runner.contract import Runner

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Names:
    """What an engine calls its operators, their modules, its files, and the library that it is."""

    prefill: str
    generation: str
    """Products with codes."""
    output: str
    attention: str
    embedding: str
    files: tuple[str, ...]
    library: str
    modules: tuple[str, ...] = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


_ORT, _OPENVINO = "MatMulNBits", "FullyConnectedCompressed"
ENGINES = {
    "onnxruntime": Names(
        _ORT,
        _ORT,
        _ORT,
        "GroupQueryAttention",
        "GatherBlockQuantized",
        ("model.onnx", "weights.bin"),
        "libonnxruntime.so",
    ),
    "openvino": Names(
        _OPENVINO,
        _OPENVINO,
        _OPENVINO,
        "ScaledDotProductAttentionWithKVCache",
        "GatherCompressed",
        ("model.xml", "model.bin"),
        "libopenvino.so.2641",
    ),
    "mlc": Names(
        "matrix_product_codes4x32",
        "vector_product_codes4x32",
        "vector_product_codes8x32",
        "attend",
        "rows",
        ("tensor-cache.json", "params_shard_1.bin", "model.so"),
        "libtvm_runtime.so",
        ("attn_qkv", "attn_output", "ffn_gate_up", "ffn_down"),
    ),
}
FILES = [(kind, name) for kind, names in ENGINES.items() for name in (*names.files, "vocabulary.gguf", "model.json")]


@pytest.fixture(scope="module")
def engines(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return prebuilt.build(tmp_path_factory.mktemp("specs"))


@pytest.fixture(scope="module")
def campaign(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return prebuilt.run(engines, tmp_path_factory.mktemp("home"))


@pytest.fixture
def runner(engines: Engines, kind: str, tmp_path: Path) -> Runner:
    return engines.runner(kind, tmp_path)


@pytest.mark.parametrize("kind", ENGINES)
def test_the_same_weights_give_the_same_tokens(campaign: Campaign, kind: str) -> None:
    """Floats, with which no engine rounds what it multiplies; codes are held to their values by the unit tests."""
    ours, theirs = (campaign.trace("f16", name).turns for name in (kind, "llama.cpp"))
    assert [turn.n_prompt for turn in ours] == [turn.n_prompt for turn in theirs], "the same text, the same tokens"
    assert [turn.token_ids for turn in ours] == [turn.token_ids for turn in theirs]


@pytest.mark.parametrize("kind", ENGINES)
def test_the_same_codes_read_prompts_alike(campaign: Campaign, kind: str) -> None:
    ours, theirs = (campaign.trace("q4_0", name).turns for name in (kind, "llama.cpp"))
    assert [turn.n_prompt for turn in ours] == [turn.n_prompt for turn in theirs]
    assert ours[0].token_ids[:4] == theirs[0].token_ids[:4]


@pytest.mark.parametrize("kind", ENGINES)
def test_operators_are_told_by_module(campaign: Campaign, kind: str) -> None:
    trace, names = campaign.trace("q4_0", kind, "p000"), ENGINES[kind]
    phases: tuple[tuple[OperatorPhase, int], ...] = (("prefill", 2), ("generation", 30))
    for phase, calls in phases:
        # Names and calls are held here, not times: beside other tests, an engine waits between operators too.
        found = breakdown(trace, phase, least_coverage=0.5)
        assert found.calls == calls
        calls_of = {(share.name, share.module): share.calls for share in found.shares}
        for module in names.modules:
            assert calls_of[getattr(names, phase), module] == 30 * found.calls
        assert calls_of[names.attention, "attention"] == 30 * found.calls
        assert calls_of[names.output, "output"] == calls_of[names.embedding, "token_embd"] == found.calls
        assert sum(share.ns for share in found.shares) <= found.ns


@pytest.mark.parametrize("kind", ENGINES)
def test_a_field_that_nobody_takes_is_refused(runner: Runner) -> None:
    run = runner.run({**runner.request(), "mmap": True})
    assert (run.status, run.error["code"]) == (2, 2)
    assert "unknown field" in run.error["message"]


@pytest.mark.parametrize("kind", ENGINES)
def test_a_context_that_is_too_long_is_refused(runner: Runner) -> None:
    run = runner(context=9000)
    assert run.status == 4 and "8192" in run.error["message"]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def text(path: Path) -> None:
    path.write_text("{}")


@pytest.mark.parametrize(("kind", "name"), FILES)
@pytest.mark.parametrize("damage", [cut, text, Path.unlink])
def test_a_damaged_model_is_refused(runner: Runner, name: str, damage: Callable[[Path], None]) -> None:
    copy = shutil.copytree(runner.model, runner.folder / "model")
    (copy / name).chmod(0o644)
    damage(copy / name)
    run = runner(model=str(copy))
    assert run.status == 3, run.events[-1]
    assert run.error["message"]


@dataclass(frozen=True)
class Limited(Bundle):
    """Whose programs may have so much memory."""

    megabytes: int

    def command(self, tool: str) -> list[str]:
        return ["prlimit", f"--as={self.megabytes << 20}", *super().command(tool)]


def another_machine(library: bytes) -> bytes:
    """Its header says so, in two bytes."""
    return library[:18] + (40).to_bytes(2, "little") + library[20:]


def another_libc(library: bytes) -> bytes:
    """It asks for one that the bundle does not have."""
    assert library.count(b"\0libc.so.6\0") == 1
    return library.replace(b"\0libc.so.6\0", b"\0libx.so.6\0")


@pytest.mark.parametrize("megabytes", [32, 96])
@pytest.mark.parametrize("kind", ENGINES)
def test_too_little_memory_is_an_error_with_words(runner: Runner, megabytes: int) -> None:
    """While libraries are mapped, and while the model is loaded."""
    run = replace(runner, bundle=Limited(runner.bundle.folder, megabytes))()
    assert run.status in (3, 4, 5) and run.error["message"], run.stderr


@pytest.mark.parametrize("damage", [another_machine, another_libc])
@pytest.mark.parametrize("kind", ENGINES)
def test_a_library_for_another_machine_or_libc_is_refused(
    runner: Runner, kind: str, damage: Callable[[bytes], bytes]
) -> None:
    """As a wrong wheel would bring it."""
    name = ENGINES[kind].library
    bundle = Path(
        shutil.copytree(runner.bundle.folder, runner.folder / "bundle", symlinks=True, copy_function=os.symlink)
    )
    library = bundle / "lib" / name
    content = library.read_bytes()
    library.unlink()
    library.write_bytes(damage(content))
    run = replace(runner, bundle=Bundle(bundle))()
    assert run.status == 3 and "cannot be loaded: " in run.error["message"]


@root_only
@pytest.mark.parametrize("kilobytes", [40_000, 89_900])
def test_a_disk_that_fills_up_while_a_model_is_compiled(engines: Engines, tmp_path: Path, kilobytes: int) -> None:
    """While its weights are copied, and while its code is written; with room it is compiled."""
    found = {name.rpartition("/")[0]: (name.rpartition("/")[2], path) for name, path in engines.artifacts.items()}
    (level, _), (_, place) = found["mlc/run"], found["mlc/compile"]
    weights, digest = found["smollm2-135m/q4_0/mlc"][1], place.parent.name
    file = Store(settings.load().store).path(digest)
    bundle = Artifact("mlc/compile/x86_64", "bundle", digest, digest, file, place, 1, "x86_64")
    docker, what = sandbox_rig.engine("docker", tmp_path), "step compile of m"
    (variant,) = (each.variant for each in compiler.TARGETS if each.level == level)

    def compile_in(folder: Path) -> Path:
        command, seen = compiler.step(variant).command, {"/source": weights}
        return run_tool(docker, bundle, command, seen, folder, tmp_path / "log", what, "folder")

    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs") as small:
        with pytest.raises(StoreError, match="No space left") as caught:
            compile_in(small)
        assert caught.value.hint and "\n" not in caught.value.message
    (tmp_path / "large").mkdir()
    assert (compile_in(tmp_path / "large") / "model.so").is_file()
