"""Builder: which artifacts are taken as they are. What it builds is tested with real engines (tests/integration)."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.build.pipeline import Builder
from meltrepro.errors import CorruptStore, OfflineError
from meltrepro.manifest.lock import Lock, LockedArtifact
from meltrepro.plan.model import Costs, Plan
from meltrepro.steps import Step
from meltrepro.store.archive import pack_tree
from meltrepro.store.cas import Store
from tests.support.building import NoEngineError, tools
from tests.support.frameworks import bundle
from tests.support.manifests import GOOD, load

NODE = bundle("x86_64_v2", "2024-02-27", name="llama.cpp")


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    """A builder without network or engine, for a lock whose one artifact is in the store under another key."""
    store = Store(tmp_path / "cache" / "store")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bundle.json").write_text("{}")
    pack_tree(tmp_path / "out", tmp_path / "tar", prefix="bundle")
    digest = store.put_file(tmp_path / "tar", move=True)
    lock = Lock(lock=1, manifest="0" * 64, artifacts={NODE.id: LockedArtifact(key="1" * 64, digest=digest)})
    return Builder(tools(tmp_path, lock))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(load(tmp_path, GOOD).manifest, (), (), (NODE,), (), Costs(None, None, {}))


def test_a_record_gets_the_artifact_that_it_names(builder: Builder, plan: Plan) -> None:
    built = replace(builder, recorded=True).build(plan)
    assert built.artifacts[NODE.id].digest == builder.tools.pins.lock.artifacts[NODE.id].digest
    assert (built.artifacts[NODE.id].path / "bundle.json").read_text() == "{}"
    assert built.reused == {NODE.id}


def test_a_manifest_gets_what_its_recipe_makes(builder: Builder, plan: Plan) -> None:
    with pytest.raises((OfflineError, NoEngineError)):
        builder.build(plan)


def test_a_recorded_artifact_that_is_gone_is_built(builder: Builder, plan: Plan) -> None:
    builder.tools.store.path(builder.tools.pins.lock.artifacts[NODE.id].digest).unlink()
    with pytest.raises((OfflineError, NoEngineError)):
        replace(builder, recorded=True).build(plan)


def test_a_recorded_artifact_that_was_changed_is_refused(builder: Builder, plan: Plan) -> None:
    path = builder.tools.store.path(builder.tools.pins.lock.artifacts[NODE.id].digest)
    path.chmod(0o644)
    path.write_bytes(b"something else")
    with pytest.raises(CorruptStore):
        replace(builder, recorded=True).build(plan)


def test_a_build_says_that_it_waits_for_another_of_the_same(builder: Builder, plan: Plan) -> None:
    """Which can take minutes."""
    with pytest.raises((OfflineError, NoEngineError)):
        builder.build(plan)
    (path,) = (builder.tools.store.root / "locks").glob("artifact-*.lock")
    told: list[Step] = []
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def sink(step: Step) -> None:
            if step.phase == "note":
                told.append(step)
                fcntl.flock(other, fcntl.LOCK_UN)

        builder.tools.sink = sink
        with pytest.raises((OfflineError, NoEngineError)):
            builder.build(plan)
    assert [step.subject for step in told] == [NODE.id]
    assert "waiting for another process to finish" in told[0].detail["status"]
