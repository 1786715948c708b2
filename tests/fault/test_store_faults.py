"""The store on bad days: many processes at once, processes killed in the middle, disks that are full or read-only."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meltrepro.atomic import write_bytes
from meltrepro.errors import StoreError
from meltrepro.store.archive import pack_tree
from meltrepro.store.cas import Store
from meltrepro.store.gc import Policy, collect

MB = 1 << 20
root_only = pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Mount something on a folder; skips where this machine does not let even root mount."""
    folder.mkdir(exist_ok=True)
    result = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"cannot mount here: {result.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def nothing_half_written(store: Store) -> bool:
    temporary = store.root / "tmp"
    objects = [path for path in (store.root / "objects").rglob("*") if path.is_file()]
    whole = all(hashlib.sha256(p.read_bytes()).hexdigest() == p.parent.name + p.name for p in objects)
    return whole and not (temporary.is_dir() and any(temporary.iterdir()))


# -- many at once -------------------------------------------------------------------------------------------------


def put_and_check(root: Path, seed: int) -> list[str]:
    """Put twenty objects that other processes put too, verify and unpack them, count under a lock."""
    store = Store(root)
    digests = []
    for n in range(20):
        digest = store.put_bytes(bytes([(n * 7 + seed) % 20]) * 100_000)
        assert len(store.verify(digest, full=True).read_bytes()) == 100_000
        digests.append(digest)
        with store.lock("counter"):
            count = (store.get_ref("test", "counter") or {"n": 0})["n"]
            store.put_ref("test", "counter", {"n": count + 1})
    tar = Path(root.parent / "tree.tar")
    tree = store.unpack(store.put_file(tar))
    assert (tree / "a").read_bytes() == b"x" * 1000
    return sorted(digests)


def test_many_processes_share_a_store(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"x" * 1000)
    pack_tree(tmp_path / "tree", tmp_path / "tree.tar")
    root = tmp_path / "store"
    with multiprocessing.get_context("spawn").Pool(6) as pool:
        results = pool.starmap(put_and_check, [(root, seed) for seed in range(6)])
    store = Store(root)
    assert all(result == results[0] for result in results)
    assert store.get_ref("test", "counter") == {"n": 120}
    assert nothing_half_written(store)


