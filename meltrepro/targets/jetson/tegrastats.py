"""NVIDIA's `tegrastats`: one line of it, and what can be sampled of its lines while it writes them into a file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from meltrepro.targets.base import Source

ONE_LINE = 'command -v tegrastats > /dev/null || exit 0; tegrastats --interval 200 | { read -r line; echo "$line"; }'
ONE_LINE_S = 10.0
FED = "feed/tegrastats"
"""Below the root of the target's folder."""
_EVERY_S = 1.0
FEEDER = f"""
mkdir -p "$1" && cd "$1" || exit 1
tegrastats --interval {_EVERY_S * 1000:.0f} | while read -r line; do
    echo "$line" > tegrastats.part && mv tegrastats.part tegrastats
done
"""
"""Its argument is the folder in which the file is to be."""
_RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) -?\d+mW/-?\d+mW")
_LOAD = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) \d+%")


def fed_sources(line: str, root: str) -> Sequence[Source]:
    """What of the lines can be sampled, by one of them: power of rails (in mW, so that nobody adds it up), loads of engines.

    Boards and releases differ in what there is. A rail `NC` is of no use.
    """
    path = f"{root.lstrip('/')}/{FED}"
    return [
        Source(f"tegrastats.{name}", unit, "gauge", path, f" {name} ", refresh_s=_EVERY_S)
        for unit, pattern in (("mW", _RAIL), ("%", _LOAD))
        for name in dict.fromkeys(pattern.findall(line))
        if name != "NC"
    ]
