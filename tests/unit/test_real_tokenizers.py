"""Shapes with real tokenizers: what is read from a vocabulary, how it is named, and what cannot load it, told before there is a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf as library
import pytest

from meltrepro.errors import OfflineError
from meltrepro.frameworks.base import Skip, framework
from meltrepro.frameworks.llamacpp import tokenizers
from meltrepro.frameworks.llamacpp.gguf import check
from meltrepro.frameworks.llamacpp.synthetic import GgufWeights, file_bytes, header_of, pieces
from meltrepro.frameworks.llamacpp.tokenizers import RealTokenizer
from meltrepro.frameworks.llamacpp.variants import TOOLS
from meltrepro.manifest.shapes import SHAPES, ShapeName
from meltrepro.manifest.sources import PypiSource, SyntheticSource
from meltrepro.settings import Settings
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.store.source import key_of
from tests.support.ggufs import ARRAY, I32, STRING, U32, gguf

TOKENS = ["<end>", "a", "b", "ab", "[PAD4]", "[PAD5]"]
MERGES = ["a b"]
LISTED = sum(8 + len(text) for text in (*TOKENS, *MERGES)) - len("<end>") + len("<|endoftext|>")
FAKE = RealTokenizer(
    *("fake", 6, LISTED, 1, "gpt2", "olmo"),
    numbers={"bos": 0, "eos": 0},
    begins=False,
    template="fake",
    template_bytes=len("{{ 'ä' }}".encode()),
    named={0: ("<|endoftext|>", 3), 7: ("<|user|>", 3)},
)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that a tokenizer is read from."""
    monkeypatch.setitem(tokenizers.REAL, "olmoe", FAKE)
    lists = {
        "tokenizer.ggml.model": (STRING, "another"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, TOKENS)),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [3, 1, 1, 1, 4, 4])),
        "tokenizer.ggml.merges": (ARRAY, (STRING, MERGES)),
        "tokenizer.ggml.bos_token_id": (U32, 5),
    }
    (tmp_path / "ggml-vocab-fake.gguf").write_bytes(gguf(lists, []))
    (tmp_path / "fake.jinja").write_text("{{ 'ä' }}", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("rows", [5, 6, 9])
def test_what_a_file_says_of_its_tokenizer(rows: int, source: Path, tmp_path: Path) -> None:
    """Cut to fewer rows, or filled with unused ones up to more; a family's own tokens stand at their numbers."""
    shape = replace(SHAPES["tiny-olmoe"], vocabulary=rows, layers=1)

    def bring(part: PypiSource, archive: PypiSource) -> Path:
        assert archive.digest and part.member and part.digest is not None
        return source / part.member.rpartition("/")[2]

    path = tmp_path / "m.gguf"
    path.write_bytes(b"".join(bytes(piece) for piece in pieces(shape, 1, bring)))
    assert path.stat().st_size == file_bytes(shape)
    fields = {key: field.contents() for key, field in library.GGUFReader(path).fields.items()}
    texts = ["<|endoftext|>", "a", "b", "ab", "[PAD4]", "[PAD5]", "[PAD6]", "<|user|>", "[PAD8]"]
    assert fields["tokenizer.ggml.tokens"] == texts[:rows]
    assert fields["tokenizer.ggml.token_type"] == [3, 1, 1, 1, 5, 5, 5, 3, 5][:rows]
    assert fields["tokenizer.ggml.merges"] == MERGES
    assert fields["tokenizer.ggml.model"] == "gpt2" and fields["tokenizer.ggml.pre"] == "olmo"
    assert fields["tokenizer.ggml.bos_token_id"] == 0 and fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.chat_template"] == "{{ 'ä' }}"


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-stablelm"])
def test_a_header_is_known_before_there_is_a_file(name: ShapeName, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"".join(bytes(piece) for piece in pieces(SHAPES[name], 0)))
    found, told = check(tmp_path / "m.gguf"), header_of(SHAPES[name])
    shapes = [(each.name, each.dimensions, each.type) for each in told.tensors]
    assert shapes == [(each.name, each.dimensions, each.type) for each in found.tensors]
    for key, value in told.values.items():
        true = found.values[key]
        near = isinstance(true.content, float)
        assert (value.content, value.count) == (pytest.approx(true.content) if near else true.content, true.count), key


def test_names_hold_what_their_tokens_are_read_from() -> None:
    keys = {name: key_of(SyntheticSource(synthetic=name)) for name in SHAPES}
    assert keys["tiny-llama"] == "synthetic:tiny-llama:1:1"
    assert keys["qwen3-0.6b"].startswith("synthetic:qwen3-0.6b:1:1:") and len(keys["qwen3-0.6b"]) == 37
    assert keys["qwen3-0.6b"].rpartition(":")[2] == keys["qwen3-4b"].rpartition(":")[2]
    assert keys["llama-3.2-1b"].rpartition(":")[2] != keys["smollm3-3b"].rpartition(":")[2]


def reason(kind: str, name: ShapeName, release: str = "", quantization: str = "q4_0") -> str | None:
    """Why a framework makes no model of a shape; `None` where it does."""
    found, variant = framework(kind), replace(TOOLS, data={})
    known = found.releases()[release or [*found.releases()][-1]]
    steps = found.model_steps(SyntheticSource(synthetic=name), quantization, known, variant)
    return steps.reason if isinstance(steps, Skip) else None


@pytest.mark.parametrize(
    ("kind", "name", "release", "why"),
    [
        ("llama.cpp", "gemma-3-1b", "2024-02-27", "release 2024-02-27 does not know architecture gemma3 "),
        ("llama.cpp", "olmoe-1b-7b", "2024-02-27", "does not know architecture olmoe "),
        ("llama.cpp", "llama-3.2-1b", "2024-02-27", "does not look at pre-tokenizers"),
        ("onnxruntime", "qwen3-0.6b", "", "models of architecture qwen3 are not converted"),
        ("openvino", "phi-4-mini", "", "models of architecture phi3 are not converted"),
        ("mlc", "qwen3-30b-a3b", "", "models of architecture qwen3moe are not converted"),
        ("onnxruntime", "gemma-2b", "", "models of architecture gemma are not converted"),
    ],
)
def test_what_cannot_be_loaded_is_told_by_the_shape_alone(kind: str, name: ShapeName, release: str, why: str) -> None:
    assert why in (reason(kind, name, release, "q4f16_1" if kind == "mlc" else "q4_0") or "")


def test_what_can_be_loaded() -> None:
    assert [name for name in SHAPES if reason("llama.cpp", name) is not None] == []
    assert reason("openvino", "llama-3.2-1b") is None and reason("onnxruntime", "llama-3.2-3b") is None
    assert reason("mlc", "qwen3-0.6b", quantization="q4f16_1") is None
    assert reason("llama.cpp", "tinyllama-1.1b", "2024-02-27") is None


def test_without_a_network_and_the_source_nothing_is_begun(tmp_path: Path) -> None:
    at = Settings(cache=tmp_path, home=tmp_path, offline=True, mirrors=None, jobs=1)
    fetcher = Fetcher(Store(tmp_path / "store"), at, lambda step: None, weights={"": GgufWeights()})
    with pytest.raises(OfflineError, match="llama-cpp-python"):
        fetcher.get(SyntheticSource(synthetic="tiny-qwen3"))
    assert [path for path in (tmp_path / "store" / "objects").rglob("*") if path.is_file()] == []
