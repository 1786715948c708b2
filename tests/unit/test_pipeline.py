"""Builder: which artifacts are taken as they are. What it builds is tested with real engines (tests/integration)."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.build.base import Package
from meltrepro.build.model import Engine
from meltrepro.build.pipeline import Builder
from meltrepro.errors import CorruptStore, OfflineError
from meltrepro.frameworks.llamacpp.module import ISAS, RELEASES, LlamaCpp
from meltrepro.manifest.lock import Lock, LockedArtifact
from meltrepro.plan.model import BundleNode, Estimate, Plan
from meltrepro.settings import Settings
from meltrepro.steps import Step, silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from tests.support.manifests import GOOD, load

NODE = BundleNode("llama.cpp", "llama.cpp", RELEASES["2024-02-27"], ISAS[0])


class NoEngineError(Exception):
    """Building was tried."""


def no_engine() -> Engine:
    raise NoEngineError


class NoInterpreter:
    """Nothing here is converted."""

    def interpreter_packages(self) -> tuple[Package, ...]:
        raise NoEngineError

    def bring_interpreter(self) -> None:
        raise NoEngineError


@pytest.fixture
def builder(tmp_path: Path) -> Builder:
    """A builder without network or engine, for a lock whose one artifact is in the store under another key."""
    settings = Settings(tmp_path / "cache", tmp_path / "home", offline=True, mirrors=None, jobs=1)
    store = Store(settings.cache / "store")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bundle.json").write_text("{}")
    store.pack_tree(tmp_path / "out", tmp_path / "tar", prefix="bundle")
    digest = store.put_file(tmp_path / "tar", move=True)
    lock = Lock(lock=1, manifest="0" * 64, artifacts={NODE.id: LockedArtifact(key="1" * 64, digest=digest)})
    fetcher = Fetcher(store, settings, silent)
    return Builder(
        {"llama.cpp": LlamaCpp()}, store, fetcher, no_engine, lock, lambda: lock, NoInterpreter(), tmp_path, silent
    )


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(load(tmp_path, GOOD).manifest, (), (), (NODE,), (), Estimate(None, None, {}))


def test_a_record_gets_the_artifact_that_it_names(builder: Builder, plan: Plan) -> None:
    built = replace(builder, recorded=True).build(plan)
    assert built.artifacts[NODE.id].digest == builder.lock.artifacts[NODE.id].digest
    assert (built.artifacts[NODE.id].path / "bundle.json").read_text() == "{}"
    assert built.reused == {NODE.id}


def test_a_manifest_gets_what_its_recipe_makes(builder: Builder, plan: Plan) -> None:
    with pytest.raises(Exception) as caught:
        builder.build(plan)
    assert type(caught.value).__name__ in ("OfflineError", "NoEngineError")


def test_a_recorded_artifact_that_is_gone_is_built(builder: Builder, plan: Plan) -> None:
    builder.store.path(builder.lock.artifacts[NODE.id].digest).unlink()
    with pytest.raises(Exception) as caught:
        replace(builder, recorded=True).build(plan)
    assert type(caught.value).__name__ in ("OfflineError", "NoEngineError")


def test_a_recorded_artifact_that_was_changed_is_refused(builder: Builder, plan: Plan) -> None:
    path = builder.store.path(builder.lock.artifacts[NODE.id].digest)
    path.chmod(0o644)
    path.write_bytes(b"something else")
    with pytest.raises(CorruptStore):
        replace(builder, recorded=True).build(plan)


def test_a_build_says_that_it_waits_for_another_of_the_same(builder: Builder, plan: Plan) -> None:
    """Which can take minutes."""
    with pytest.raises((OfflineError, NoEngineError)):
        builder.build(plan)
    (path,) = (builder.store.root / "locks").glob("artifact-*.lock")
    told: list[Step] = []
    with path.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def sink(step: Step) -> None:
            if step.phase == "note":
                told.append(step)
                fcntl.flock(other, fcntl.LOCK_UN)

        with pytest.raises((OfflineError, NoEngineError)):
            replace(builder, sink=sink).build(plan)
    assert [step.subject for step in told] == [NODE.id]
    assert "waiting for another process to finish" in told[0].detail["status"]
