"""Pydantic's findings in plain words: what was found, what was expected, what was probably meant."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$": "a name of letters, digits, '.', '_' and '-', at most 64, not beginning with a sign",
    r"^[0-9a-f]{64}$": "a sha256 digest: 64 digits 0-9, a-f",
    r"^[0-9a-f]{40}$": "a full commit id: 40 digits 0-9, a-f (branches and tags move, so they are refused)",
}


def near_miss(name: str, known: Collection[str]) -> str | None:
    """`did you mean 'x'?` for the known name that is nearest, if one is near."""
    folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return f"did you mean {folded[close[0]]!r}?" if close else None


def explain(error: ErrorDetails, model: type[BaseModel]) -> tuple[str, str | None]:
    """Message and suggestion for one finding of Pydantic."""
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    key = str(error["loc"][-1]) if error["loc"] else ""
    if kind == "extra_forbidden":
        known = keys_at(model, error["loc"][:-1])
        return f"unknown key {key!r}", near_miss(key, known) or (f"known keys: {', '.join(sorted(known))}" if known else None)
    if kind == "missing":
        return f"the key {key!r} is missing", None
    if kind in _TYPES:
        return f"expected {_TYPES[kind]}, got {_show(found)}", None
    if kind in _LIMITS:
        limit, words = _LIMITS[kind]
        return f"expected {words} {context[limit]}, got {_show(found)}", None
    if kind in ("enum", "literal_error"):
        expected = str(context["expected"])
        names = [part.strip(" '") for part in expected.replace(" or ", ", ").split(",")]
        return f"expected {expected}, got {_show(found)}", near_miss(str(found), names)
    if kind == "string_pattern_mismatch":
        return f"expected {_PATTERNS.get(str(context['pattern']), 'text of the form ' + str(context['pattern']))}, got {_show(found)}", None
    if kind in ("too_short", "string_too_short"):
        return f"expected at least {context.get('min_length')} of them, got {_show(found)}", None
    if kind == "source_kind" and isinstance(found, dict):
        known = ["pypi", "huggingface", "git", "url", "file"]
        hints = filter(None, (near_miss(str(name), known) for name in found))
        return error["msg"], next(hints, None)
    return error["msg"].removeprefix("Value error, "), None


def keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that a mapping at a location may have; empty where any are allowed."""
    current: Any = model
    for part in location:
        current = _step(current, part)
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _step(current: Any, part: int | str) -> Any:
    """One step of a location: a field, an item of a list or mapping, or the tag of a union."""
    if isinstance(current, type) and issubclass(current, BaseModel):
        field = current.model_fields.get(str(part))
        return _bare(field.annotation) if field else None
    origin, arguments = typing.get_origin(current), typing.get_args(current)
    if origin is list:
        return _bare(arguments[0])
    if origin in (dict, Mapping):
        return _bare(arguments[1])
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            inner = _bare(argument)
            if isinstance(inner, type) and issubclass(inner, BaseModel) and str(part) in inner.model_fields:
                return inner if _is_tag(argument, part) else _step(inner, part)
    return None


def _is_tag(argument: Any, part: int | str) -> bool:
    return any(getattr(item, "tag", None) == part for item in getattr(argument, "__metadata__", ()))


def _bare(annotation: Any) -> Any:
    """An annotation without `Annotated` and `| None`."""
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [argument for argument in typing.get_args(annotation) if argument is not type(None)]
        if len(rest) == 1:
            return _bare(rest[0])
    return annotation


def _show(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
