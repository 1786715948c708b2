"""Seventy real templates are rendered as `transformers` renders them, and the page that lists them says what is true."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from meltrepro.chat.jinja import writer
from meltrepro.chat.own import of_checkpoint
from meltrepro.chat.render import render
from meltrepro.chat.template import ChatTemplate, TemplateError
from meltrepro.chat.thinking import speaks_of_thinking
from tests.support import pages
from tests.support.known_templates import PLACE, TOKENS, known_templates, table


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be kind."}
CONVERSATIONS = (
    [user("Hi")],
    [SYSTEM, user(" Hi\n")],
    [user("Hi"), assistant("Yes."), user("Why?")],
    [SYSTEM, user("Hi"), assistant("<think>\nHm.\n</think>\n\nYes."), user("Why?"), assistant("So."), user("End?")],
    [user("1"), assistant("2"), user("3"), assistant("4"), user("5")],
)
REFUSE = {
    "CohereForAI-c4ai-command-r-plus-tool_use",
    "fireworks-ai-llama-3-firefunction-v2",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
}
"""Templates for tools, which render nothing without any; `transformers` refuses them with the same words."""


@pytest.fixture(scope="module")
def templates() -> Mapping[str, str]:
    return known_templates()


def test_all_templates_render_as_transformers_does(templates: Mapping[str, str]) -> None:
    today = datetime.datetime.now().date()  # which is what transformers tells them
    assert len(templates) >= 70
    for name, text in templates.items():
        rendered = 0
        for thinks in (True, False):
            variables: dict[str, Any] = {**TOKENS, "enable_thinking": thinks}
            write = writer(ChatTemplate(name, text, variables), today)
            for messages in CONVERSATIONS:
                try:
                    truth = render_jinja_template(
                        [messages], chat_template=text, add_generation_prompt=True, **variables
                    )[0][0]
                except Exception as error:
                    with pytest.raises(TemplateError) as caught:
                        write(messages)
                    assert str(error)[:60] in str(caught.value), name
                    continue
                assert write(messages) == truth, name
                rendered += 1
        assert (rendered == 0) is (name in REFUSE), name


IN_CONFIG = [{"name": "default", "template": "c"}, {"name": "rag", "template": "r"}]


@pytest.mark.parametrize("written", [None, "c", IN_CONFIG])
@pytest.mark.parametrize(
    "files",
    [
        {},
        {"chat_template.jinja": "usual"},
        {"additional_chat_templates/tool_use.jinja": "t"},
        {"additional_chat_templates/tool_use.jinja": "t", "chat_template.jinja": "usual"},
        {"additional_chat_templates/default.jinja": "d", "chat_template.jinja": "usual"},
    ],
)
def test_of_a_checkpoints_templates_those_are_taken_that_transformers_takes(
    tmp_path: Path, written: object, files: dict[str, str]
) -> None:
    config = {} if written is None else {"chat_template": written}
    texts = {"tokenizer_config.json": json.dumps(config), **files}
    (tmp_path / "additional_chat_templates").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    Tokenizer(WordLevel({"a": 0})).save(str(tmp_path / "tokenizer.json"))
    taken: Any = PreTrainedTokenizerFast.from_pretrained(tmp_path).chat_template
    truth = taken if isinstance(taken, dict) else {"default": taken} if taken is not None else {}
    assert of_checkpoint({name: text.encode() for name, text in texts.items()}).texts == truth


MARKED = {
    "Apriel-1.6-15b-Thinker-fixed": ("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    "google-gemma-4-31B-it": ("<|channel>thought", "<channel|>"),
    "google-gemma-4-31B-it-interleaved": ("<|channel>thought", "<channel|>"),
    "Kimi-K3": ("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    "openai-gpt-oss-120b": ("<|channel|>analysis<|message|>", "<|end|>"),
    "Qwen-Qwen3-0.6B": ("<think>", "</think>"),
    "upstage-Solar-Open-100B": ("<|think|>", "<|end|>"),
}
UNMARKED = {"Apertus-8B-Instruct", "LFM2.5-Instruct", "unsloth-Apriel-1.5"}
"""They speak of thinking, and write none before an answer: who measures them is told to name the marks."""


def test_marks_of_thinking_are_found(templates: Mapping[str, str]) -> None:
    marks = {
        name: render(ChatTemplate(name, text, TOKENS), None, ()).thinking
        for name, text in templates.items()
        if name not in REFUSE
    }
    assert {name: marks[name] for name in MARKED} == MARKED
    assert {name for name, found in marks.items() if found is None and speaks_of_thinking(templates[name])} == UNMARKED


def test_the_page_lists_them_as_they_are(templates: Mapping[str, str]) -> None:
    assert pages.made(*PLACE) == table(templates), "write it anew with: python -m tests.support.known_templates"
