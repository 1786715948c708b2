"""Documents with something strange in them, for readers that must believe nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

_MARK = "@strange@"
VALUES = (
    *("null", "true", "false", "0", "-1", "1", "0.5", "-0.5", "NaN", "Infinity", "-Infinity", "1e999", "1e-320"),
    *(
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "1" + "0" * 30,
        "9" * 5000,
        "1e308",
        "-1e308",
    ),
    *('""', '"x"', '"\\u0000"', '"\\ud800"', '"\\u001b[2J"', '"\\u202e"', '"../../x"', '"/etc/passwd"', '"2024-99-99"'),
    *('"' + "x" * 300 + '"', '"' + "a/" * 3000 + '"', '"http://["', '"~nobody-at-all/x"', '"²"', '"[/x]"', '"!!int x"'),
    *("[]", "{}", "[[]]", '{"a": 1}', '{"a": 1, "a": 2}', "[" * 200 + "]" * 200, '["\\u0000"]', "[1, 2, 3]"),
)
"""Values as JSON text, which JSON or Python may not even have; all but some of them are YAML too."""


def strange(document: Any, rng: random.Random, changes: int = 1) -> str:
    """A document as JSON text, with values, keys or whole entries of it replaced."""
    document = json.loads(json.dumps(document))
    chosen = []
    for _ in range(changes):
        places = [place for place in _places(document) if place[0][place[1]] != _MARK]
        if not places:
            break
        holder, step = rng.choice(places)
        kind = rng.random()
        if isinstance(holder, dict) and kind < 0.1:
            del holder[step]
        elif isinstance(holder, dict) and kind < 0.2:
            holder[json.loads(rng.choice(['"x"', '"\\u0000"', '"../x"', '"' + "x" * 300 + '"', '""']))] = holder.pop(
                step
            )
        elif isinstance(holder, list) and kind < 0.1:
            holder.insert(step, holder[step])
        else:
            holder[step] = _MARK
            chosen.append(rng.choice(VALUES))
    text = json.dumps(document)
    for value in chosen:
        text = text.replace(f'"{_MARK}"', value, 1)
    return text


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document: what holds it, and its key or index."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in list(steps):
        yield value, step
        yield from _places(inner)
