"""How trials ended and why cells were left out: kinds, those of records of version 0.1 too."""

from __future__ import annotations

import pytest

from meltrepro.record.campaign import SkipEntry
from meltrepro.record.outcomes import FailureKind, SkipKind, TrialFailure, with_failure_kind

CELL = "m/q4_0/f/t/w"


@pytest.mark.parametrize(
    ("reason", "kind", "detail"),
    [
        ("timeout: stopped after 5 s\n  last words: none", "timeout", "stopped after 5 s\n  last words: none"),
        ("metric-unavailable: energy is required, but: no", "metric-unavailable", "energy is required, but: no"),
        ("it went wrong", "unknown", "it went wrong"),
        ("strange: it went wrong", "unknown", "strange: it went wrong"),
    ],
)
def test_a_failure_of_an_old_record(reason: str, kind: str, detail: str) -> None:
    found = with_failure_kind({"reason": reason})
    assert (found["kind"], found["reason"]) == (kind, detail)


def test_what_has_a_kind_stays_as_it_is() -> None:
    document = {"kind": "killed", "reason": "timeout: not this"}
    assert with_failure_kind(document) == document
    assert SkipEntry(id=CELL, kind=SkipKind.store, reason="needs 3 GB of memory").kind is SkipKind.store


def test_a_failure_is_shown_with_its_kind() -> None:
    failure = TrialFailure(FailureKind.timeout, "stopped after 5 s\n  last words")
    assert str(failure) == "timeout: stopped after 5 s\n  last words"
    assert failure.line == "timeout: stopped after 5 s"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("needs 26.1 GB of memory, target host has 8.3 GB", SkipKind.memory),
        ("needs 26.1 GB on disk, target host has 8.3 GB free", SkipKind.disk),
        ("needs 3.1 GB in the store to be made, its disk has 1.0 GB free", SkipKind.store),
        ("needs a context of 4096 tokens, model m has 2048", SkipKind.context),
        ("target phone could not be reached", SkipKind.target),
        ("framework llama.cpp does not offer quantization q9", SkipKind.model),
        ("framework f does not offer quantization f16 to compare with", SkipKind.accuracy),
        ("model tiny is synthetic: its weights were made up, and have no accuracy", SkipKind.accuracy),
        ("framework f has no build for riscv64, which target t is", SkipKind.variant),
    ],
)
def test_a_skip_of_an_old_record(reason: str, kind: SkipKind) -> None:
    assert SkipEntry.model_validate({"id": CELL, "reason": reason}).kind is kind
