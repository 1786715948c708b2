"""Rendering as `transformers` does it, and what each turn of a conversation adds to a text that only grows.

A runner never feeds back the token that ended an answer, so from the second turn on a text begins with what closes the
answer before it (docs/runner.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from meltrepro.chat.template import ChatTemplate, Marked, Rendered, TemplateError
from meltrepro.chat.thinking import MARKER, Message, Write, marks_of_thinking
from meltrepro.words import shorten, visible

MOST_TEXT = 4 << 20
"""Longest text of one conversation, in characters: no context holds as much."""
_ANSWER, _PROMPT = "answer-{}-of-5f2d81c0e7", "prompt-{}-of-5f2d81c0e7"
"""What stands in the place of answers, and of prompts where only what is around them is of interest."""
_MARKER = re.compile(MARKER)
_THINKING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""Marks of thinking in templates that write none of an answer's own."""


class Raised(Exception):
    """What a template says by `raise_exception`."""


class _Generation(Extension):
    """`{% generation %}`, by which training tells answers from the rest, and which changes no text."""

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def writer(template: ChatTemplate, day: date) -> Write:
    """What renders messages by a template; it raises `TemplateError`, as does this for one that is no Jinja."""
    try:
        compiled = _compiled(template.text, day)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"{template.label}, line {error.lineno}: {_short(error)}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise TemplateError(f"{template.label} is no Jinja: {_short(error)}") from error

    def write(messages: Sequence[Message], begins: bool = True) -> str:
        given = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": begins}
        text = ""
        try:
            for piece in compiled.generate(**{**given, **template.variables}):
                text += piece
                if len(text) > MOST_TEXT:
                    raise Raised(f"it writes more than {MOST_TEXT >> 20} million characters")
        except Raised as error:
            raise TemplateError(f"{template.label}: {_short(error)}") from error
        except Exception as error:  # whatever its expressions come to
            raise TemplateError(f"{template.label}: {_short(error)}") from error
        return text.removeprefix(template.begin)

    return write


@lru_cache(maxsize=16)
def _compiled(text: str, day: date) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(raise_exception=_raise, strftime_now=day.strftime)
    return environment.from_string(text)


def render(template: ChatTemplate, system: str | None, conversations: Sequence[Sequence[str]], day: date) -> Rendered:
    """The texts to append, turn by turn; `system` of `None` takes the template's own, if it has any.

    Raises `TemplateError` where the template is wrong, or a text contains a marker of it.
    """
    write, notes = writer(template, day), dict[str, None]()
    probe = _turns(template, write, None, [_PROMPT.format(1), _PROMPT.format(2)], {})
    markup = [*probe, *_turns(template, write, _PROMPT.format(0), [_PROMPT.format(1)], {})]
    markers = list(dict.fromkeys((*_MARKER.findall("".join(markup)), *_tokens(template))))
    marked = [
        *([] if system is None else _marked(template, markers, system, "the system prompt")),
        *(
            found
            for number, prompts in enumerate(conversations)
            for turn, prompt in enumerate(prompts)
            for found in _marked(template, markers, prompt, f"prompt {turn + 1}", number, turn)
        ),
    ]
    if marked:
        raise TemplateError(marked[0].message, marked)
    texts = [tuple(_turns(template, write, system, prompts, notes)) for prompts in conversations]
    closing = _MARKER.match(probe[1].lstrip())
    thinking = marks_of_thinking(write) or next(
        (pair for pair in _THINKING if all(mark in template.text for mark in pair)), None
    )
    if thinking is not None and any(len(prompts) > 1 for prompts in conversations) and _forgets(write, *thinking):
        notes["it leaves the thinking of earlier turns out; here that stays in the context"] = None
    first, later = (len(text.encode()) - len(_PROMPT.format(1)) for text in probe)
    return Rendered(tuple(texts), first, later, (closing[0],) if closing else (), thinking, tuple(notes))


def _turns(
    template: ChatTemplate, write: Write, system: str | None, prompts: Sequence[str], notes: dict[str, None]
) -> list[str]:
    """The texts of one conversation; what is to be said of them is added to `notes`."""
    messages: list[Message] = []
    prompts = list(prompts)
    if system is not None and _has_place(write, system):
        messages.append({"role": "system", "content": system})
    elif system:
        notes["it has no place for a system prompt, which therefore stands before the first prompt"] = None
        prompts[0] = f"{system}\n\n{prompts[0]}"
    texts: list[str] = []
    before = ""
    for turn, prompt in enumerate(prompts):
        messages.append({"role": "user", "content": prompt})
        whole, begin = write(messages), 0
        if turn:
            answer = messages[-2]["content"]
            place = whole.rfind(answer)
            if place < 0:
                raise TemplateError(f"{template.label} leaves answers out, so that no conversation can go on")
            if whole[:place] != before:
                notes["it writes earlier turns anew; here the context only grows"] = None
            begin = place + len(answer)
        if prompt.strip() not in whole[begin:]:
            raise TemplateError(f"{template.label} leaves prompt {turn + 1} out")
        texts.append(whole[begin:])
        before = whole
        messages.append({"role": "assistant", "content": _ANSWER.format(turn)})
    return texts


def _has_place(write: Write, system: str) -> bool:
    prompt = {"role": "user", "content": _PROMPT.format(1)}
    try:
        return system.strip() in write([{"role": "system", "content": system}, prompt])
    except TemplateError:
        write([prompt])  # raises where it is not the system prompt that is wrong
        return False


def _forgets(write: Write, begin: str, end: str) -> bool:
    """Whether a template leaves the thinking of an earlier turn out."""
    turns = (_PROMPT.format(1), f"{begin}\n{_ANSWER.format(0)}\n{end}\n\n{_ANSWER.format(1)}", _PROMPT.format(2))
    messages: list[Message] = [
        {"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), turns, strict=True)
    ]
    try:
        return _ANSWER.format(0) not in write(messages)
    except TemplateError:
        return False


def _tokens(template: ChatTemplate) -> list[str]:
    """The special tokens that a template is given."""
    return [
        value
        for name, value in template.variables.items()
        if name.endswith("_token") and isinstance(value, str) and value
    ]


def _marked(
    template: ChatTemplate,
    markers: Sequence[str],
    text: str,
    what: str,
    conversation: int | None = None,
    turn: int | None = None,
) -> list[Marked]:
    found = next((marker for marker in markers if marker in text), None)
    message = f"{what} contains {found!r}, which {template.label} uses to end or begin a turn"
    return [] if found is None else [Marked(message, conversation, turn)]


def _short(error: Exception) -> str:
    """What an error says, on one line: the words are a stranger's."""
    return shorten(visible(" ".join(str(error).split())) or type(error).__name__, 120)


def _raise(message: Any) -> None:
    raise Raised(str(message))


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own writes the characters of HTML in another way."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
