"""Every kind of source offline, mirrored, and damaged in the store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from meltrepro.errors import (
    CorruptStore,
    DigestMismatch,
    OfflineError,
    SourceError,
)
from meltrepro.manifest.sources import GitSource, Source, UrlSource
from meltrepro.store.source import Pin
from tests.fault.fileserver import FileServer
from tests.fault.sources.bench import COMMIT, HF, MEMBER, MODEL, TINY, WHEEL, WHEEL_NAME, Bench, sha

EVERY: list[Source] = [
    TINY,
    MEMBER,
    HF,
    GitSource(git="https://git.example/x.git", commit=COMMIT),
    UrlSource(url="https://files.example/m.gguf", digest=sha(MODEL)),
]


@pytest.mark.parametrize("source", EVERY, ids=lambda source: type(source).__name__)
def test_offline_names_what_is_missing_and_asks_nobody(bench: Bench, index: FileServer, source: Source) -> None:
    fetcher = bench.fetcher(offline=True)
    for one in (source, UrlSource(url="https://x/y", digest="0" * 64)):
        with pytest.raises(OfflineError, match="offline, and the store does not hold") as caught:
            fetcher.get(one)
        assert "MELTREPRO_MIRRORS" in (caught.value.hint or "")
    assert fetcher.estimate(source) is None
    assert index.asked == []


def test_offline_the_store_is_enough(bench: Bench, index: FileServer) -> None:
    for source in (TINY, MEMBER):
        bench.fetcher().get(source)
    index.asked.clear()
    offline = bench.fetcher(offline=True)
    assert offline.get(MEMBER).read_bytes() == MODEL
    assert offline.pin(TINY, Path()).filename == WHEEL_NAME
    # Known by digest alone, as after importing a bundle.
    offline.forget("pypi:tiny-model==1.0:wheel")
    pinned = TINY.model_copy(update={"digest": sha(WHEEL)})
    assert offline.pin(pinned, Path()) == Pin(source="pypi:tiny-model==1.0:wheel", digest=sha(WHEEL), size=len(WHEEL))
    assert offline.get(pinned).read_bytes() == WHEEL
    assert index.asked == []


def test_mirrors_stand_in_for_every_source(bench: Bench, repository: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / WHEEL_NAME).write_bytes(WHEEL)
    (tmp_path / "m.gguf").write_bytes(MODEL)
    folder, commit = repository
    fetcher = bench.fetcher(
        offline=True,
        mirrors={
            "pypi:Tiny_Model==1.0": WHEEL_NAME,
            f"huggingface:org/model@{COMMIT}:sub/model.gguf": str(tmp_path / "m.gguf"),
            "https://git.example/x.git": str(folder),
            "https://files.example/m.gguf": "m.gguf",
        },
    )
    sources: list[Source] = [*EVERY[:3], GitSource(git="https://git.example/x.git", commit=commit), EVERY[4]]
    assert [fetcher.estimate(source) for source in sources] == [0] * 5
    contents = [fetcher.get(source).read_bytes() for source in sources]
    assert [contents[n] for n in (0, 1, 2, 4)] == [WHEEL, MODEL, MODEL, MODEL]
    assert fetcher.pin(MEMBER, Path()).archive_digest == sha(WHEEL)
    direct = GitSource(git=folder.as_uri(), commit=commit)
    assert sha(contents[3]) == fetcher.pin(direct, Path()).digest


def test_mirrors_are_checked_like_everything_else(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "bad.whl").write_bytes(WHEEL[:-1] + b"\1")
    (tmp_path / "bad").write_bytes(MODEL[::-1])
    fetcher = bench.fetcher(
        mirrors={
            "pypi:tiny-model==1.0": "bad.whl",
            "https://files.example/m.gguf": "bad",
            "https://gone.example/x": "no",
        }
    )
    with pytest.raises(DigestMismatch, match=f"pypi:tiny-model==1.0 .mirror.*{sha(WHEEL)}"):
        fetcher.get(TINY.model_copy(update={"digest": sha(WHEEL)}))
    with pytest.raises(DigestMismatch, match=f"{sha(MODEL)}.*{sha(MODEL[::-1])}"):
        fetcher.get(EVERY[4])
    with pytest.raises(SourceError, match=r"mirrors\.yaml.*https://gone.example/x.*does not exist") as caught:
        fetcher.get(UrlSource(url="https://gone.example/x", digest=sha(MODEL)))
    assert caught.value.hint is not None
    assert not bench.store.has(sha(WHEEL)) and not bench.store.has(sha(MODEL))


def test_a_flipped_byte_in_the_store_is_found_named_and_mended_by_the_next_call(
    bench: Bench, index: FileServer
) -> None:
    path = bench.fetcher().get(MEMBER)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"!")
    with pytest.raises(CorruptStore, match=sha(MODEL)):
        bench.fetcher().get(MEMBER)
    assert bench.fetcher().get(MEMBER).read_bytes() == MODEL


def test_a_pin_of_another_version_is_found_out_anew(bench: Bench, index: FileServer) -> None:
    bench.fetcher().pin(TINY, Path())
    (key,) = bench.store.list_refs("pins")
    bench.store.put_ref("pins", key, {"source": "of the future"})
    assert bench.fetcher().pin(TINY, Path()).digest == sha(WHEEL)


def test_a_second_get_is_quick(bench: Bench, index: FileServer) -> None:
    bench.fetcher().get(MEMBER)
    index.asked.clear()
    fetcher = bench.fetcher()
    begin = time.perf_counter()
    for _ in range(100):
        fetcher.get(MEMBER)
    assert time.perf_counter() - begin < 1
    assert index.asked == []
