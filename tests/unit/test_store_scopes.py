"""Scopes of the store: what work on one recorded campaign learns and builds is read and written there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from meltrepro import errors
from meltrepro.store.cas import Store
from meltrepro.store.gc import Policy, collect


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def scope(store: Store, tmp_path: Path) -> Store:
    (tmp_path / "lock.yaml").write_text("lock: 1\n")
    store.add_root(tmp_path / "lock.yaml")
    return store.scoped(tmp_path / "lock.yaml")


def test_a_scope_reads_ones_own_and_writes_its_own(store: Store, scope: Store) -> None:
    store.put_ref("pins", "a", {"digest": "mine"})
    store.put_ref("pins", "b", {"digest": "mine"})
    scope.put_ref("pins", "a", {"digest": "theirs"})
    assert scope.list_refs("pins") == {"a": {"digest": "theirs"}, "b": {"digest": "mine"}}
    assert store.list_refs("pins") == {"a": {"digest": "mine"}, "b": {"digest": "mine"}}
    scope.drop_ref("pins", "a")
    scope.drop_ref("pins", "b")
    assert scope.list_refs("pins") == store.list_refs("pins")
    assert scope.own is store and scope.scoped(scope.root.parent / "lock.yaml").own is store
    digest = scope.put_bytes(b"content")
    assert store.has(digest), "objects are the same for all"


def test_gc_keeps_a_scope_as_long_as_its_lock_is_there(store: Store, scope: Store, tmp_path: Path) -> None:
    digest = scope.put_bytes(b"content")
    scope.put_ref("converted", "a", {"digest": digest})
    (scope.place / "zig-cache" / "k").mkdir(parents=True)
    assert collect(store, Policy()).removals == ()
    assert store.has(digest) and scope.get_ref("converted", "a")
    (tmp_path / "lock.yaml").unlink()
    assert {removal.kind for removal in collect(store, Policy()).removals} == {"results", "objects"}
    assert not store.has(digest) and not scope.place.exists()
    assert collect(store, Policy(everything=True)).removals == ()


def test_gc_believes_no_stranger_that_an_object_can_be_made_again(store: Store, scope: Store) -> None:
    digest = store.put_bytes(b"my model")
    store.put_ref("artifacts", "a", {"digest": digest})
    scope.put_ref("pins", "a", {"source": "synthetic:llama-7b:0:1", "digest": digest})
    collect(store, Policy())
    assert store.has(digest)


def test_the_digest_of_a_lock_is_the_name_of_its_scope(store: Store, scope: Store) -> None:
    """An id could be anybody's."""
    assert scope.place.name == hashlib.sha256(b"lock: 1\n").hexdigest()
    with pytest.raises(errors.StoreError, match="cannot be read"):
        store.scoped(store.root / "nowhere")
