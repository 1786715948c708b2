"""Profiles change defaults and nothing that a manifest says itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from meltrepro.manifest.protocol import PROFILES, Limits, Order, Protocol
from meltrepro.measure.validity import Reason
from meltrepro.record.outcomes import FailureKind

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"


@pytest.mark.parametrize(
    ("values", "repetitions", "warmups", "turn_pause_s"),
    [
        ({}, 5, 1, 0),
        ({"profile": "standard"}, 5, 1, 0),
        ({"profile": "smoke"}, 1, 0, 0),
        ({"profile": "smoke", "repetitions": 4}, 4, 0, 0),
        ({"profile": "paper"}, 3, 0, 5),
        ({"profile": "paper", "turn_pause_s": 0.5, "warmups": 2}, 3, 2, 0.5),
    ],
)
def test_what_is_written_wins_over_the_profile(
    values: dict[str, Any], repetitions: int, warmups: int, turn_pause_s: float
) -> None:
    protocol = Protocol.model_validate(values)
    assert (protocol.repetitions, protocol.warmups, protocol.turn_pause_s) == (repetitions, warmups, turn_pause_s)


def test_a_protocol_that_is_written_out_whole_stays_as_it_is() -> None:
    """As campaigns keep it: a later change of a profile does not change what was measured."""
    paper = Protocol.model_validate({"profile": "paper"})
    assert paper.order is Order.as_written
    changed = {**paper.model_dump(mode="json"), "idle_s": 1.0}
    assert Protocol.model_validate(changed).idle_s == 1.0


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ValidationError, match="'smoke', 'standard' or 'paper'"):
        Protocol.model_validate({"profile": "quick"})


def test_every_profile_is_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for profile, values in PROFILES.items():
        assert f"`{profile}`" in text
        assert all(f"`{name}`" in text for name in values)


@pytest.mark.parametrize("reason", [*Reason, *FailureKind])
def test_every_reason_is_documented(reason: Reason | FailureKind) -> None:
    assert f"`{reason}`" in DOCUMENT.read_text()


@pytest.mark.parametrize("limit", Limits.model_fields)
def test_every_limit_is_documented(limit: str) -> None:
    assert f"`{limit}`" in DOCUMENT.read_text()
