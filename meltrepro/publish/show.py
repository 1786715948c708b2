"""The preview of an entry: the whole of it, as text that can be read."""

from __future__ import annotations

import yaml

from meltrepro.publish.entry import MOST_BYTES, PublicEntry
from meltrepro.words import readable

NEVER = "prompts, answers, names of campaign and targets, ids of devices, files"
"""What no entry has."""


def preview(entry: PublicEntry, content: bytes) -> str:
    """Every field of an entry as YAML, and what is not in it."""
    text = yaml.safe_dump(
        entry.model_dump(mode="json", exclude_none=True, exclude={"seal"}),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=150,
    )
    return f"{text}\n{readable(len(content))} of {readable(MOST_BYTES)}; not in it: {NEVER}\n"
