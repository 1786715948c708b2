"""What a study drops of the models that it made, and what it keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.errors import StoreError
from meltrepro.manifest.loader import LoadedManifest, load_manifest
from meltrepro.manifest.lock import Lock, LockedArtifact, LockedSource, dump_lock
from meltrepro.store.cas import Store
from meltrepro.store.gc import Dropped
from meltrepro.workflow.studies import drop_models
from tests.support.ggufs import model

SYNTHETIC = {"synthetic": "tinyllama-1.1b", "seed": 1}
WEIGHTS = "synthetic:tinyllama-1.1b:1:1"
TEXT = {"task": "kl-divergence", "text": {"file": "text.txt"}, "context": 256}


@dataclass
class Rig:
    """A store with the models of some manifests of one study."""

    folder: Path
    store: Store
    study: list[LoadedManifest] = field(default_factory=list)
    _last: int = 0

    def manifest(self, name: str, quantizations: Sequence[str], source: Any = SYNTHETIC, **more: Any) -> LoadedManifest:
        document = {
            "meltrepro": 1,
            "name": name,
            "models": {"m": {"source": source, "chat_template": "plain", "quantizations": list(quantizations)}},
            "frameworks": {"llama.cpp": {"release": "2024-02-27"}},
            "workloads": {"chat": {"conversations": [["Hi"]]}},
            **more,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        self.study.append(load_manifest(path))
        return self.study[-1]

    def made(self, *names: str, whole: str | None = None, source: str = WEIGHTS) -> tuple[Path, dict[str, str]]:
        """The lock of a campaign's record, and the digests in it; `whole` is the name of the model that is the source."""
        digests = {name: self.store.put_bytes(name.encode()) for name in names}
        sources = {}
        if whole is not None:
            digests.setdefault(whole, self.store.put_bytes(whole.encode()))
            sources[source] = LockedSource(digest=digests[whole], size=1)
        artifacts = {
            f"m/{name}/llama.cpp" if "/" not in name else name: LockedArtifact(key="0" * 64, digest=digest)
            for name, digest in digests.items()
        }
        self._last += 1
        lock = self.folder / f"record-{self._last}.yaml"
        lock.write_text(dump_lock(Lock(lock=1, manifest="0" * 64, sources=sources, artifacts=artifacts)))
        return lock, digests

    def drop(self, lock: Path, number: int = 0) -> Dropped:
        return drop_models(self.study[number], lock, self.study[number + 1 :], self.study, Store(self.store.root))

    def has(self, digests: dict[str, str]) -> set[str]:
        return {name for name, digest in digests.items() if self.store.has(digest)}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    store = Store(tmp_path / "store")
    store.put_bytes(b"something else")
    store.release()
    yield Rig(tmp_path, store)


def dropped(rig: Rig, lock: Path) -> Dropped:
    rig.store.release()
    return rig.drop(lock)


def test_models_that_nothing_needs_any_more_go_and_bundles_stay(rig: Rig) -> None:
    rig.manifest("one", ["as-is", "q4_0"])
    lock, digests = rig.made("q4_0", "llama.cpp/run/x86_64_v3", whole="as-is")
    found = dropped(rig, lock)
    assert rig.has(digests) == {"llama.cpp/run/x86_64_v3"}
    assert found == Dropped(len("q4_0") + len("as-is"), frozenset())


def test_what_later_manifests_need_stays(rig: Rig) -> None:
    rig.manifest("one", ["as-is", "q3_K", "q4_0"])
    rig.manifest("two", ["q4_0"], workloads={"other": {"conversations": [["Ho"]]}})
    lock, digests = rig.made("q3_K", "q4_0", whole="as-is")
    dropped(rig, lock)
    assert rig.has(digests) == {"as-is", "q4_0"}, "the weights are what another quantization would be made of"


def test_what_a_later_manifest_compares_with_stays(rig: Rig) -> None:
    file = {"file": "m.gguf"}
    (rig.folder / "m.gguf").write_bytes(model())
    (rig.folder / "text.txt").write_text("words " * 4000)
    rig.manifest("one", ["f16", "q8_0", "q4_0"], file)
    rig.manifest("two", ["q4_0"], file, workloads={"far": {**TEXT, "against": "q8_0"}})
    lock, digests = rig.made("f16", "q8_0", "q4_0")
    dropped(rig, lock)
    assert rig.has(digests) == {"q8_0", "q4_0"}


def test_another_release_makes_another_model(rig: Rig) -> None:
    rig.manifest("one", ["q4_0"])
    rig.manifest("two", ["q4_0"], frameworks={"llama.cpp": {"release": "2026-10-01"}})
    lock, digests = rig.made("q4_0")
    dropped(rig, lock)
    assert rig.has(digests) == set()


def test_a_file_that_was_fetched_stays(rig: Rig) -> None:
    (rig.folder / "m.gguf").write_bytes(model())
    rig.manifest("one", ["as-is", "q4_0"], {"file": "m.gguf"})
    lock, digests = rig.made("q4_0", whole="as-is", source="file:m.gguf")
    dropped(rig, lock)
    assert rig.has(digests) == {"as-is"}


def test_what_locks_outside_the_study_name_stays(rig: Rig) -> None:
    rig.manifest("one", ["q3_K", "q4_0"])
    lock, digests = rig.made("q3_K", "q4_0")
    own, other = rig.folder / "one.lock.yaml", rig.folder / "other.lock.yaml"
    own.write_text(f"{digests['q3_K']}\n{digests['q4_0']}\n")
    other.write_text(digests["q4_0"])
    rig.store.add_root(own)
    rig.store.add_root(other)
    found = dropped(rig, lock)
    assert rig.has(digests) == {"q4_0"}
    assert found.kept == {digests["q4_0"]}


def test_made_up_weights_go_whoever_names_them(rig: Rig) -> None:
    rig.manifest("one", ["q4_0"])
    lock, digests = rig.made("q4_0", whole="as-is")
    rig.store.put_ref("pins", "0" * 64, {"source": WEIGHTS, "digest": digests["as-is"]})
    other = rig.folder / "other.lock.yaml"  # every lock of a manifest with that model names what it is made of
    other.write_text(digests["as-is"])
    rig.store.add_root(other)
    dropped(rig, lock)
    assert rig.has(digests) == set()


def test_nothing_goes_while_another_process_uses_the_store(rig: Rig) -> None:
    rig.manifest("one", ["q4_0"])
    lock, digests = rig.made("q4_0")  # the rig's store stands for another process: it holds a lock file of its own
    with pytest.raises(StoreError, match="in use"):
        rig.drop(lock)
    assert rig.has(digests) == {"q4_0"}
