"""The chat template that a model brings: in a GGUF file, or beside the weights of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meltrepro.chat.own import OwnTemplates, of_checkpoint
from meltrepro.chat.render import render
from meltrepro.chat.template import TemplateError
from meltrepro.cli.app import main
from meltrepro.errors import ManifestError, ModelError
from meltrepro.frameworks.base import framework
from tests.support.ggufs import ARRAY, BOOL, F32, STRING, U32, Value, gguf, numbers

TURNS = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}<assistant>"
TOKENS = ["<s>", "</s>", "<user>", "<assistant>", "a"]


def model(*, template: str | None = TURNS, **more: Value) -> bytes:
    values: dict[str, Value] = {
        "llama.block_count": (U32, 1),
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, TOKENS)),
        "tokenizer.ggml.merges": (ARRAY, (STRING, ["a a"])),
        "tokenizer.ggml.bos_token_id": (U32, 0),
        "tokenizer.ggml.eos_token_id": (U32, 1),
        "tokenizer.ggml.add_bos_token": (BOOL, True),
    }
    if template is not None:
        values["tokenizer.chat_template"] = (STRING, template)
    values |= {f"tokenizer.{name.replace('__', '.')}": value for name, value in more.items()}
    return gguf(values, [("token_embd.weight", (5, 5), F32, numbers(25))])


def own(folder: Path, content: bytes) -> OwnTemplates:
    path = folder / "m.gguf"
    path.write_bytes(content)
    found = framework("llama.cpp")
    look = found.look(found.options(), path, list(found.releases().values())[-1])
    assert look.chat is not None
    return look.chat


def texts(found: OwnTemplates, **arguments: Any) -> tuple[str, ...]:
    return render(found.template("m", arguments=arguments), None, [["Hi", "Why?"]]).texts[0]


def test_the_template_of_a_gguf_file_with_its_tokens(tmp_path: Path) -> None:
    found = own(tmp_path, model())
    assert (found.texts, found.begins) == ({"default": TURNS}, True)
    assert found.tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    assert texts(found) == ("<user>Hi</s><assistant>", "</s><user>Why?</s><assistant>")


def test_bos_stays_in_the_text_where_no_runner_writes_it(tmp_path: Path) -> None:
    for more, begins in (
        ({"ggml__add_bos_token": (BOOL, False)}, False),
        ({"ggml__add_bos_token": (U32, 0), "ggml__pre": (STRING, "llama-bpe")}, False),
    ):
        found = own(tmp_path, model(**more))
        assert found.begins is begins
        assert texts(found)[0] == "<s><user>Hi</s><assistant>"


@pytest.mark.parametrize(
    ("kind", "pre", "begins"), [("llama", "x", True), ("gpt2", "llama-bpe", True), ("gpt2", "qwen2", False)]
)
def test_whether_bos_is_written_follows_from_the_tokenizer(tmp_path: Path, kind: str, pre: str, begins: bool) -> None:
    content = model(ggml__model=(STRING, kind), ggml__pre=(STRING, pre))
    found = own(tmp_path, content.replace(b"tokenizer.ggml.add_bos_token", b"tokenizer.ggml.add_bos_tokex"))
    assert found.begins is begins


def test_a_template_longer_than_what_a_header_keeps(tmp_path: Path) -> None:
    long = "{# " + "ä" * 50_000 + " #}" + TURNS
    assert own(tmp_path, model(template=long)).texts == {"default": long}
    assert own(tmp_path, model(template="{# " + "x" * (1 << 20) + " #}")).texts == {}


def test_several_templates_by_name(tmp_path: Path) -> None:
    found = own(tmp_path, model(chat_template__tool_use=(STRING, "tools: {{ messages[0].content }}")))
    assert sorted(found.texts) == ["default", "tool_use"]
    with pytest.raises(TemplateError, match=r"model m brings no chat template 'rag', but 'default', 'tool_use'"):
        found.template("m", "rag")
    with pytest.raises(TemplateError, match="model m brings no chat template$"):
        own(tmp_path, model(template=None)).template("m")


CONFIG: dict[str, Any] = {
    "chat_template": TURNS,
    "bos_token": "<s>",
    "eos_token": {"content": "</s>", "lstrip": False},
    "add_bos_token": True,
}


def documents(**changes: Any) -> dict[str, bytes]:
    return {"tokenizer_config.json": json.dumps({**CONFIG, **changes}).encode()}


def test_the_template_of_a_checkpoint() -> None:
    found = of_checkpoint(documents())
    assert found == OwnTemplates({"default": TURNS}, {"bos_token": "<s>", "eos_token": "</s>"}, True)
    assert texts(found) == ("<user>Hi</s><assistant>", "</s><user>Why?</s><assistant>")


def test_a_file_of_its_own_wins() -> None:
    found = of_checkpoint({**documents(), "chat_template.jinja": b"{{ messages[0].content }}"})
    assert found.texts == {"default": "{{ messages[0].content }}"}


def test_a_list_of_templates() -> None:
    several = [{"name": "default", "template": TURNS}, {"name": "rag", "template": "x"}, {"name": 3}, "y"]
    assert of_checkpoint(documents(chat_template=several)).texts == {"default": TURNS, "rag": "x"}


def test_files_by_name_in_place_of_the_list() -> None:
    several = [{"name": "default", "template": TURNS}, {"name": "rag", "template": "x"}]
    files = documents(chat_template=several)
    folder = "additional_chat_templates"
    files |= {f"{folder}/tool_use.jinja": b"t", f"{folder}/a/b.jinja": b"no", f"{folder}/a b.jinja": b"no"}
    assert of_checkpoint(files).texts == {"tool_use": "t"}
    files["chat_template.jinja"] = b"usual"
    assert of_checkpoint(files).texts == {"default": "usual", "tool_use": "t"}


def test_tokens_of_the_map_where_the_configuration_has_none() -> None:
    config = {key: value for key, value in CONFIG.items() if "token" not in key}
    found = of_checkpoint(
        {
            "tokenizer_config.json": json.dumps(config).encode(),
            "special_tokens_map.json": json.dumps({"eos_token": "<end>"}).encode(),
        }
    )
    assert found.tokens == {"eos_token": "<end>"}


@pytest.mark.parametrize(
    ("processor", "begins"),
    [
        ({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]}, True),
        ({"processors": [{"type": "ByteLevel"}, {"single": [{"SpecialToken": {"id": "<s>"}}]}]}, True),
        ({"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}]}, False),
        ({"type": "ByteLevel"}, False),
        (None, False),
        ([1], False),
    ],
)
def test_bos_by_the_last_step_of_a_tokenizer(processor: Any, begins: bool) -> None:
    files = documents(add_bos_token=None)
    files["tokenizer.json"] = json.dumps({"post_processor": processor}).encode()
    assert of_checkpoint(files).begins is begins


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"chat_template": 3}', b"\xff", b"[" * 9999])
def test_damaged_files_have_no_templates(content: bytes) -> None:
    assert of_checkpoint({"tokenizer_config.json": content, "tokenizer.json": content}) == OwnTemplates()


# -- as a user meets it -------------------------------------------------------------------------------------------

SPEC = """\
meltrepro: 1
name: own
models:
  m:
    source: {{file: m.gguf}}
    {template}
    quantizations: [as-is]
