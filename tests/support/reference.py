"""Pages of reference that are made from the code: `python -m tests.support.reference` writes them.

A page holds prose and made parts, each between `<!-- made: NAME -->` and `<!-- end -->`; only those are written anew.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from meltrepro import errors
from meltrepro.cli.app import COMMANDS, PROGRAM, load_command
from meltrepro.frameworks.llamacpp import tokenizers
from meltrepro.frameworks.llamacpp.mixtures import model_bytes
from meltrepro.frameworks.llamacpp.options import KNOBS, RunOptions
from meltrepro.manifest.protocol import PROFILES, Protocol
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.shapes import SHAPES

DOCS = Path(__file__).parents[2] / "docs"
_UNITS = {"s": "s", "ms": "ms", "mb": "MB", "c": "°C", "w": "W", "hz": "Hz", "percent": "%"}
"""What the last part of a key says; every other number is a count or a ratio."""


def kinds_of_error() -> list[type[errors.MeltreproError]]:
    """Every error, by its code."""
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.MeltreproError)]
    return sorted(found, key=lambda kind: (kind.exit_code, kind.__name__))


def exit_codes() -> str:
    """The table of error classes."""
    rows = [
        (str(kind.exit_code), f"`{kind.__name__}`", _line(inspect.getdoc(kind) or "").rstrip("."))
        for kind in kinds_of_error()
    ]
    return _table(("code", "error", "meaning"), rows)


def manifest_keys() -> str:
    """A section for each part of a manifest."""
    schema = Manifest.model_json_schema()
    definitions: Mapping[str, Any] = schema["$defs"]
    parts: list[str] = []
    for name, definition in {"Manifest": schema, **_in_order(schema, definitions)}.items():
        parts += [f"## {name}", "", _line(definition.get("description", "")), "", _keys(definition, definitions), ""]
    return "\n".join(parts).rstrip()


def commands() -> str:
    """A section for each command, with its arguments and options as its help has them."""
    parts: list[str] = []
    for name in COMMANDS:
        command = load_command(name)
        parts += _command(command, (PROGRAM, name), 2)
    return "\n".join(parts).rstrip()


def profiles() -> str:
    """The keys of a protocol that profiles change."""
    keys = dict.fromkeys(key for changed in PROFILES.values() for key in changed)
    usual = Protocol().model_dump(mode="json")
    rows = []
    for key in keys:
        values = [changed.get(key, usual[key]) for changed in PROFILES.values()]
        rows.append((f"`{key}`", *(f"{one:g}" if isinstance(one, int | float) else str(one) for one in values)))
    return _table(("key", *(f"`{name}`" for name in PROFILES)), rows)


def shapes() -> str:
    """The shapes that have a real tokenizer, their sizes in GB by the newest release."""
    rows = []
    for name, shape in SHAPES.items():
        if (real := tokenizers.of(shape)) is None:
            continue
        sizes = [model_bytes(shape, kind, "2026-10-01") or 0 for kind in ("as-is", "q4_K", "q4_0")]
        words = f"{real.vocabulary}, {real.template or 'no template'}{f' ({real.remark})' if real.remark else ''}"
        cells = (shape.arch, f"{shape.parameters:,}", f"{shape.context}", *(f"{size / 1e9:.3f}" for size in sizes))
        rows.append((f"`{name}`", shape.origin, *cells, f"{shape.kv_bytes(1024) / 1e9:.3f}", words))
    head = ("shape", "numbers of", "architecture", "weights", "trained context", "as-is", "q4_K", "q4_0")
    return _table((*head, "KV cache, 1024 tokens", "vocabulary and template"), rows)


def knobs() -> str:
    """The options of a run of llama.cpp."""
    rows = []
    for name, knob in KNOBS.items():
        meaning = RunOptions.model_fields[name].description or ""
        lacks = f"not {', '.join(knob.lacks)}" if knob.lacks else "yes"
        parameters = ", ".join(f"`{each}`" for each in knob.sets.split()) or "`llama_numa_init`"
        where = "yes" if knob.gpu else "no"
        rows.append(
            (f"`{name}`", meaning, parameters, f"`{knob.told or name}`", "no" if knob.new else lacks, "yes", where)
        )
    head = ("option", "meaning", "sets", "told as", "2024-02-27", "2026-10-01", "needs a GPU")
    return _table(head, rows)


MADE: Mapping[str, Callable[[], str]] = {
    "exit-codes": exit_codes,
    "manifest-keys": manifest_keys,
    "commands": commands,
    "profiles": profiles,
    "shapes": shapes,
    "knobs": knobs,
}
"""What makes each part, by the name that stands in its page."""


def pages() -> Iterator[tuple[Path, str]]:
    """Every page that has made parts, and what it should hold."""
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        made = re.sub(
            r"(<!-- made: ([a-z-]+) -->\n).*?(\n<!-- end -->)",
            lambda match: f"{match[1]}\n{MADE[match[2]]()}\n{match[3]}",
            text,
            flags=re.DOTALL,
        )
        if "<!-- made: " in text:
            yield path, made


def _in_order(node: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The mappings that a part of the schema names, each before what it names itself."""
    found: dict[str, Any] = {}
    waiting = [node]
    while waiting:
        for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps({**waiting.pop(0), "$defs": None})):
            if name not in found and "properties" in definitions[name]:
                found[name] = definitions[name]
                waiting.append(definitions[name])
    return found


