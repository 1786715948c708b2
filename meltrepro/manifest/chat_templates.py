"""Built-in chat templates: how prompts become the exact text that a runner appends, turn by turn.

A runner never feeds back the token that ended an answer, so from the second turn on a text begins with what closes the
answer before it (docs/runner.md). BOS is the runner's affair: the model's own settings decide about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ChatTemplate:
    """The pieces of text around system prompt, prompts and answers."""

    name: str
    user: str
    """Text of one user turn up to where the answer begins; `{prompt}` is the prompt."""
    close: str
    """What closes an answer, put before the next user turn."""
    system: str | None = None
    """Text of the system prompt, put before the first user turn; `{system}` is the prompt. `None`: see `merged`."""
    merged: str = "{system}\n\n{prompt}"
    """First prompt of a template that has no place for a system prompt of its own."""
    default_system: str | None = None
    """System prompt that the model was trained with, used where a workload names none."""
    markers: tuple[str, ...] = ()
    """Strings that end or begin a turn; prompts that contain one are refused."""

    @property
    def ends(self) -> tuple[str, ...]:
        """The markers that close an answer: where one is no token of a model, its answers do not end."""
        return tuple(marker for marker in self.markers if marker in self.close)


class TemplateError(ValueError):
    """A text would break out of its turn. `turn` counts from 0; `None` for the system prompt."""

    def __init__(self, message: str, turn: int | None) -> None:
        super().__init__(message)
        self.turn = turn


_CHATML = {
    "user": "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n",
    "close": "<|im_end|>\n",
    "system": "<|im_start|>system\n{system}<|im_end|>\n",
}
_CHATML_MARKERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_INST_MARKERS = ("[INST]", "[/INST]", "<s>", "</s>")


def _roles(name: str, end: str) -> ChatTemplate:
    """The `<|role|>` family of Zephyr, whose members differ by the token that ends a turn."""
    return ChatTemplate(
        name,
        user=f"<|user|>\n{{prompt}}{end}\n<|assistant|>\n",
        close=f"{end}\n",
        system=f"<|system|>\n{{system}}{end}\n",
        markers=("<|system|>", "<|user|>", "<|assistant|>", end),
    )


TEMPLATES: Mapping[str, ChatTemplate] = {
    template.name: template
    for template in (
        ChatTemplate("chatml", **_CHATML, markers=_CHATML_MARKERS),
        ChatTemplate(
            "smollm2",
            **_CHATML,
            default_system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
            markers=_CHATML_MARKERS,
        ),
        ChatTemplate(
            "llama-2",
            user="[INST] {prompt} [/INST]",
            close=" </s><s>",
            merged="<<SYS>>\n{system}\n<</SYS>>\n\n{prompt}",
            markers=(*_INST_MARKERS, "<<SYS>>", "<</SYS>>"),
        ),
        ChatTemplate("mistral", user="[INST] {prompt} [/INST]", close="</s> ", markers=_INST_MARKERS),
        _roles("zephyr", "<|endoftext|>"),
        _roles("tinyllama", "</s>"),
        ChatTemplate(
            "gemma",
            user="<start_of_turn>user\n{prompt}<end_of_turn>\n<start_of_turn>model\n",
            close="<end_of_turn>\n",
            markers=("<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>"),
        ),
        ChatTemplate("plain", user="{prompt}", close="\n"),
    )
}


def render_turns(template: ChatTemplate, system: str | None, prompts: Sequence[str]) -> list[str]:
    """Per prompt the exact text to append; `system` of `None` takes the template's own, an empty one leaves it out.

    Raises `TemplateError` where a text contains a control marker of the template.
    """
    system = template.default_system if system is None else system
    if system:
        _refuse_markers(template, system, None)
    for turn, prompt in enumerate(prompts):
        _refuse_markers(template, prompt, turn)
    return [
        _first(template, system, prompt) if turn == 0 else template.close + _put(template.user, prompt=prompt)
        for turn, prompt in enumerate(prompts)
    ]


def _first(template: ChatTemplate, system: str | None, prompt: str) -> str:
    if not system:
        return _put(template.user, prompt=prompt)
    if template.system is None:
        return _put(template.user, prompt=_put(template.merged, system=system, prompt=prompt))
    return _put(template.system, system=system) + _put(template.user, prompt=prompt)


def _put(text: str, **values: str) -> str:
    """Fill in each placeholder once; braces in the values mean nothing."""
    head, rest = "", text
    for name, value in values.items():
        before, _, rest = rest.partition("{" + name + "}")
        head += before + value
    return head + rest


def _refuse_markers(template: ChatTemplate, text: str, turn: int | None) -> None:
    found = next((marker for marker in template.markers if marker in text), None)
    if found is not None:
        what = "the system prompt" if turn is None else f"prompt {turn + 1}"
        raise TemplateError(
            f"{what} contains {found!r}, which chat template {template.name!r} uses to end or begin a turn", turn
        )