frameworks:
  llama.cpp: {{release: 2026-10-01}}
workloads:
  chat: {{conversations: [[Hi]], max_tokens: 4, context: 64}}
"""


def validated(folder: Path, capsys: pytest.CaptureFixture[str], content: bytes, template: str = "") -> tuple[int, str]:
    (folder / "m.gguf").write_bytes(content)
    (folder / "spec.yaml").write_text(SPEC.format(template=template))
    status = main(["validate", str(folder / "spec.yaml")])
    return status, capsys.readouterr().err.replace(f"{folder}/", "")


def test_a_model_with_a_template_needs_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validated(tmp_path, capsys, model()) == (0, "")
    assert validated(tmp_path, capsys, model(), "chat_template: auto") == (0, "")


def test_a_model_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = validated(tmp_path, capsys, model(template=None))
    assert status == ModelError.exit_code
    assert "spec.yaml:4:3: models.m.chat_template: model m brings no chat template" in said
    assert "name a built-in one (chatml, " in said
    assert validated(tmp_path, capsys, model(template=None), "chat_template: plain") == (0, "")


def test_a_template_of_the_model_that_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = validated(tmp_path, capsys, model(template="{% for %}"))
    assert status == ModelError.exit_code
    assert "chat template of model m, line 1: " in said
    assert "Traceback" not in said


def test_a_file_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    choice = "chat_template: {file: mine.jinja}"
    status, said = validated(tmp_path, capsys, model(), choice)
    assert status == ManifestError.exit_code
    assert "spec.yaml:6:5: models.m.chat_template: mine.jinja cannot be read: No such file" in said
    (tmp_path / "mine.jinja").write_text(TURNS)
    assert validated(tmp_path, capsys, model(template=None), choice) == (0, "")
    (tmp_path / "mine.jinja").write_text("{{ raise_exception('never') }}")
    status, said = validated(tmp_path, capsys, model(), choice)
    assert status == ManifestError.exit_code
    assert "chat template mine.jinja: never" in said


@pytest.mark.parametrize("name", ["mine.jinja", "./mine.jinja", "templates/mine", "mine.txt"])
def test_a_file_in_the_place_of_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, said = validated(tmp_path, capsys, model(), f"chat_template: {name}")
    assert status == ManifestError.exit_code
    assert f"models.m.chat_template: expected the name of a template; one in a file is written {{file: {name}}}" in said


def test_names_that_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`llama-2` would be silently wrong for a Llama 3, so it is not suggested as a slip of the pen."""
    status, said = validated(tmp_path, capsys, model(), "chat_template: llama-3")
    assert status == ManifestError.exit_code
    assert "unknown chat template 'llama-3' (leave the key out for the one that the model brings; built in: " in said
    assert "did you mean" not in said


def test_built_in_templates_take_no_variables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = "chat_template: chatml\n    chat_template_args: {enable_thinking: false}"
    status, said = validated(tmp_path, capsys, model(), more)
    assert status == ManifestError.exit_code
    assert "models.m.chat_template_args: chat template chatml is built in and takes no variables" in said
