"""The content-addressed store: what goes in comes out, what was touched is found, what is named is kept."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meltrepro.errors import CorruptStore, DigestMismatch, SourceError, StoreError
from meltrepro.store.archive import EPOCH
from meltrepro.store.cas import Store
from tests.support.examples import examples

HELLO = hashlib.sha256(b"hello").hexdigest()
NOTHING_LEFT = {"objects", "verified", "locks", "tmp"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def tamper(path: Path, content: bytes) -> None:
    """Change an object and set its times back, as well as anybody can."""
    info = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(stat.S_IMODE(info.st_mode))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def leftovers(store: Store) -> list[Path]:
    return list((store.root / "tmp").iterdir())


def test_a_new_store_touches_nothing_until_it_is_written_to(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert not store.has(HELLO)
    assert store.get_ref("a", "b") is None
    assert store.list_refs("a") == {}
    assert not (tmp_path / "store").exists()


@given(content=st.binary(max_size=5000))
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_come_out_as_they_went_in(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path / "store")
    digest = store.put_bytes(content)
    assert digest == hashlib.sha256(content).hexdigest()
    assert store.has(digest)
    assert store.verify(digest, full=True) == store.path(digest) == store.root / "objects" / digest[:2] / digest[2:]
    assert store.path(digest).read_bytes() == content


def test_objects_are_read_only_and_nothing_else_stays(store: Store) -> None:
    store.put_bytes(b"hello")
    assert stat.S_IMODE(store.path(HELLO).stat().st_mode) == 0o444
    assert leftovers(store) == []


def test_a_file_is_copied_or_moved(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"hello")
    assert store.put_file(file) == HELLO
    assert file.exists() and file.stat().st_ino != store.path(HELLO).stat().st_ino
    store.delete(HELLO)
    inode = file.stat().st_ino
    assert store.put_file(file, move=True) == HELLO
    assert not file.exists() and store.path(HELLO).stat().st_ino == inode
    assert store.verify(HELLO, full=True).read_bytes() == b"hello"


def test_moving_what_is_here_already_removes_the_file(store: Store, tmp_path: Path) -> None:
    store.put_bytes(b"hello")
    inode = store.path(HELLO).stat().st_ino
    (tmp_path / "a").write_bytes(b"hello")
    store.put_file(tmp_path / "a", move=True)
    assert not (tmp_path / "a").exists()
    assert store.path(HELLO).stat().st_ino == inode


@pytest.mark.parametrize("kind", ["symlink", "hard link"])
def test_a_file_with_other_names_is_copied_even_when_it_is_moved(store: Store, tmp_path: Path, kind: str) -> None:
    (tmp_path / "real").write_bytes(b"hello")
    if kind == "symlink":
        (tmp_path / "a").symlink_to("real")
    else:
        (tmp_path / "a").hardlink_to(tmp_path / "real")
    store.put_file(tmp_path / "a", move=True)
    (tmp_path / "real").write_bytes(b"other")
    assert store.verify(HELLO, full=True).read_bytes() == b"hello"
    assert not os.path.lexists(tmp_path / "a")


def test_another_disk_is_copied_from(store: Store) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == store.root.parent.stat().st_dev:
        pytest.skip("no second file system")
    file = shared / f"meltrepro-test-{os.getpid()}"
    file.write_bytes(b"hello")
    assert store.put_file(file, move=True) == HELLO
    assert not file.exists()


def test_what_is_not_expected_is_not_stored(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    wrong = "0" * 64
    for move in (False, True):
        with pytest.raises(DigestMismatch, match=f"the model.*{wrong}.*{HELLO}"):
            store.put_file(tmp_path / "a", move=move, expected=wrong, subject="the model")
    with pytest.raises(DigestMismatch), store.writer(expected=wrong) as writer:
        writer.write(b"hello")
    assert (tmp_path / "a").exists()
    assert not store.has(HELLO) and leftovers(store) == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: None])
def test_only_regular_files_are_stored(store: Store, tmp_path: Path, make: object) -> None:
    make(tmp_path / "a")  # type: ignore[operator]
    with pytest.raises(SourceError, match=str(tmp_path / "a")):
        store.put_file(tmp_path / "a")


def test_a_writer_that_is_interrupted_leaves_nothing(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.writer() as writer:
        writer.write(b"hello")
        raise KeyboardInterrupt
    assert leftovers(store) == [] and not store.has(HELLO)


def test_a_writer_takes_any_bytes_and_counts_them(store: Store) -> None:
    with store.writer() as writer:
        writer.write(bytearray(b"he"))
        writer.write(memoryview(b"xllox")[1:4])
        assert writer.size == 5
    assert writer.digest == HELLO
    assert store.has(HELLO)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "0" * 63, "A" * 64, "0" * 63 + "/", HELLO + "\n"])
def test_only_digests_name_objects(store: Store, digest: str) -> None:
    with pytest.raises(StoreError, match="not a sha256"):
        store.path(digest)


# -- tampering ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"jello", b"hello world", b""])
def test_a_changed_object_is_found_named_and_set_aside(store: Store, content: bytes) -> None:
    store.put_bytes(b"hello")
    tamper(store.path(HELLO), content)
    actual = hashlib.sha256(content).hexdigest()
    with pytest.raises(CorruptStore, match=f"{HELLO}.*{actual}") as caught:
        store.verify(HELLO)
    assert caught.value.hint is not None
    assert not store.has(HELLO)
    (aside,) = (store.root / "quarantine").iterdir()
    assert aside.read_bytes() == content and str(aside) in str(caught.value)
    assert store.put_bytes(b"hello") == HELLO  # and the next attempt heals it
    assert store.verify(HELLO).read_bytes() == b"hello"


def test_storing_the_right_bytes_again_heals_a_changed_object(store: Store) -> None:
    store.put_bytes(b"hello")
    tamper(store.path(HELLO), b"jello")
    store.put_bytes(b"hello")
    assert store.verify(HELLO, full=True).read_bytes() == b"hello"


def test_a_missing_object_says_so(store: Store) -> None:
    with pytest.raises(StoreError, match=f"does not hold {HELLO}") as caught:
        store.verify(HELLO)
    assert not isinstance(caught.value, CorruptStore)


def test_an_untouched_object_is_not_hashed_again(store: Store, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(300_000_000)
    digest = store.put_file(big, move=True)
    begin = time.perf_counter()
    store.verify(digest, full=True)
    hashing = time.perf_counter() - begin
    begin = time.perf_counter()
    store.verify(digest)
    assert time.perf_counter() - begin < hashing / 5


def test_an_object_without_a_record_is_hashed(store: Store) -> None:
    store.put_bytes(b"hello")
    (store.root / "verified" / HELLO[:2] / HELLO[2:]).unlink()
    tamper(store.path(HELLO), b"jello")
    with pytest.raises(CorruptStore):
        store.verify(HELLO)


# -- refs ---------------------------------------------------------------------------------------------------------

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(
    values=st.dictionaries(KEYS, st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**63)), max_size=5),
    kind=KEYS,
)
@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_refs_under_any_key(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, dict[str, int]], kind: str
) -> None:
    store = Store(tmp_path_factory.mktemp("refs"))
    try:
        for key, value in values.items():
            store.put_ref(kind, key, value)
    except StoreError as error:
        assert "name too long" in str(error)
        return
    assert store.list_refs(kind) == values
    assert all(path.is_relative_to(store.root / "refs") for path in store.root.rglob("*.json"))


def test_refs_are_replaced_and_dropped(store: Store) -> None:
    store.put_ref("actions", "k", {"a": 1})
    store.put_ref("actions", "k", {"a": 2})
    assert store.get_ref("actions", "k") == {"a": 2}
    store.drop_ref("actions", "k")
    store.drop_ref("actions", "k")
    assert store.get_ref("actions", "k") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "\0", '{"a": \xff'])
def test_a_damaged_ref_is_set_aside_and_found_out_anew(store: Store, text: str) -> None:
    store.put_ref("actions", "k", {"a": 1})
    (path,) = (store.root / "refs" / "actions").iterdir()
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptStore, match="k.json is damaged"):
        store.get_ref("actions", "k")
    assert store.get_ref("actions", "k") is None


# -- trees --------------------------------------------------------------------------------------------------------


def tar_object(store: Store, members: dict[str, bytes | None]) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            entry.size, entry.mode = len(content or b""), 0o4777 if name.endswith("program") else 0o600
            tar.addfile(entry, io.BytesIO(content or b""))
    return store.put_bytes(buffer.getvalue())


def test_a_tar_is_unpacked_read_only(store: Store) -> None:
    digest = tar_object(store, {"bundle": None, "bundle/bin/program": b"#!", "bundle/text": b"x", "bundle/empty": None})
    folder = store.unpack(digest)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) == [
        "bundle",
        "bundle/bin",
        "bundle/bin/program",
        "bundle/empty",
        "bundle/text",
    ]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert modes == {digest: 0o555, "bundle": 0o555, "bin": 0o555, "program": 0o555, "empty": 0o555, "text": 0o444}
    assert (folder / "bundle" / "text").stat().st_mtime == EPOCH
    before = (folder / "bundle" / "text").stat().st_ino
    assert store.unpack(digest) == folder
    assert (folder / "bundle" / "text").stat().st_ino == before


@pytest.mark.parametrize("change", ["content", "extra", "missing", "mode", "symlink", "listing", "everything"])
def test_a_tree_that_was_touched_is_unpacked_anew(store: Store, change: str) -> None:
    digest = tar_object(store, {"a": b"hello", "d/b": b"x"})
    folder = store.unpack(digest)
    for path in (folder, folder / "d"):
        path.chmod(0o755)
    match change:
        case "content":
            tamper(folder / "a", b"jello")
        case "extra":
            (folder / "d" / "more").write_text("x")
        case "missing":
            (folder / "a").unlink()
        case "mode":
            (folder / "a").chmod(0o755)
        case "symlink":
            (folder / "a").unlink()
            (folder / "a").symlink_to("/etc/passwd")
        case "listing":
            folder.with_suffix(".json").write_text("{")
        case "everything":
            (folder / "a").unlink()
            (folder / "d" / "b").unlink()
            (folder / "d").rmdir()
            folder.rmdir()
    again = store.unpack(digest)
    assert {p.relative_to(again).as_posix(): p.read_bytes() for p in again.rglob("*") if p.is_file()} == {
        "a": b"hello",
        "d/b": b"x",
    }
    assert leftovers(store) == []


def test_a_changed_tar_is_not_unpacked(store: Store) -> None:
    digest = tar_object(store, {"a": b"hello"})
    tamper(store.path(digest), b"x")
    with pytest.raises(CorruptStore):
        store.unpack(digest)


# -- locks --------------------------------------------------------------------------------------------------------


def test_a_lock_excludes_other_threads_and_names_the_holder(store: Store) -> None:
    told: list[str] = []
    order: list[str] = []
    held = threading.Event()

    def first() -> None:
        with store.lock("a/b c", told.append):
            held.set()
            time.sleep(1.4)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    with store.lock("another"):
        pass
    with store.lock("a/b c", told.append):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert len(told) == 1 and "to finish with a/b c" in told[0]


def test_a_lock_key_of_any_length(store: Store) -> None:
    with store.lock("x" * 1000), store.lock("y" * 1000):
        assert len(list((store.root / "locks").iterdir())) == 3
