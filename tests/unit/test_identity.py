"""One canonical form: equal values have equal digests, different ones do not."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.manifest.schema import Sampling
from meltrepro.plan.identity import canonical, digest_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any) -> Any:
    """The same value with every mapping built in the reverse order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(list(value))}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(JSON)
def test_the_order_of_keys_means_nothing(value: Any) -> None:
    assert digest_of(value) == digest_of(shuffled(value))


@given(JSON)
def test_nothing_is_lost(value: Any) -> None:
    assert json.loads(canonical(value).decode("utf-8", "surrogatepass")) == value


@given(JSON, JSON)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    assert (digest_of(one) == digest_of(other)) == (canonical(one) == canonical(other))


@given(st.lists(st.text()))
def test_sets_have_one_order(values: list[str]) -> None:
    assert digest_of(frozenset(values)) == digest_of(dict.fromkeys(reversed(values)).keys())
    assert sorted(json.loads(canonical(set(values)))) == sorted(set(values))


def test_the_digest_is_pinned() -> None:
    """It names artifacts in locks; if this changes, every lock in the world is void."""

    class Colour(StrEnum):
        red = "red"

    value = {"b": [1, 2.5, True, None], "a": "ü", "c": Path("x/y"), "d": Colour.red, "e": (1,), "f": frozenset("ba")}
    assert canonical(value).decode() == ('{"a":"ü","b":[1,2.5,true,null],"c":"x/y","d":"red","e":[1],"f":["a","b"]}')
    assert digest_of(value) == "61ddefc34de9b138d78218376eb6ff8499cbb6f14d47327271039cc088bfb331"


def test_models_count_by_their_fields() -> None:
    assert digest_of(Sampling(greedy=True)) == digest_of({**Sampling().model_dump(), "greedy": True})


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}])
def test_numbers_that_json_has_not_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest_of(value)


@pytest.mark.parametrize("value", [object(), {1: "a"}, b"bytes", digest_of])
def test_values_without_a_form_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="canonical form"):
        digest_of(value)
