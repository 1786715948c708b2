"""Shapes of today: real tokenizers through the real runner, sizes of what the real quantizer makes, and skips where nothing can load them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meltrepro import settings
from meltrepro.frameworks.llamacpp import tokenizers
from meltrepro.frameworks.llamacpp.mixtures import model_bytes
from meltrepro.frameworks.llamacpp.releases import SDIST
from meltrepro.frameworks.llamacpp.synthetic import GgufWeights, file_bytes
from meltrepro.manifest.configs import read_config
from meltrepro.manifest.shapes import SHAPES, ShapeName
from meltrepro.manifest.sources import SyntheticSource
from meltrepro.measure.records import read_campaign
from meltrepro.record.reader import campaign_folders
from meltrepro.settings import Settings
from meltrepro.steps import silent
from meltrepro.store.archive import open_member
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from tests.integration.conftest import meltrepro

pytestmark = pytest.mark.machine

TINY: tuple[ShapeName, ...] = (
    *("tiny-qwen3", "tiny-qwen3-moe", "tiny-llama-3", "tiny-gemma-3", "tiny-phi-4", "tiny-smollm3", "tiny-olmoe"),
)
MIXED = ("tiny-qwen3-moe", "tiny-phi-4")
"""What has matrices that the others have not; quantized in two ways."""
MANIFEST: dict[str, Any] = {
    "meltrepro": 1,
    "name": "today",
    "models": {
        name: {
            "source": {"synthetic": name},
            "chat_template": "plain",
            "quantizations": ["q4_0", *(["q4_K"] if name in MIXED else [])],
        }
        for name in TINY
    },
    "frameworks": {
        "old": {"kind": "llama.cpp", "release": "2024-02-27"},
        "new": {"kind": "llama.cpp", "release": "2026-10-01"},
        "openvino": {"release": "2026.4.1"},
    },
    "targets": {"host": {"kind": "host", "threads": 1}},
    "protocol": {"repetitions": 1, "warmups": 0},
    "measure": {"limits": {"cpu_pressure": 1}},  # a machine that runs tests is busy
}


@pytest.fixture(scope="module")
def source() -> Path:
    """The archive of the release, which has texts and their tokens for most of its vocabularies."""
    here = settings.load()
    return Fetcher(Store(here.cache / "store"), here, silent).get(SDIST)


def content(archive: Path, name: str) -> str:
    with open_member(archive, f"*/vendor/llama.cpp/models/{name}", name) as (_, file):
        return file.read().decode()


def expected(archive: Path, vocabulary: str) -> dict[str, int]:
    """How many tokens each of the vocabulary's own test texts has, but for those that no prompt can be."""
    name = f"ggml-vocab-{vocabulary}.gguf"
    texts = content(archive, f"{name}.inp").split("\n__ggml_vocab_test__\n")
    numbers = content(archive, f"{name}.out").splitlines()
    return {text: len(line.split()) for text, line in zip(texts, numbers, strict=False) if text.strip()}


CONFIG = {
    "architectures": ["OlmoeForCausalLM"],
    "hidden_size": 288,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 3,
    "num_experts": 12,
    "num_experts_per_tok": 3,
    "vocab_size": 2048,
    "max_position_embeddings": 1024,
}
"""A model that no name stands for: rows that no block of 256 fills, and a made-up tokenizer."""
JOINED = {"Cửa Việt": 5}
"""Tokens of a text where words that are tokens are put together from pairs all the same, as SmolLM3 does and Llama 3 does not."""
OUTPUTS = {"qwen2": "qwen2", "llama-bpe": "llama-bpe", "gemma-4": "gemma-4", "gpt-neox": "mpt"}
"""Whose tokens are written down, by vocabulary: MPT has that of GPT-NeoX, for which nobody did it."""


