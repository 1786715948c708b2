"""Pydantic's findings in plain words: what was expected, what was found, what was probably meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from meltrepro.manifest.addresses import as_source
from meltrepro.manifest.base import Commit, Name, Place, Sha256
from meltrepro.manifest.meters import Delimiter, Heading, Zone
from meltrepro.manifest.schema import Prompt
from meltrepro.manifest.sources import SOURCE_KINDS
from meltrepro.manifest.yaml.shape import Shape
from meltrepro.manifest.yaml.suggest import near_miss, suggest
from meltrepro.manifest.yaml.tree import Node
from meltrepro.words import shorten

TYPES: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of a reasonable size",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
"""Kinds of finding that say that a value is of the wrong type, and the type that was expected."""

_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_SIZES = {
    "too_short": ("min_length", "at least", "entry", "entries"),
    "too_long": ("max_length", "at most", "entry", "entries"),
    "string_too_short": ("min_length", "at least", "character", "characters"),
    "string_too_long": ("max_length", "at most", "character", "characters"),
}
_NUMBER = re.compile(r"[-+]?[0-9]+")


def _pattern(annotated: Any) -> str:
    return str(annotated.__metadata__[0].pattern)


_PATTERNS = {
    _pattern(Name): "a name: letters, digits, '.', '_' and '-', the first a letter or digit, at most 64",
    _pattern(Sha256): "a sha256 digest: 64 of the digits 0-9 and a-f",
    _pattern(Commit): "a full commit id: 40 of the digits 0-9 and a-f",
    _pattern(Place): "a path",
    _pattern(Prompt): "a prompt that is not empty",
    _pattern(Heading): "the heading of a column: not empty, without spaces around it",
    _pattern(Delimiter): "one character other than a quote or the end of a line",
    _pattern(Zone): "a time zone: UTC, an offset such as +02:00, or a name such as Europe/Berlin",
}


def explain(
    kind: str, context: Mapping[str, Any], found: Node | None, key: str, shape: Shape
) -> tuple[str, str | None]:
    """Message and suggestion for one finding at a value `found`, which may be what `shape` says.

    For a key that is too many or missing, `shape` is that of the mapping around it.
    """
    if kind == "extra_forbidden":
        return f"unknown key {shorten(key)!r}", suggest(key, shape.keys or (), "known keys")
    if kind == "missing":
        return f"the key {key!r} is missing", None
    if kind in TYPES:
        return f"expected {TYPES[kind]}, got {describe(found)}", _retype(kind, found)
    if kind in _LIMITS:
        limit, words = _LIMITS[kind]
        return f"expected {words} {_number(context[limit])}, got {describe(found)}", None
    if kind in _SIZES:
        limit, words, one, many = _SIZES[kind]
        size, actual = context[limit], context.get("actual_length")
        got = describe(found) if actual is None else str(actual)
        return f"expected {words} {size} {one if size == 1 else many}, got {got}", None
    if kind in ("enum", "literal_error"):
        choices = ("one of " if len(shape.choices) > 1 else "") + ", ".join(shape.choices)
        return f"expected {choices}, got {describe(found)}", near_miss(_text(found), shape.choices)
    if kind == "string_pattern_mismatch":
        pattern = str(context["pattern"])
        return f"expected {_PATTERNS.get(pattern, f'text of the form {pattern}')}, got {_measured(found)}", None
    if kind == "source_kind":
        keys = found.value if found is not None and isinstance(found.value, dict) else ()
        hints = [hint for name in keys if (hint := near_miss(name, SOURCE_KINDS))]
        hint = next(iter(hints), None) or as_source(_text(found))
        return f"expected a source: a mapping with one of the keys {', '.join(SOURCE_KINDS)}", hint
    if kind == "target_kind":
        given = found.value.get("kind") if found is not None and isinstance(found.value, dict) else None
        kinds = " or ".join(context["kinds"])
        if given is None:
            return f"expected a target: a mapping with the key 'kind': {kinds}, got {describe(found)}", None
        return f"expected the kind {kinds}, got {describe(given)}", near_miss(_text(given), context["kinds"])
    if kind.startswith("union_tag"):
        name, tags = str(context["discriminator"]).strip("'"), [each.tag for each in shape.branches if each.tag]
        given = found and found.child(name)
        message = f"expected the key {name!r} to be one of {', '.join(tags)}, got {describe(given)}"
        return message, near_miss(_text(given), tags)
    if kind == "value_error":
        return str(context["error"]), None
    return f"{kind.replace('_', ' ')}: got {describe(found)}", None


def describe(node: Node | None) -> str:
    """A value as a message names it: short, on one line, without control characters."""
    if node is None:
        return "nothing"
    value = node.value
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return repr(shorten(value))
    return shorten(node.text or str(value))


def _text(node: Node | None) -> str:
    """What was written, as far as it is text."""
    if node is None or isinstance(node.value, dict | list) or node.value is None:
        return ""
    return node.text if node.text is not None else str(node.value)


def _measured(node: Node | None) -> str:
    """A text with its length: in a digest nobody sees a digit that is missing."""
    text = _text(node)
    return f"{describe(node)} ({len(text)} characters)" if len(text) > 20 else describe(node)


def _retype(kind: str, node: Node | None) -> str | None:
    """How the value that was probably meant is written."""
    if node is None:
        return None
    text = _text(node)
    if kind == "list_type" and text:
        return f"write [{shorten(text)}]"
    if kind.startswith("bool") and text.lower() in ("yes", "on", "y", "1"):
        return "write true"
    if kind.startswith("bool") and text.lower() in ("no", "off", "n", "0"):
        return "write false"
    if kind.startswith(("int", "float")) and isinstance(node.value, str) and _NUMBER.fullmatch(text):
        return "leave out the quotes" if node.text is None else f"write {int(text[:99])}"
    return None


def _number(limit: Any) -> str:
    return f"{limit:g}" if isinstance(limit, float) and limit < 1e6 else str(limit)