def _command(command: Any, words: tuple[str, ...], depth: int) -> list[str]:
    context = command.make_context(" ".join(words), [], resilient_parsing=True)
    usage = re.sub(r"\{(\w+)\}", r"\1", " ".join(command.collect_usage_pieces(context)))
    parts = [
        f"{'#' * depth} {' '.join(words)}",
        "",
        _paragraphs(command.help or ""),
        "",
        f"    {' '.join(words)} {usage}",
    ]
    rows = []
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record and parameter.name not in ("install_completion", "show_completion", "help"):
            rows.append((f"`{record[0]}`", _line(record[1])))
    if rows:
        parts += ["", _table(("argument or option", "meaning"), rows)]
    parts.append("")
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        parts += _command(inner, (*words, name), depth + 1)
    return parts


def _keys(definition: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    rows = []
    for key, field in definition["properties"].items():
        meaning = field.get("description") or definitions.get(_name(field), {}).get("description", "")
        unit = _UNITS.get(key.rpartition("_")[2], "") if "_" in key else ""
        rows.append(
            (
                f"`{key}`",
                _type(field, definitions),
                _default(field, key in definition.get("required", ())),
                unit,
                _line(meaning),
            )
        )
    return _table(("key", "type", "default", "unit", "meaning"), rows)


def _default(field: Mapping[str, Any], required: bool) -> str:
    if required:
        return "must be given"
    default = field.get("default")
    if default is None or default == "" or isinstance(default, dict):
        return ""
    return f"`{json.dumps(default, ensure_ascii=False)}`" if not isinstance(default, str) else f"`{default}`"


def _type(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What may stand there, in words, with links to the parts that are mappings."""
    if name := _name(field):
        inner = definitions[name]
        return f"[{name}](#{name.lower()})" if inner.get("properties") else _type(inner, definitions)
    for several in ("anyOf", "oneOf"):
        if several in field:
            words = [_type(one, definitions) for one in field[several] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(words))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if "patternProperties" in field:
        return f"name: {' or '.join(_type(one, definitions) for one in field['patternProperties'].values())}"
    kind = field.get("type")
    if kind == "array":
        return f"list of {_type(field.get('items', {}), definitions)}"
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _range(field)
    if kind == "object":
        inner = field.get("additionalProperties")
        return f"name: {_type(inner, definitions)}" if isinstance(inner, dict) and inner else "mapping"
    return {"string": "text", "boolean": "true or false"}.get(str(kind), "anything")


def _range(field: Mapping[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    words = [
        *([f"from {low:g}"] if low is not None else []),
        *([f"above {above:g}"] if above is not None else []),
        *([f"to {high:.0f}"] if high is not None else []),
        *([f"below {below:.0f}"] if below is not None else []),
    ]
    return f" {' '.join(words)}" if words else ""


def _name(field: Mapping[str, Any]) -> str:
    return str(field.get("$ref", "")).removeprefix("#/$defs/")


def _line(text: str) -> str:
    """A text as a cell of a table: one line, addresses of pages as links."""
    text = " ".join(text.split()).replace("|", "\\|")
    text = re.sub(r"(?<![`\w])<([^<>]+)>", r"`<\1>`", text)
    return re.sub(r"\bdocs/([a-z/-]+)\.md\b", r"[\1](\1.md)", text)


def _paragraphs(text: str) -> str:
    return "\n\n".join(_line(one) for one in inspect.cleandoc(text).split("\n\n"))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line).replace("|  |", "| |").replace("|  |", "| |") + " |" for line in lines)


if __name__ == "__main__":
    for page, text in pages():
        page.write_text(text, encoding="utf-8")