PUT = """
import sys
from pathlib import Path
from meltrepro.store.cas import Store
store = Store(Path(sys.argv[1]))
print("ready", flush=True)
n = 0
while True:
    n += 1
    store.put_bytes(n.to_bytes(4, "big") * 500_000)
    store.put_ref("test", "last", {"n": n, "padding": "x" * 100_000})
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.03, 0.07])
def test_killed_at_any_moment_the_store_is_sound(tmp_path: Path, delay_s: float) -> None:
    root = tmp_path / "store"
    process = subprocess.Popen([sys.executable, "-c", PUT, str(root)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    while not (root / "refs").exists():
        time.sleep(0.001)
    time.sleep(delay_s)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    store = Store(root)
    for path in (root / "objects").rglob("*"):
        if path.is_file():
            store.verify(path.parent.name + path.name, full=True)
    last = store.get_ref("test", "last")
    assert last is None or last["n"] >= 1
    collect(store, Policy())
    assert not any((root / "tmp").iterdir()) and nothing_half_written(store)


HOLD = """
import sys, time
from pathlib import Path
from meltrepro.store.cas import Store
with Store(Path(sys.argv[1])).lock("work"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_lets_go_of_its_locks_and_is_named_until_then(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    told: list[str] = []

    def wait_told(message: str) -> None:
        told.append(message)
        process.kill()

    with Store(tmp_path / "store").lock("work", wait_told):
        assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert f"process {process.pid} (" in told[0] and "work" in told[0]


# -- full disks ---------------------------------------------------------------------------------------------------


@root_only
def test_a_full_disk(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(os.urandom(2 * MB))
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as small:
        store = Store(small / "store")
        kept = store.put_bytes(b"x" * 100_000)
        # Known beforehand, and met while writing.
        with pytest.raises(StoreError, match=r"No space left.*\(2\.1 MB needed, [\d.]+ kB free\)") as caught:
            store.put_file(big)
        assert caught.value.hint is not None and "meltrepro gc" in caught.value.hint
        with pytest.raises(StoreError, match="No space left"), store.writer() as writer:
            for _ in range(32):
                writer.write(os.urandom(65_536))
        with pytest.raises(StoreError, match="No space left"):
            pack_tree(tmp_path, small / "packed.tar")
        with pytest.raises(StoreError, match="No space left"):
            store.put_ref("a", "b", {"c": "x" * 2 * MB})
        assert store.get_ref("a", "b") is None
        assert nothing_half_written(store)
        assert store.verify(kept, full=True).read_bytes() == b"x" * 100_000
        collect(store, Policy())


@root_only
def test_a_disk_that_fills_up_while_downloading(tmp_path: Path) -> None:
    from meltrepro.steps import silent
    from meltrepro.store.download import Downloader, FileRequest
    from tests.fault.fileserver import file_server

    content = os.urandom(MB * 3 // 2)
    with (
        file_server() as server,
        mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m", "tmpfs") as small,
    ):
        server.files["/f"] = content
        server.orders["/f"] = ["drip 262144"]
        store = Store(small / "store")
        seen = 0

        def fill(step: object) -> None:
            nonlocal seen
            seen += 1
            if seen == 3:
                (small / "other").write_bytes(b"x" * MB)

        digest = hashlib.sha256(content).hexdigest()
        with pytest.raises(StoreError, match="No space left"):
            Downloader(store, fill).download(FileRequest(server.url + "/f", "url:f", digest))
        assert list((store.root / "partial").iterdir()) == []
        (small / "other").unlink()
        assert Downloader(store, silent).download(FileRequest(server.url + "/f", "url:f", digest)) == digest


LIMITED = """
import resource, sys
from pathlib import Path
from meltrepro.errors import StoreError
from meltrepro.store.cas import Store
store = Store(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    store.put_bytes(b"x" * (2 << 20))
except StoreError as error:
    print(error)
"""


def test_a_limit_on_file_sizes(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    said = subprocess.run(
        [sys.executable, "-c", LIMITED, str(store.root)], capture_output=True, text=True, check=True
    ).stdout
    assert "File too large (2.1 MB needed" in said
    assert nothing_half_written(store)


# -- stores that cannot be written --------------------------------------------------------------------------------


@root_only
def test_a_read_only_store_can_still_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    digest = store.put_bytes(b"hello")
    store.put_ref("a", "b", {"c": 1})
    with mounted(tmp_path / "store", "--bind", "-o", "ro", str(tmp_path / "store")):
        reader = Store(tmp_path / "store")
        assert reader.verify(digest).read_bytes() == b"hello"
        assert reader.verify(digest, full=True).read_bytes() == b"hello"
        assert reader.get_ref("a", "b") == {"c": 1}
        for write in (
            lambda: reader.put_bytes(b"more"),
            lambda: reader.put_ref("a", "b", {"c": 2}),
            lambda: reader.drop_ref("a", "b"),
            lambda: write_bytes(tmp_path / "store" / "x", b"y"),
        ):
            with pytest.raises(StoreError, match="Read-only file system") as caught:
                write()
            assert "MELTREPRO_CACHE" in (caught.value.hint or "")


@pytest.mark.parametrize("where", ["store", "store/objects", "store/tmp", "store/refs", "store/locks"])
def test_a_file_where_a_folder_is_needed(tmp_path: Path, where: str) -> None:
    path = tmp_path / where
    path.parent.mkdir(exist_ok=True)
    path.write_text("in the way")
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match=f"{path}.*cannot be written") as caught:
        store.put_bytes(b"hello")
        store.put_ref("a", "b", {})
    assert "move it away" in (caught.value.hint or "")
    assert path.read_text() == "in the way"


UNPRIVILEGED = """
import os, sys
from pathlib import Path
from meltrepro.errors import StoreError
from meltrepro.store.cas import Store
os.setgid(65534); os.setuid(65534)
store = Store(Path(sys.argv[1]))
print(store.verify(sys.argv[2]).read_bytes())
try:
    store.put_bytes(b"more")
except StoreError as error:
    print(error, "|", error.hint)
"""


@root_only
def test_somebody_elses_store(tmp_path: Path) -> None:
    # Below /tmp itself: pytest's own folders are closed to other users.
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        store = Store(Path(name) / "store")
        digest = store.put_bytes(b"hello")
        result = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(store.root), digest], capture_output=True, text=True, check=False
        )
        if "No module named" in result.stderr or "Permission denied" in result.stderr:
            pytest.skip("another user cannot run this interpreter")
        assert result.returncode == 0, result.stderr
        assert "b'hello'" in result.stdout and "Permission denied" in result.stdout
        assert "give this user the right" in result.stdout
