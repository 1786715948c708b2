"""Prompt files: conversations as lists of prompts.

description: Everyday questions
licence: Apache-2.0
conversations:
  - id: bread
    turns: [How do I bake bread?, And how long does it keep?]
  - [A conversation, may also be, a plain list]
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from meltrepro.errors import ManifestError, Problem
from meltrepro.spec.base import Name, Strict
from meltrepro.spec.manifest import Conversation, Workload
from meltrepro.spec.positions import read_file
from meltrepro.spec.tree import FieldPath, Position
from meltrepro.spec.validation import validate

Conversations = tuple[tuple[str, ...], ...]


class NamedConversation(Strict):
    """A conversation with a name."""

    id: Name
    turns: Conversation


class PromptFile(Strict):
    """The whole file."""

    description: str = ""
    licence: str | None = Field(None, description="SPDX expression or name of the licence of the prompts.")
    conversations: list[NamedConversation | Conversation] = Field(min_length=1)


def load_conversations(workload: Workload, base_dir: Path) -> Conversations:
    """The prompts of a workload, cut to its `first` and `turns`; a file counts from `base_dir`.

    Raises `ManifestError`.
    """
    written = workload.conversations
    problems: list[Problem] = []
    if isinstance(written, str):
        path = base_dir / written
        conversations = read_conversations(path, str(path), Position(str(path)), (), problems)
        label = str(path)
    else:
        conversations, label = tuple(map(tuple, written)), "conversations"
    if conversations is not None:
        too_few = shortage(workload, conversations)
        problems += [Position(label).problem((key,), message) for key, message in too_few]
    if problems or conversations is None:
        raise ManifestError(problems)
    return tuple(turns[: workload.turns] for turns in conversations[: workload.first])


def read_conversations(
    path: Path, label: str, named_at: Position, field: FieldPath, problems: list[Problem]
) -> Conversations | None:
    """All conversations of a prompt file; `None` where it is wrong, with the reasons added to `problems`."""
    root = read_file(path, label, named_at, field, problems)
    before = len(problems)
    file = validate(PromptFile, root, problems) if root is not None else None
    if file is None or len(problems) > before:
        return None
    return tuple(tuple(item.turns if isinstance(item, NamedConversation) else item) for item in file.conversations)


def shortage(workload: Workload, conversations: Conversations) -> list[tuple[str, str]]:
    """Which of `first` and `turns` ask for more than there is, each with a message."""
    found: list[tuple[str, str]] = []
    if workload.first is not None and workload.first > len(conversations):
        found.append(("first", f"{workload.first} conversations are asked for, there are {len(conversations)}"))
    longest = max(map(len, conversations))
    if workload.turns is not None and workload.turns > longest:
        found.append(("turns", f"{workload.turns} prompts are asked for, the longest conversation has {longest}"))
    return found
