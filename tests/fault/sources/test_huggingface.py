"""Files of a hub: pinned, transferred, gated, and the token that goes nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.errors import (
    DigestMismatch,
    SourceError,
)
from meltrepro.store.source import Pin
from tests.fault.fileserver import FileServer, file_server
from tests.fault.sources.bench import COMMIT, HF, HF_PATH, MODEL, Bench, sha


def test_a_large_file_of_the_hub_is_pinned_without_its_bytes(bench: Bench, hub: FileServer) -> None:
    hub.headers[HF_PATH] = {"X-Linked-ETag": f'"{sha(MODEL)}"', "X-Linked-Size": str(len(MODEL))}
    fetcher = bench.fetcher()
    pin = fetcher.pin(HF, Path())
    assert pin == Pin(
        source=f"huggingface:org/model@{COMMIT}:sub/model.gguf",
        digest=sha(MODEL),
        size=len(MODEL),
        filename="model.gguf",
    )
    assert hub.gets(HF_PATH) == []
    assert fetcher.get(HF).read_bytes() == MODEL


def test_a_small_file_of_the_hub_is_transferred(bench: Bench, hub: FileServer) -> None:
    assert bench.fetcher().estimate(HF) == len(MODEL)
    assert bench.fetcher().get(HF).read_bytes() == MODEL


def test_what_the_hub_announces_is_not_trusted(bench: Bench, hub: FileServer) -> None:
    hub.headers[HF_PATH] = {"X-Linked-ETag": f'"{"0" * 64}"', "X-Linked-Size": "5"}
    with pytest.raises(DigestMismatch, match=f"{'0' * 64}.*{sha(MODEL)}"):
        bench.fetcher().get(HF)
    with pytest.raises(DigestMismatch, match=f"{sha(MODEL)}.*{'0' * 64}"):
        bench.fetcher().get(HF.model_copy(update={"digest": sha(MODEL)}))


def test_the_token_goes_to_the_hub_and_nowhere_else(
    bench: Bench, hub: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    with file_server() as elsewhere:
        elsewhere.files["/blob"] = MODEL
        hub.orders[HF_PATH] = [f"redirect http://localhost:{elsewhere.port}/blob"]
        bench.fetcher().get(HF)
        assert hub.gets(HF_PATH)[0].headers["Authorization"] == "Bearer hf_hunter2"
        assert "Authorization" not in elsewhere.gets("/blob")[0].headers
    files = [path.read_text(errors="replace") for path in bench.store.root.rglob("*.json")]
    assert "hunter2" not in f"{bench.steps} {files}"


@pytest.mark.parametrize("status", [401, 404])
def test_a_login_for_the_hub_itself_is_not_told(
    bench: Bench, hub: FileServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("//", "//me:hunter2@"))
    hub.orders[HF_PATH] = [f"status {status}"]
    with pytest.raises(SourceError) as caught:
        bench.fetcher().get(HF)
    assert "hunter2" not in f"{caught.value}{caught.value.hint}{bench.steps}"
    with pytest.raises(SourceError) as caught:
        bench.fetcher().get(HF.model_copy(update={"file": None}))
    assert "hunter2" not in f"{caught.value}{caught.value.hint}{bench.steps}"


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("token", ["", "hf_hunter2"])
def test_a_gated_model_is_explained(
    bench: Bench, hub: FileServer, monkeypatch: pytest.MonkeyPatch, status: int, token: str
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.files.pop(HF_PATH)
    hub.orders[HF_PATH] = [f"status {status}"]
    with pytest.raises(SourceError, match="org/model") as caught:
        bench.fetcher().get(HF)
    hint = caught.value.hint or ""
    assert f"{hub.url}/org/model" in hint and "terms" in hint and ("HF_TOKEN" in hint) == (not token)
    assert "hunter2" not in f"{caught.value}{hint}{bench.steps}"
