"""Chat templates: the exact texts, and that no prompt can leave its turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.manifest.chat_templates import TEMPLATES, TemplateError, render_turns

SMOLLM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

EXPECTED = {
    ("chatml", None): [
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    ],
    ("smollm2", None): [
        f"<|im_start|>system\n{SMOLLM}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    ],
    ("smollm2", ""): [
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
    ],
    ("llama-2", None): ["[INST] Hi [/INST]", " </s><s>[INST] Why? [/INST]"],
    ("llama-2", "Be kind."): [
        "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST]",
        " </s><s>[INST] Why? [/INST]",
    ],
    ("mistral", None): ["[INST] Hi [/INST]", "</s> [INST] Why? [/INST]"],
    ("mistral", "Be kind."): ["[INST] Be kind.\n\nHi [/INST]", "</s> [INST] Why? [/INST]"],
    ("zephyr", None): [
        "<|user|>\nHi<|endoftext|>\n<|assistant|>\n",
        "<|endoftext|>\n<|user|>\nWhy?<|endoftext|>\n<|assistant|>\n",
    ],
    ("tinyllama", "Be kind."): [
        "<|system|>\nBe kind.</s>\n<|user|>\nHi</s>\n<|assistant|>\n",
        "</s>\n<|user|>\nWhy?</s>\n<|assistant|>\n",
    ],
    ("gemma", None): [
        "<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>\n<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
    ],
    ("plain", None): ["Hi", "\nWhy?"],
    ("plain", "Be kind."): ["Be kind.\n\nHi", "\nWhy?"],
}


@pytest.mark.parametrize(("name", "system"), EXPECTED)
def test_exact_texts(name: str, system: str | None) -> None:
    assert render_turns(TEMPLATES[name], system, ["Hi", "Why?"]) == EXPECTED[name, system]


def test_every_template_is_covered() -> None:
    assert {name for name, _ in EXPECTED} == set(TEMPLATES)
    assert all(name == template.name for name, template in TEMPLATES.items())


@given(st.sampled_from(sorted(TEMPLATES)), st.text(), st.lists(st.text(), min_size=1, max_size=4))
def test_prompts_go_in_unchanged_and_cannot_add_a_marker(name: str, system: str, prompts: list[str]) -> None:
    template = TEMPLATES[name]
    blank = render_turns(template, "x" if system else "", ["x" for _ in prompts])
    try:
        turns = render_turns(template, system, prompts)
    except TemplateError as error:
        text = system if error.turn is None else prompts[error.turn]
        assert any(marker in text for marker in template.markers)
        return
    assert len(turns) == len(prompts)
    for turn, empty, prompt in zip(turns, blank, prompts, strict=True):
        assert prompt in turn
        assert [turn.count(marker) for marker in template.markers] == [empty.count(m) for m in template.markers]
    assert system in turns[0]


@given(st.sampled_from([name for name in sorted(TEMPLATES) if TEMPLATES[name].markers]), st.data())
def test_a_marker_anywhere_is_refused_with_its_place(name: str, data: st.DataObject) -> None:
    template = TEMPLATES[name]
    marker = data.draw(st.sampled_from(template.markers))
    bad = data.draw(st.text()) + marker + data.draw(st.text())
    prompts = ["fine", "fine", "fine"]
    turn = data.draw(st.integers(-1, 2))
    if turn >= 0:
        prompts[turn] = bad
    with pytest.raises(TemplateError) as caught:
        render_turns(template, bad if turn < 0 else None, prompts)
    assert caught.value.turn == (None if turn < 0 else turn)
    assert name in str(caught.value)


def test_braces_in_prompts_mean_nothing() -> None:
    turns = render_turns(TEMPLATES["llama-2"], "{prompt} {0}", ["{system} {prompt}"])
    assert turns == ["[INST] <<SYS>>\n{prompt} {0}\n<</SYS>>\n\n{system} {prompt} [/INST]"]
