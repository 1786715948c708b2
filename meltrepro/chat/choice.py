"""The chat template that a manifest chooses for a model."""

from __future__ import annotations

from pathlib import Path

from meltrepro.chat.own import USUAL, OwnTemplates
from meltrepro.chat.template import BUILT_IN, ChatTemplate, TemplateError
from meltrepro.manifest.schema import OWN_TEMPLATE, Model
from meltrepro.untrusted import read_regular

_MOST = 1 << 20
"""Bytes of a template in a file."""


def is_built_in(model: Model) -> bool:
    """Whether a model's template is one of ours, for which the model need not be here."""
    return isinstance(model.chat_template, str) and model.chat_template != OWN_TEMPLATE


def written(model: Model, base: Path) -> ChatTemplate | None:
    """The template that a manifest has by itself, without the model's tokens; `None` where the model brings it.

    `base` is what paths count from. Raises `TemplateError` for a name that nobody knows and for a file that is no text.
    """
    choice = model.chat_template
    if isinstance(choice, str):
        if choice not in BUILT_IN and choice != OWN_TEMPLATE:
            raise TemplateError(f"unknown chat template {choice!r}")
        return BUILT_IN.get(choice)
    if choice.jinja is not None:
        return ChatTemplate("of the manifest", choice.jinja, model.chat_template_args)
    if choice.file is None:
        return None
    path = base / Path(choice.file).expanduser()
    try:
        return ChatTemplate(choice.file, read_regular(path, _MOST).decode(), model.chat_template_args)
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path} is no text in UTF-8") from error
    except (OSError, ValueError, RuntimeError) as error:  # also of a user's home that nobody has
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise TemplateError(f"{path} cannot be read: {reason}") from error


def chosen(name: str, model: Model, base: Path, own: OwnTemplates) -> ChatTemplate:
    """The template of a model whose files are here, with its tokens; raises `TemplateError` where there is none."""
    if (found := written(model, base)) is None:
        wanted = USUAL if isinstance(model.chat_template, str) else model.chat_template.named or USUAL
        return own.template(name, wanted, model.chat_template_args)
    return found if found.trusted else own.of(found.name, found.text, model.chat_template_args)
