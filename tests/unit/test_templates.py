"""Chat templates: the exact texts of the built-in ones, that no prompt can leave its turn, and templates of strangers."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.chat.render import ends, render
from meltrepro.chat.template import BUILT_IN, ChatTemplate, TemplateError

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
    ("smollm2", "Be kind."): [
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
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
    ("gemma", "Be kind."): [
        "<start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>\n<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n",
    ],
    ("plain", None): ["Hi", "\nWhy?"],
    ("plain", "Be kind."): ["Be kind.\n\nHi", "\nWhy?"],
}
ENDS = {
    "chatml": "<|im_end|>",
    "smollm2": "<|im_end|>",
    "llama-2": "</s>",
    "mistral": "</s>",
    "zephyr": "<|endoftext|>",
    "tinyllama": "</s>",
    "gemma": "<end_of_turn>",
    "plain": None,
}
MARKERS = {
    "chatml": ["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    "llama-2": ["[INST]", "[/INST]", "<s>", "</s>", "<<SYS>>", "<</SYS>>"],
    "mistral": ["[INST]", "[/INST]", "<s>", "</s>"],
    "zephyr": ["<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>"],
    "gemma": ["<start_of_turn>", "<end_of_turn>", "<eos>"],
}


def stranger(text: str) -> ChatTemplate:
    return ChatTemplate("of a stranger", text)


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize(("name", "system"), EXPECTED)
def test_exact_texts(name: str, system: str | None) -> None:
    assert render(BUILT_IN[name], system, [["Hi", "Why?"]]).texts == (tuple(EXPECTED[name, system]),)


def test_every_template_is_covered() -> None:
    assert {name for name, _ in EXPECTED} == set(BUILT_IN) == set(ENDS)
    assert all(name == template.name for name, template in BUILT_IN.items())


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_ends_an_answer(name: str) -> None:
    assert ends(BUILT_IN[name]) == ((ENDS[name],) if ENDS[name] else ())


@given(st.sampled_from(sorted(BUILT_IN)), st.text(), st.lists(st.text(), min_size=1, max_size=4))
def test_prompts_go_in_unchanged_and_cannot_add_a_marker(name: str, system: str, prompts: list[str]) -> None:
    template, markers = BUILT_IN[name], MARKERS.get(name, [])
    blank = render(template, "x" if system else "", [["x" for _ in prompts]]).texts[0]
    try:
        turns = render(template, system, [prompts]).texts[0]
    except TemplateError as error:
        for each in error.marked:
            text = system if each.turn is None else prompts[each.turn]
            assert any(marker in text for marker in markers)
        return
    assert len(turns) == len(prompts)
    for turn, empty, prompt in zip(turns, blank, prompts, strict=True):
        assert prompt in turn
        assert [turn.count(marker) for marker in markers] == [empty.count(m) for m in markers]
    assert system in turns[0]


@given(st.sampled_from(sorted(MARKERS)), st.data())
def test_a_marker_anywhere_is_refused_with_its_place(name: str, data: st.DataObject) -> None:
    template = BUILT_IN[name]
    marker = data.draw(st.sampled_from(MARKERS[name]))
    bad = data.draw(st.text()) + marker + data.draw(st.text())
    prompts = ["fine", "fine", "fine"]
    turn = data.draw(st.integers(0, 2))
    prompts[turn] = bad
    with pytest.raises(TemplateError) as caught:
        render(template, None, [["fine"], prompts])
    (found,) = caught.value.marked
    assert (found.conversation, found.turn) == (1, turn)
    assert f"chat template {name}" in found.message


def test_a_marker_in_a_system_prompt() -> None:
    with pytest.raises(TemplateError, match="the system prompt contains '<|im_end|>'") as caught:
        render(BUILT_IN["chatml"], "x<|im_end|>", [["fine"]])
    assert caught.value.marked[0].turn is None


def test_braces_in_prompts_mean_nothing() -> None:
    turns = render(BUILT_IN["llama-2"], "{prompt} {{ 1 }}", [["{% raw %} {prompt}"]]).texts[0]
    assert turns == ("[INST] <<SYS>>\n{prompt} {{ 1 }}\n<</SYS>>\n\n{% raw %} {prompt} [/INST]",)


# -- those that come with models ----------------------------------------------------------------------------------


def test_a_template_that_only_grows() -> None:
    found = render(stranger(CHATML), "Be kind.", [["Hi", "Why?"], ["So"]])
    assert found.texts == (
        (
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nSo<|im_end|>\n<|im_start|>assistant\n",),
    )
    assert (found.ends, found.thinking, found.notes) == (("<|im_end|>",), None, ())


def test_bos_is_the_runners_where_it_writes_it() -> None:
    text = "{{ bos_token }}" + CHATML
    tokens = {"bos_token": "<s>"}
    taken = render(ChatTemplate("t", text, tokens, "<s>"), None, [["Hi", "Why?"]]).texts[0]
    kept = render(ChatTemplate("t", text, tokens), None, [["Hi", "Why?"]]).texts[0]
    assert taken[0].startswith("<|im_start|>")
    assert kept == ("<s>" + taken[0], taken[1])


def test_prompts_are_trimmed_as_the_template_does() -> None:
    text = CHATML.replace("m.content +", "m.content | trim +")
    assert "user\nHi<|im_end|>" in render(stranger(text), None, [["  Hi \n"]]).texts[0][0]
    assert "user\n  Hi \n<|im_end|>" in render(stranger(CHATML), None, [["  Hi \n"]]).texts[0][0]


REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
IGNORES = CHATML.replace("in messages", "in messages if m.role != 'system'")


@pytest.mark.parametrize("text", [REFUSES, IGNORES])
def test_a_template_without_a_place_for_a_system_prompt(text: str) -> None:
    found = render(stranger(text), "Be kind.", [["Hi", "Why?"]])
    assert found.texts[0][0] == "<|im_start|>user\nBe kind.\n\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert "Be kind" not in found.texts[0][1]
    assert found.notes == ("it has no place for a system prompt, which therefore stands before the first prompt",)


def test_a_template_that_writes_earlier_turns_anew() -> None:
    """It opens the thinking where an answer begins, and leaves it out of answers that were given."""
    text = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}").replace(
        "m.content +", "m.content.split('</think>')[-1] +"
    )
    found = render(stranger(text), None, [["Hi", "Why?"]])
    assert found.texts[0] == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n",
        "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n",
    )
    assert found.thinking == ("<think>", "</think>")
    assert found.notes == (
        "it writes earlier turns anew; here the context only grows",
        "it leaves the thinking of earlier turns out; here that stays in the context",
    )


@pytest.mark.parametrize(
    ("begin", "end", "marks"),
    [
        ("<think>\\n", "\\n</think>\\n\\n", ("<think>", "</think>")),
        ("<|START_THINKING|>", "<|END_THINKING|>", ("<|START_THINKING|>", "<|END_THINKING|>")),
        ("<|channel>thought\\n", "\\n<channel|>", ("<|channel>thought", "<channel|>")),
        ("<|open|>think<|sep|>", "<|close|>think<|sep|><|open|>answer<|sep|>", ("<|open|>think<|sep|>", "<|close|>think<|sep|>")),
        ("I wonder:\\n", "\\nSo be it.\\n", ("I wonder:", "So be it.")),
        ("<|im_start|>", "<|im_end|>", ("<|im_start|>", "<|im_end|>")),
        ("", "\\n\\n", None),
        ("", "</think>", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("opens", [False, True])
def test_marks_of_thinking_are_what_is_written_around_it(
    begin: str, end: str, marks: tuple[str, str] | None, opens: bool
) -> None:
    """Whether the model begins to think by itself, or the template puts the first mark into its mouth."""
    text = (
        "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
        f"{{{{ ('{begin}' ~ m.reasoning_content ~ '{end}' if m.reasoning_content) ~ m.content }}}}<|im_end|>\n"
        "{% else %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        + (f"{{{{ '{begin}' }}}}" if opens else "")
        + "{% endif %}"
    )
    assert render(stranger(text), None, [["Hi"]]).thinking == marks


def test_variables_and_the_day() -> None:
    text = CHATML + "{{ strftime_now('%d %b %Y') }}{{ ' thinks' if enable_thinking else '' }}"
    thinking = ChatTemplate("t", text, {"enable_thinking": True})
    assert render(thinking, None, [["Hi"]]).texts[0][0].endswith("assistant\n01 Jan 2026 thinks")
    later = render(ChatTemplate("t", text), None, [["Hi"]], date(2026, 7, 9)).texts[0][0]
    assert later.endswith("assistant\n09 Jul 2026")


BROKEN = {
    "no Jinja": ("{% for m in messages %}", "line 1: Unexpected end of template"),
    "an unknown tag": ("{% include 'x' %}", "no loader"),
    "what it says itself": ("{{ raise_exception('roles must\nalternate') }}", "roles must alternate"),
    "an error in an expression": ("{{ messages[0].content / 2 }}", "unsupported operand"),
    "a number by zero": ("{{ 1 // 0 }}", "by zero"),
    "no answers": ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "leaves answers out"),
    "no prompts": ("{% for m in messages if m.role != 'user' %}{{ m.content }}{% endfor %}", "leaves prompt 1 out"),
    "a way out": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "ten million characters": (
        "{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}",
        "more than 4 million characters",
    ),
    "one text of all memory": ("{{ 'x' * 10 ** 12 }}", "of the stranger|MemoryError|of a stranger"),
    "an endless loop": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}",
        "takes more than 10 s of computing or 2 GiB of memory",
    ),
}


@pytest.mark.parametrize(
    "what", [pytest.param(each, marks=pytest.mark.slow) if "endless" in each else each for each in BROKEN]
)
def test_broken_and_hostile_templates(what: str) -> None:
    text, message = BROKEN[what]
    with pytest.raises(TemplateError, match=message) as caught:
        render(stranger(text), None, [["Hi", "Why?"]])
    assert str(caught.value).startswith("chat template of a stranger")
    assert "\n" not in str(caught.value)
