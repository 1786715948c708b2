"""What gc frees and what it keeps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from meltrepro.cli.gc import command, parse_size
from meltrepro.errors import StoreError, UsageError
from meltrepro.store.archive import pack_tree
from meltrepro.store.cas import Store
from meltrepro.store.gc import Cleanup, Policy, collect

DAY_S = 86400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache" / "store")


def put(store: Store, content: bytes, age_days: float, *, ref: str | None = None) -> str:
    """An object, with a result that names it, both last used some days ago."""
    digest = store.put_bytes(content)
    paths = [store.root / "verified" / digest[:2] / digest[2:]]
    if ref is not None:
        store.put_ref("actions", ref, {"deep": [{"digest": digest}]})
        paths.append(store.root / "refs" / "actions" / f"{ref}.json")
    for path in paths:
        os.utime(path, (time.time() - age_days * DAY_S,) * 2)
    return digest


def kinds(decision: Cleanup) -> set[str]:
    return {removal.kind for removal in decision.removals}


def test_leftovers_and_unnamed_objects_go(store: Store) -> None:
    named, unnamed = put(store, b"named", 9, ref="a"), put(store, b"unnamed", 0)
    store.partial("x").write_bytes(b"p" * 1000)
    for leftover in (
        "refs/artifacts/.a.json.x.tmp",
        "verified/ab/.c.x.tmp",
        "tmp/abc",
        "scratch/killed/deep",
        "quarantine/q",
        "rootfs/key/bin",
        "logs/a.log",
    ):
        (store.root / leftover).parent.mkdir(parents=True, exist_ok=True)
        (store.root / leftover).write_bytes(b"x")
    (store.root / "scratch/killed").chmod(0o500)
    dry = collect(store, Policy(), dry_run=True)
    assert store.has(unnamed) and store.partial("x").exists()
    assert collect(store, Policy()) == dry
    assert kinds(dry) == {"unfinished", "objects"}
    assert store.has(named) and not store.has(unnamed)
    assert [list((store.root / name).iterdir()) for name in ("partial", "tmp", "scratch", "quarantine")] == [[]] * 4
    assert list(store.root.rglob("*.tmp")) == []
    assert (store.root / "rootfs/key/bin").exists() and (store.root / "logs/a.log").exists()
    assert collect(store, Policy()).removals == ()


def test_unpacked_trees_go_and_come_back(store: Store, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a").write_bytes(b"x")
    pack_tree(tmp_path / "t", tmp_path / "t.tar")
    digest = store.put_file(tmp_path / "t.tar")
    store.put_ref("actions", "t", {"digest": digest})
    folder = store.unpack(digest)
    assert kinds(collect(store, Policy())) == {"unpacked trees"}
    assert not folder.exists()
    assert (store.unpack(digest) / "a").read_bytes() == b"x"


def test_older_than_drops_results_that_were_not_used(store: Store) -> None:
    old, new = put(store, b"old", 30, ref="old"), put(store, b"new", 3, ref="new")
    collect(store, Policy(older_than_s=10 * DAY_S))
    assert not store.has(old) and store.get_ref("actions", "old") is None
    assert store.has(new) and store.get_ref("actions", "new") is not None


def test_using_a_result_or_an_object_makes_it_young(store: Store) -> None:
    first = put(store, b"1" * 100, 30, ref="first")
    second = put(store, b"2" * 100, 20, ref="second")
    store.get_ref("actions", "first")
    store.verify(first)
    collect(store, Policy(older_than_s=25 * DAY_S, max_bytes=150))
    assert store.has(first) and not store.has(second)


def test_max_size_takes_the_longest_unused_first(store: Store) -> None:
    digests = [put(store, bytes([n]) * 1000, 10 - n, ref=str(n)) for n in range(5)]
    decision = collect(store, Policy(max_bytes=2500))
    assert [store.has(digest) for digest in digests] == [False, False, False, True, True]
    assert [store.get_ref("actions", str(n)) is None for n in range(5)] == [True, True, True, False, False]
    assert decision.kept_bytes == 2000


def test_what_a_lock_names_stays_whatever_is_asked(store: Store, tmp_path: Path) -> None:
    locked = put(store, b"locked", 90, ref="locked")
    loose = put(store, b"in the lock without a result", 90)
    other = put(store, b"other", 1, ref="other")
    lock = tmp_path / "spec.lock.yaml"
    lock.write_text(f"sources:\n  a: {{digest: {locked}}}\n  b: {loose}\n")
    store.add_root(lock)
    store.add_root(lock)
    decision = collect(store, Policy(everything=True, older_than_s=0, max_bytes=0))
    assert (store.has(locked), store.has(loose), store.has(other)) == (True, True, False)
    assert store.get_ref("actions", "locked") is not None
    assert decision.locked_bytes == decision.kept_bytes == len(b"locked") + len(b"in the lock without a result")
    lock.unlink()
    collect(store, Policy(everything=True))
    assert not store.has(locked) and not store.has(loose)
    assert store.list_refs("roots") == {}


def test_a_lock_that_cannot_be_read_stops_everything(store: Store, tmp_path: Path) -> None:
    digest = put(store, b"x", 1)
    (tmp_path / "folder.lock.yaml").mkdir()
    store.add_root(tmp_path / "folder.lock.yaml")
    with pytest.raises(StoreError, match="nothing was removed"):
        collect(store, Policy())
    assert store.has(digest)


def test_all_takes_results_and_build_caches(store: Store) -> None:
    digest = put(store, b"x", 0, ref="x")
    (store.root / "zig-cache" / "k").mkdir(parents=True)
    (store.root / "zig-cache" / "k" / "f").write_bytes(b"y" * 10)
    decision = collect(store, Policy(everything=True))
    assert not store.has(digest) and not (store.root / "zig-cache" / "k").exists()
    assert decision.kept_bytes == 0


def test_a_store_in_use_is_left_alone(store: Store) -> None:
    unnamed = put(store, b"x", 1)
    program = (
        "import sys; from pathlib import Path; from meltrepro.store.cas import Store\n"
        "store = Store(Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
    )
    user = subprocess.Popen(
        [sys.executable, "-c", program, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert user.stdout is not None and user.stdout.readline() == "ready\n"
    with pytest.raises(StoreError, match=f"in use by process {user.pid} "):
        collect(store, Policy())
    assert store.has(unnamed)
    user.communicate()
    collect(store, Policy())
    assert not store.has(unnamed)


def test_whoever_comes_while_gc_is_at_work_waits(store: Store) -> None:
    store.put_bytes(b"x")
    program = (
        "import sys, time; from pathlib import Path; from meltrepro.store.cas import Store\n"
        "print('ready', flush=True); store = Store(Path(sys.argv[1])); print(time.monotonic())"
    )
    with store.alone():
        other = subprocess.Popen([sys.executable, "-c", program, str(store.root)], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        time.sleep(0.5)
        released = time.monotonic()
    assert float(other.communicate()[0]) >= released


def test_no_store_is_nothing_to_do(tmp_path: Path) -> None:
    assert collect(Store(tmp_path / "none"), Policy(everything=True)) == Cleanup((), 0, 0)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10**10), ("500 MB", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("0", 0), ("7k", 7000), ("12B", 12)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "10 apples", "1,5GB", "1e9"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="expected a size"):
        parse_size(text)


def test_the_command_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill() -> None:
        store = Store(tmp_path / "cache" / "store")
        put(store, b"x" * 5000, 0)
        put(store, b"y" * 3000, 0, ref="y")

    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    app = typer.Typer()
    app.command()(command)
    fill()
    dry = CliRunner().invoke(app, ["--dry-run"])
    assert dry.exit_code == 0 and "would free 5.0 kB" in dry.output and "3.0 kB stay" in dry.output
    done = CliRunner().invoke(app, ["--max-size", "1kB", "--older-than", "2"])
    assert done.exit_code == 0 and "freed 8.1 kB" in done.output and "0 B stay" in done.output
    assert isinstance(CliRunner().invoke(app, ["--max-size", "much"]).exception, UsageError)