@pytest.fixture(scope="module")
def spec(engine: None, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("today") / "spec.yaml"
    conversations = [[text] for text in expected(source, "qwen2")]
    chat = {"conversations": conversations, "context": 512, "max_tokens": 1, "ignore_eos": True}
    own = {"source": {"synthetic": {"config": "config.json"}}, "chat_template": "plain", "quantizations": ["q4_0"]}
    models = {**MANIFEST["models"], "own": own}
    path.write_text(json.dumps({**MANIFEST, "models": models, "workloads": {"chat": chat}}, ensure_ascii=False))
    path.with_name("config.json").write_text(json.dumps(CONFIG))
    return path


def test_what_cannot_load_them_is_told_before_anything_is_made(spec: Path, tmp_path: Path) -> None:
    done = meltrepro("plan", spec, "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    cells = {cell["id"] for cell in plan["cells"]}
    skipped = {cell["id"]: cell["reason"] for cell in plan["skipped"]}
    assert {f"{name}/q4_0/new/host/chat" for name in TINY} <= cells
    assert "does not know architecture qwen3 " in skipped["tiny-qwen3/q4_0/old/host/chat"]
    assert "does not look at pre-tokenizers" in skipped["tiny-llama-3/q4_0/old/host/chat"]
    assert "models of architecture smollm3 are not converted" in skipped["tiny-smollm3/q4_0/openvino/host/chat"]
    assert "tiny-llama-3/q4_0/openvino/host/chat" in cells


def test_the_quantizer_makes_what_was_predicted_and_the_runner_counts_real_tokens(
    spec: Path, source: Path, tmp_path: Path
) -> None:
    built = meltrepro("build", spec, "--json", "--only", "*/new/*", home=tmp_path)
    assert built.returncode == 0, built.stderr
    made = {row["id"]: Path(row["path"]) for row in json.loads(built.stdout)}
    for name, kind in (*((name, "q4_0") for name in TINY), *((name, "q4_K") for name in TINY if name in MIXED)):
        assert made[f"{name}/{kind}/new"].stat().st_size == model_bytes(SHAPES[name], kind, "2026-10-01"), (name, kind)

    done = meltrepro("run", spec, "--only", "*/q4_0/new/*", home=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = campaign_folders(tmp_path / "records")
    cells = {cell.entry.model: cell for cell in read_campaign(folder).cells}
    assert set(cells) == {*TINY, "own"}
    shape = read_config(json.dumps(CONFIG).encode())
    assert made["own/q4_0/new"].stat().st_size == model_bytes(shape, "q4_0", "2026-10-01")
    assert cells["own"].summaries["kv_bytes"].median == shape.kv_bytes(512)
    for name in TINY:
        shape, cell = SHAPES[name], cells[name]
        real = tokenizers.of(shape)
        assert real is not None
        counts = expected(source, OUTPUTS[real.vocabulary])
        counts |= {text: each for text, each in JOINED.items() if real.pre == "smaug-bpe"}
        (trial,) = cell.repetitions
        assert [turn.n_prompt - real.begins for turn in trial.trace().turns] == [*counts.values()], name
        assert cell.summaries["kv_bytes"].median == shape.kv_bytes(512), name


DIGESTS = {  # of seed 1; another value means another generator, which needs another version
    "tiny-qwen3": "6dd888605eda04c765f055f57670901a7a811b945428e406d86567228ceaffa6",
    "tiny-qwen3-moe": "497d80f0c67c1d5f6599990bcae2bcfd9429c2e15a0f280656026d36286180f7",
    "tiny-llama-3": "45abbd38276c1ea51316c0a4c4a33ca4a562fd69854de0063d13293f475c3419",
    "tiny-gemma-3": "cd99deb16717b6f8fc97ae39f27ed98bdff956c033028b33cfc223437883afc8",
    "tiny-phi-4": "9359a59bcf8b9c12f567ed23e028c5f1fc83504425e68faf74a911a3e5563d5a",
    "tiny-smollm3": "4b41f5d7b2b5d0465ec3450618de0e93bd42b7c0516b3bf0dc756723562e574e",
    "tiny-olmoe": "05790517018c0d2e9e129a0502bfa7153aaebb77f8f1f39df73565cd682b3495",
}


@pytest.mark.parametrize("name", TINY)
def test_the_bytes_are_fixed_and_as_many_as_were_told(name: ShapeName, source: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert store.put_file(source) == SDIST.digest
    at = Settings(cache=tmp_path, home=tmp_path, offline=True, mirrors=None, jobs=1)
    fetcher = Fetcher(store, at, silent, weights={"": GgufWeights()})  # asks nobody: the source is here
    pin = fetcher.pin(SyntheticSource(synthetic=name), tmp_path)
    assert (pin.digest, pin.size) == (DIGESTS[name], file_bytes(SHAPES[name]))
    assert store.size(pin.digest) == pin.size


def test_a_shape_brings_its_chat_template(spec: Path, tmp_path: Path) -> None:
    """The real one, whose marks are tokens of their own: `<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n` are nine."""
    models = {name: {"source": {"synthetic": name}, "quantizations": ["q4_0"]} for name in ("tiny-qwen3", "tiny-phi-4")}
    chat = {"conversations": [["Hi"]], "context": 64, "max_tokens": 1, "ignore_eos": True}
    frameworks = {"new": MANIFEST["frameworks"]["new"]}
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps({**MANIFEST, "models": models, "frameworks": frameworks, "workloads": {"chat": chat}}))
    done = meltrepro("run", path, home=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = campaign_folders(tmp_path / "records")
    turns = {cell.entry.model: cell.repetitions[0].trace().turns for cell in read_campaign(folder).cells}
    assert {name: [turn.n_prompt for turn in each] for name, each in turns.items()} == {
        "tiny-qwen3": [9],
        "tiny-phi-4": [7],
    }
