"""Conversions for the engines from wheels on bad days: no disk, no memory. One error, nothing half-written, and the next build finishes."""

from __future__ import annotations

import hashlib
import importlib
import resource
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.build.pipeline import Builder
from meltrepro.cli.app import main
from meltrepro.errors import BuildError, DigestMismatch, MeltreproError, StoreError
from meltrepro.frameworks.base import AS_IS, RUN, framework
from meltrepro.frameworks.prebuilt.module import WheelFramework
from meltrepro.manifest.lock import Lock, LockedArtifact
from meltrepro.manifest.sources import FileSource
from meltrepro.plan.model import BundleNode, Costs, ModelNode, Plan
from meltrepro.store.archive import pack_tree
from meltrepro.store.cas import Store
from tests.fault.test_store_faults import mounted, nothing_half_written, root_only
from tests.support.building import tools
from tests.support.forks import Fork
from tests.support.llamas import llama
from tests.support.manifests import GOOD, load

ENGINES = ("mlc", "onnxruntime", "openvino")
SPEC = """\
meltrepro: 1
name: wheels
models: {{m: {{source: {{file: m.gguf}}, chat_template: chatml, quantizations: [as-is]}}}}
frameworks: {{{kind}: {{release: "{release}"}}}}
targets:
  host: {{kind: host, assume: {{arch: x86_64, features: [avx2, fma, f16c, bmi1, bmi2, movbe, abm]}}}}
workloads: {{chat: {{conversations: [[Hello]], context: 64, max_tokens: 8}}}}
"""


def plan_of(folder: Path, kind: str) -> Plan:
    """A model that takes a conversion alone (MLC's code would take its compiler), and a bundle that is there."""
    engine = framework(kind)
    assert isinstance(engine, WheelFramework)
    if not (folder / "m.gguf").exists():
        (folder / "m.gguf").write_bytes(llama("Q8_0"))
    (release,), variant = engine.releases().values(), engine.engine.variants[0]
    recipe = engine.recipe(engine.options(), release, variant, RUN)
    model = ModelNode("m", AS_IS, kind, FileSource(file="m.gguf"), kind, tuple(engine.engine.schemes[AS_IS].steps))
    text = GOOD.replace("llama.cpp: {release: 2024-02-27", f'{kind}: {{release: "{release.name}"')
    bundle = BundleNode(kind, kind, release, variant, RUN, recipe)
    return Plan(load(folder, text).manifest, (), (), (bundle,), (model,), Costs(None, None, {}))


def build_in_little_memory(folder: Path, kind: str) -> int:
    """In a process of its own, whose conversion may have hardly more memory than the process has already."""
    plan = plan_of(folder, kind)
    ((step,), limits) = plan.models[0].steps, resource.getrlimit(resource.RLIMIT_AS)

    def convert(source: Path, destination: Path) -> bool:
        assert step.run is not None
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), limits[1]))
        try:
            return step.run(source, destination)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)

    for name in (f"meltrepro.frameworks.{kind}.convert", "mmap"):
        importlib.import_module(name)
    limited = replace(plan.models[0], steps=(replace(step, run=convert),))
    try:
        builder_of(folder, plan).build(replace(plan, models=(limited,)))
    except MeltreproError as error:
        print(type(error).__name__, error.message)
        return error.exit_code
    return 0


def builder_of(folder: Path, plan: Plan) -> Builder:
    store, (node,) = Store(folder / "cache" / "store"), plan.bundles
    (folder / "out").mkdir(exist_ok=True)
    pack_tree(folder / "out", folder / "tar", prefix="bundle")
    kept = LockedArtifact(key="0" * 64, digest=store.put_file(folder / "tar", move=True))
    return Builder(tools(folder, Lock(lock=1, manifest="0" * 64, artifacts={node.id: kept})), recorded=True)


@root_only
@pytest.mark.parametrize("kilobytes", [1100, 1500, 2100])
@pytest.mark.parametrize("kind", ENGINES)
def test_a_disk_that_fills_up(tmp_path: Path, kind: str, kilobytes: int) -> None:
    """In the middle of the weights, near their end, and when they are put into the store."""
    plan = plan_of(tmp_path, kind)
    with mounted(tmp_path / "cache", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs") as small:
        builder = builder_of(tmp_path, plan)
        with pytest.raises(StoreError, match="No space left") as caught:
            builder.build(plan)
        assert "\n" not in caught.value.message and caught.value.hint
        assert nothing_half_written(builder.tools.store) and not builder.tools.store.list_refs("artifacts")
        subprocess.run(["mount", "-o", "remount,size=16m", str(small)], check=True)
        made = builder_of(tmp_path, plan).build(plan).artifacts[plan.models[0].id]
        framework(kind).check_model(made.path)


@pytest.mark.parametrize("kind", ENGINES)
def test_too_little_memory(tmp_path: Path, kind: str) -> None:
    (tmp_path / "m.gguf").write_bytes(llama("F32", layers=8))  # of tensors that need fresh memory
    plan = plan_of(tmp_path, kind)
    child = Fork(build_in_little_memory, tmp_path, kind)
    said, wrong = child.communicate(timeout=60)
    assert child.returncode == BuildError.exit_code, wrong
    assert f"of m/as-is/{kind} needs more memory than this process may have" in said
    made = builder_of(tmp_path, plan).build(plan).artifacts[plan.models[0].id]
    framework(kind).check_model(made.path)


@pytest.mark.parametrize("other", ["musllinux_1_2_x86_64", "macosx_14_0_arm64"])
@pytest.mark.parametrize("kind", ENGINES)
def test_a_wheel_for_another_libc_or_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, other: str
) -> None:
    """Which somebody put where the right one is looked for: a wheel is known by its bytes, not by its name."""
    engine = framework(kind)
    assert isinstance(engine, WheelFramework)
    wheel = engine.engine.wheels[0]
    content = f"{wheel.pypi} for {other}".encode()
    (tmp_path / "other.whl").write_bytes(content)
    name = f"pypi:{wheel.pypi}=={wheel.version}:{wheel.filenames['x86_64']}"
    (tmp_path / "mirrors.yaml").write_text(f"mirrors:\n  {name}: other.whl\n")
    for variable, value in (("MIRRORS", "mirrors.yaml"), ("CACHE", "cache"), ("HOME", "home")):
        monkeypatch.setenv(f"MELTREPRO_{variable}", str(tmp_path / value))
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")
    (tmp_path / "m.gguf").write_bytes(llama("Q8_0"))
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(kind=kind, release=wheel.version))
    assert main(["build", str(spec)]) == DigestMismatch.exit_code
    said = capsys.readouterr().err
    assert said.count("error: ") == 1 and name in said and hashlib.sha256(content).hexdigest() in said
    assert wheel.digests["x86_64"] in said
