"""Locks: written in a stable order, read back the same, refused when damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro import settings
from meltrepro.build.pins import Pins
from meltrepro.errors import LockError, LockFormatError
from meltrepro.manifest.lock import (
    Lock,
    LockedArtifact,
    LockedBase,
    LockedPackage,
    LockedSource,
    LockedToolchain,
    differences,
    dump_lock,
    load_lock,
    lock_path,
)
from meltrepro.steps import Step, silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher

DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
NAME = st.from_regex(r"[a-z][a-z0-9.:=*/_-]{0,30}", fullmatch=True)
SOURCE = st.builds(
    LockedSource,
    digest=DIGEST,
    size=st.none() | st.integers(0, 10**12),
    filename=st.none() | NAME,
    archive=st.none() | DIGEST,
)
PACKAGE = st.builds(
    LockedPackage,
    version=st.sampled_from(["3.25", "1:2.41.5-0+deb13u1", "9.7-3"]),
    architecture=st.just("amd64"),
    digest=DIGEST,
)
NODE = st.sampled_from(["m/q4_0/f", "m/as-is/f", "f/run/x86_64_v3", "m/as-is/f/logits/text"])
LOCK = st.builds(
    Lock,
    lock=st.just(1),
    manifest=DIGEST,
    sources=st.dictionaries(NAME, SOURCE, max_size=3),
    prompts=st.dictionaries(NAME, DIGEST, max_size=2),
    base=st.none()
    | st.builds(LockedBase, suite=st.just("trixie"), layer=DIGEST, packages=st.dictionaries(NAME, PACKAGE, max_size=3)),
    toolchain=st.none()
    | st.builds(
        LockedToolchain, digest=DIGEST, image=st.just("sha256:0"), wheels=st.dictionaries(NAME, DIGEST, max_size=2)
    ),
    recipes=st.dictionaries(NAME, DIGEST, max_size=2),
    artifacts=st.dictionaries(NODE, st.builds(LockedArtifact, key=DIGEST, digest=DIGEST), max_size=3),
)
A, B = "a" * 64, "b" * 64


@given(LOCK)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, lock: Lock) -> None:
    path = tmp_path_factory.mktemp("lock") / "x.lock.yaml"
    path.write_text(dump_lock(lock))
    assert load_lock(path) == lock


def test_one_pin_is_one_line(tmp_path: Path) -> None:
    before = Lock(lock=1, manifest=A, sources={"x": LockedSource(digest=A), "y": LockedSource(digest=A)})
    after = before.model_copy(update={"sources": {**before.sources, "x": LockedSource(digest=B)}})
    old, new = dump_lock(before).splitlines(), dump_lock(after).splitlines()
    assert sum(a != b for a, b in zip(old, new, strict=True)) == 1


def test_the_order_of_making_does_not_show() -> None:
    sources = {"x": LockedSource(digest=A), "y": LockedSource(digest=B)}
    turned = dict(reversed(sources.items()))
    assert dump_lock(Lock(lock=1, manifest=A, sources=sources)) == dump_lock(Lock(lock=1, manifest=A, sources=turned))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lock: 2\nmanifest: " + A, "format version 2, expected 1"),
        ("lock: 1\nmanifest: 12", "manifest"),
        ("lock: 1\nmanifest: [", "lock.yaml:"),
        ("", "the file is empty"),
        ("lock: 1\nmanifest: " + A + "\nextra: 1\n", "extra"),
    ],
)
def test_a_damaged_lock_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "x.lock.yaml"
    path.write_text(text)
    with pytest.raises(LockError, match=expected) as caught:
        load_lock(path)
    assert caught.value.hint


def test_a_newer_format_says_to_update(tmp_path: Path) -> None:
    path = tmp_path / "x.lock.yaml"
    path.write_text("lock: 7\n")
    with pytest.raises(LockFormatError) as caught:
        load_lock(path)
    assert "newer meltrepro" in str(caught.value.hint)


@given(LOCK, LOCK)
def test_differences_are_all_entries_that_differ(first: Lock, second: Lock) -> None:
    found = differences(first, second)
    assert (not found) == (first == second)
    assert all(old != new for old, new in found.values())
    assert differences(second, first) == {name: (new, old) for name, (old, new) in found.items()}


def test_a_difference_names_the_entry_and_both_values() -> None:
    old = Lock(lock=1, manifest=A, sources={"x": LockedSource(digest=A, size=1)}, recipes={"r": A})
    new = Lock(lock=1, manifest=A, sources={"x": LockedSource(digest=B, size=1)})
    assert differences(old, new) == {"sources: x: digest": (A, B), "recipes: r": (A, None)}


@given(LOCK, st.sets(NAME, max_size=2))
def test_a_narrowed_lock_lacks_other_artifacts_and_recipes_alone(lock: Lock, others: set[str]) -> None:
    whole = lock.narrowed({*lock.artifacts, *others}, {*lock.recipes, *others})
    assert whole == lock
    kept = lock.narrowed(sorted(lock.artifacts)[:1], ())
    assert set(kept.artifacts) == set(sorted(lock.artifacts)[:1])
    lost = {name for name in lock.artifacts if name not in kept.artifacts} | set(lock.recipes)
    assert {name.split(": ")[1] for name in differences(lock, kept)} == lost


def test_no_lock_is_no_error(tmp_path: Path) -> None:
    assert load_lock(tmp_path / "none.lock.yaml") is None
    assert lock_path(Path("a/spec.yaml")) == Path("a/spec.lock.yaml")


def test_a_lock_that_changes_in_somebodys_hands_says_so(tmp_path: Path) -> None:
    """`--set` is enough to change one."""
    path, steps = tmp_path / "a.lock.yaml", list[Step]()
    store = Store(tmp_path / "store")
    pins = Pins(Lock(lock=1, manifest=A), store, Fetcher(store, settings.load(), silent), steps.append, tmp_path)
    pins.complete(A, {"everyday.yaml": A, "other.yaml": A})
    pins.save(path, tmp_path / "a.yaml")
    assert not steps, "it is new"
    pins.complete(B, {"everyday.yaml": A, "other.yaml": A})
    pins.save(path, tmp_path / "a.yaml")
    assert not steps, "the manifest was edited, by whoever reads this"
    pins.complete(B, {"everyday.yaml": B})
    pins.save(path, tmp_path / "a.yaml")
    (step,) = steps
    assert step.subject == str(path)
    assert "everyday.yaml" in step.detail["changed"] and "other.yaml" in step.detail["changed"]
