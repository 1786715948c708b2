"""How what a release knows is read out of its source: an enumeration, cases, comparisons."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from meltrepro.frameworks.llamacpp.knowledge import known, of_release, of_source
from meltrepro.frameworks.llamacpp.module import RELEASES

NAMES = 'map = { { LLM_ARCH_CLIP, "clip" }, { LLM_ARCH_LLAMA, "llama" }, { LLM_ARCH_GPTJ, "gptj" }, { LLM_ARCH_UNKNOWN, "(unknown)" } };'
TYPES = "enum ggml_type {\n A_GGML_TYPE_F32 = 0,\n GGML_TYPE_Q4_0 = 2,\n // GGML_TYPE_Q4_2 = 4, removed\n GGML_TYPE_I8 = 24,\n GGML_TYPE_I16,\n GGML_TYPE_COUNT,\n};"
LOADER = 'model * llama_model_mapping(arch) { switch (arch) { case LLM_ARCH_CLIP: case LLM_ARCH_LLAMA: x; default: throw "unsupported model architecture"; } case LLM_ARCH_GPTJ: }'
CLASSES = """
@ModelBase.register("AForCausalLM", "BForCausalLM")
class A(TextModel):
    model_arch = gguf.MODEL_ARCH.LLAMA
@ModelBase.register("CForCausalLM")
class C(A):
    pass
@ModelBase.register("GPTJForCausalLM")
class G(TextModel):
    model_arch = gguf.MODEL_ARCH.GPTJ
"""
VOCABULARY = 'if (tokenizer_model == "gpt2") { if (tokenizer_pre == "qwen2" || tokenizer_pre == "default") } else if (tokenizer_model == "none")'


def archive(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"x-1.0/vendor/llama.cpp/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return path


def test_what_has_a_case_is_loaded_and_a_name_alone_is_not(tmp_path: Path) -> None:
    today = {"llama-arch": NAMES, "llama-model": LOADER, "llama-vocab": VOCABULARY}
    files = {f"src/{name}.cpp": text for name, text in today.items()} | {"ggml/include/ggml.h": TYPES}
    found = of_source(archive(tmp_path / "a.tar.gz", files))
    assert found.architectures == ("llama",)
    assert found.types == (0, 2, 24, 25)
    assert (found.tokenizers, found.pre_tokenizers) == (("gpt2",), ("default", "qwen2"))


def test_the_oldest_release_has_all_of_it_in_one_file(tmp_path: Path) -> None:
    loader = 'static bool llm_load_tensors( switch { case LLM_ARCH_LLAMA: default: "unknown architecture" }'
    text = NAMES + loader + 'if (tokenizer_name == "llama") {'
    found = of_source(archive(tmp_path / "a.tar.gz", {"llama.cpp": text, "ggml.h": TYPES}))
    assert (found.architectures, found.tokenizers, found.pre_tokenizers) == (("llama",), ("llama",), None)


def test_a_converter_knows_what_its_classes_are_registered_for(tmp_path: Path) -> None:
    today = {"llama-arch": NAMES, "llama-model": LOADER, "llama-vocab": VOCABULARY}
    files = {f"src/{name}.cpp": text for name, text in today.items()} | {"ggml/include/ggml.h": TYPES}
    files["gguf-py/gguf/constants.py"] = 'X = {MODEL_ARCH.LLAMA: "llama", MODEL_ARCH.GPTJ: "gptj"}'
    files["conversion/base.py"] = 'if quant_method == "fp8": pass\nelif quant_method == "compressed-tensors": pass'
    files["conversion/llama.py"] = CLASSES
    found = of_source(archive(tmp_path / "a.tar.gz", files))
    assert found.checkpoints == {"AForCausalLM": "llama", "BForCausalLM": "llama", "CForCausalLM": "llama"}, (
        "of a base its own, and none that cannot be loaded"
    )
    assert found.unpacks == ("compressed-tensors", "fp8")


def test_every_release_has_an_entry() -> None:
    for name in RELEASES:
        knowledge = of_release(name)
        assert knowledge is not None and "llama" in knowledge.architectures and 0 in knowledge.types
    assert of_release("custom-0123456789ab") is None


def test_few_are_named_and_of_many_the_nearest() -> None:
    assert known(["b", "a"]) == "it knows: a, b"
    many = [f"model{i}" for i in range(40)] + ["qwen2"]
    assert known(many, "qwen3") == "of the 41 that it knows the nearest are: qwen2"
    assert known(many, "zzz") == "it knows 41"
