"""Prompt files: conversations as lists of prompts.

description: Everyday questions
licence: Apache-2.0
conversations:
  - id: bread
    turns: [How do I bake bread?, And how long does it keep?]
  - [A conversation, may also be, a plain list]

MELT's own set is not part of this project. It is fetched from where its authors published it, pinned by commit and digest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import Field, TypeAdapter, ValidationError

from meltrepro.errors import ManifestError, Problem
from meltrepro.manifest.base import Name, Strict
from meltrepro.manifest.schema import Conversation, Workload
from meltrepro.manifest.sources import UrlSource
from meltrepro.manifest.yaml.positions import read_file
from meltrepro.manifest.yaml.tree import FieldPath, Position
from meltrepro.manifest.yaml.validation import validate

Conversations = tuple[tuple[str, ...], ...]

MELT = "melt"
"""What a workload writes in the place of a file for MELT's prompts."""
MELT_COMMIT = "15dcd82ce1e52f03f042a2c56a4eade9ca6746d5"
MELT_SOURCE = UrlSource(
    url=f"https://raw.githubusercontent.com/brave-experiments/MELT-public/{MELT_COMMIT}/src/prompts/conversations.json",
    digest="7690bea9defde7780310a54847c297e57446ad0229ebe517c575b44c69c6c1e8",
)
"""50 conversations, 404 prompts; their lengths are those of `specs/prompts/conversations.yaml`."""


class NamedConversation(Strict):
    """A conversation with a name."""

    id: Name
    turns: Conversation


class PromptFile(Strict):
    """The whole file."""

    description: str = ""
    licence: str | None = Field(None, description="SPDX expression or name of the licence of the prompts.")
    conversations: list[NamedConversation | Conversation] = Field(min_length=1)


def load_conversations(
    workload: Workload, base_dir: Path, fetch: Callable[[UrlSource], Path] | None = None
) -> Conversations:
    """The prompts of a workload, cut to its `first`, `turns` and `prompts`; a file counts from `base_dir`.

    `fetch` brings MELT's prompts where they are asked for. Raises `ManifestError`, and what fetching raises.
    """
    written = workload.conversations
    problems: list[Problem] = []
    conversations: Conversations | None
    if written == MELT:
        if fetch is None:
            raise ManifestError([Position(MELT).problem((), "MELT's prompts cannot be fetched here")])
        conversations, label = read_prompt_lists(fetch(MELT_SOURCE)), MELT
    elif isinstance(written, str):
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
    return _cut(workload, conversations)


def read_prompt_lists(path: Path) -> Conversations:
    """The conversations of a file in MELT's format: JSON, lists of prompts; raises `ManifestError` for anything else."""
    try:
        lists = TypeAdapter(list[Conversation]).validate_json(path.read_bytes(), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ManifestError([Position(MELT).problem(first["loc"], first["msg"])]) from error
    if not lists:
        raise ManifestError([Position(MELT).problem((), "there are no conversations in it")])
    return tuple(map(tuple, lists))


def _cut(workload: Workload, conversations: Conversations) -> Conversations:
    kept: list[tuple[str, ...]] = []
    left = workload.prompts
    for turns in conversations[: workload.first]:
        if left == 0:
            break
        kept.append(turns[: workload.turns][:left])
        left = left - len(kept[-1]) if left is not None else None
    return tuple(kept)


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
    """Which of `first`, `turns` and `prompts` ask for more than there is, each with a message."""
    found: list[tuple[str, str]] = []
    if workload.first is not None and workload.first > len(conversations):
        found.append(("first", f"{workload.first} conversations are asked for, there are {len(conversations)}"))
    longest = max(map(len, conversations))
    if workload.turns is not None and workload.turns > longest:
        found.append(("turns", f"{workload.turns} prompts are asked for, the longest conversation has {longest}"))
    available = sum(map(len, _cut(workload.model_copy(update={"prompts": None}), conversations)))
    if not found and workload.prompts is not None and workload.prompts > available:
        found.append(("prompts", f"{workload.prompts} prompts are asked for, there are {available}"))
    return found
