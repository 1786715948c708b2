"""Prompt files: conversations as lists of prompts."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from meltrepro.errors import ManifestError, Problem
from meltrepro.spec.manifest import Strict, Workload
from meltrepro.spec.messages import explain
from meltrepro.spec.positions import field_path, read_file


class Conversation(Strict):
    """One conversation: its prompts in order."""

    id: str | None = None
    turns: list[str] = Field(min_length=1)


class PromptFile(Strict):
    """The whole file."""

    description: str = ""
    licence: str | None = None
    conversations: list[Conversation] = Field(min_length=1)


def load_conversations(workload: Workload, base_dir: Path) -> tuple[tuple[str, ...], ...]:
    """The prompts of a workload, cut to its `first` and `turns`; raises `ManifestError`."""
    if isinstance(workload.conversations, str):
        conversations = _read(base_dir / workload.conversations)
    else:
        conversations = tuple(map(tuple, workload.conversations))
    if not conversations or not all(conversations):
        raise ManifestError([Problem("conversations", 1, 1, "", "expected at least one conversation with one prompt")])
    if workload.first is not None and workload.first > len(conversations):
        file = str(workload.conversations) if isinstance(workload.conversations, str) else "conversations"
        message = f"first: {workload.first} asked for, but there are {len(conversations)} conversations"
        raise ManifestError([Problem(file, 1, 1, "", message)])
    return tuple(turns[: workload.turns] for turns in conversations[: workload.first])


def _read(path: Path) -> tuple[tuple[str, ...], ...]:
    document = read_file(path)
    try:
        file = PromptFile.model_validate(document.data)
    except ValidationError as error:
        problems = []
        for details in error.errors(include_url=False):
            message, suggestion = explain(details, PromptFile)
            location = details["loc"]
            while location not in document.values and location:
                location = location[:-1]
            at = document.values[location]
            problems.append(Problem(at.file, at.line, at.column, field_path(details["loc"]), message, suggestion))
        raise ManifestError(problems) from None
    blank = [
        (i, j) for i, conversation in enumerate(file.conversations) for j, t in enumerate(conversation.turns) if not t.strip()
    ]
    if blank:
        at = document.values[("conversations", blank[0][0], "turns", blank[0][1])]
        raise ManifestError([Problem(at.file, at.line, at.column, "conversations", "an empty prompt")])
    return tuple(tuple(conversation.turns) for conversation in file.conversations)
