"""How a trial ended and why a cell was left out: a kind to decide by, and a sentence for people, which nobody parses.

Records of version 0.1 have the sentence alone. What kind it was is found here, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeGuard


class FailureKind(StrEnum):
    """What a trial failed of."""

    timeout = "timeout"
    out_of_memory = "out-of-memory"
    not_started = "not-started"
    killed = "killed"
    crashed = "crashed"
    runner = "runner-error"
    incomplete = "incomplete-events"
    unscored = "not-scored"
    unmeasured = "metric-unavailable"
    target = "target-error"
    meter = "meter-error"
    gate = "gate-closed"
    too_hot = "too-hot"
    tampered = "tampered"
    unknown = "unknown"
    """The record does not say."""


@dataclass(frozen=True)
class TrialFailure:
    """Why a trial failed."""

    kind: FailureKind
    detail: str
    """A line, and what the program said last below it."""
    transient: bool = False
    """Whether trying again may help."""

    @property
    def line(self) -> str:
        """The first line of it: `timeout: stopped after 5 s`."""
        return str(self).split("\n", 1)[0]

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


class SkipKind(StrEnum):
    """What is in the way of a cell."""

    target = "target"
    """The device refuses, or is broken."""
    absent = "absent"
    """The device is not there, or is lost."""
    busy = "busy"
    """Another campaign is measuring on it."""
    driver = "driver"
    """What it takes to reach such devices is not installed here."""
    variant = "variant"
    """The framework is not built for such a device."""
    options = "options"
    """Its options, as the manifest has them, do not fit the device."""
    build = "build"
    """The framework cannot be had or built in this release, or makes no such model of it."""
    model = "model"
    """It cannot make this model."""
    accuracy = "accuracy"
    """The cell has no accuracy."""
    context = "context"
    memory = "memory"
    disk = "disk"
    """The device has no room for the model."""
    store = "store"
    """This machine has no room to make it."""

    @property
    def of_device(self) -> bool:
        """Whether the cell waits for its device: another day it may run, though nothing else has changed."""
        return self in (SkipKind.target, SkipKind.absent, SkipKind.busy, SkipKind.driver)


_SKIPS_0_1 = (
    (SkipKind.memory, re.compile(r"^needs .+ of memory\b")),
    (SkipKind.disk, re.compile(r"^needs .+ on disk\b")),
    (SkipKind.store, re.compile(r"^needs .+ in the store\b")),
    (SkipKind.context, re.compile(r"^needs a context\b")),
    (SkipKind.target, re.compile(r"could not be reached$")),
    (SkipKind.accuracy, re.compile(r"(have no accuracy|no scorer|to compare with)$")),
    (SkipKind.model, re.compile(r"^framework .+ (has no converter|does not offer quantization)\b")),
)


def _without_kind(document: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(document, Mapping) and document.get("kind") is None and isinstance(document.get("reason"), str)


def with_failure_kind(document: Any) -> Any:
    """An outcome with the kind of its failure, which version 0.1 wrote into the sentence: `timeout: stopped after 5 s`."""
    if not _without_kind(document):
        return document
    kind, colon, detail = document["reason"].partition(": ")
    if colon and kind in list(FailureKind):
        return {**document, "kind": kind, "reason": detail}
    return {**document, "kind": FailureKind.unknown}


def with_skip_kind(document: Any) -> Any:
    """The entry of a skipped cell with what was in its way."""
    if not _without_kind(document):
        return document
    found = (kind for kind, pattern in _SKIPS_0_1 if pattern.search(document["reason"]))
    return {**document, "kind": next(found, SkipKind.variant)}
