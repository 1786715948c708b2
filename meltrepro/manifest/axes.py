"""Axes of a matrix that options make: a list as the value of an option of a run gives a cell for each of its values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field

from meltrepro.words import shorten

MARK = "+"
"""Stands before each option in the name of a framework's point; no name of a manifest has it."""
_LONGEST = 120


class _Swept:
    """Marks a field that may have a list of its values."""


def _is_axis(values: list[Any]) -> list[Any]:
    named = [label(each) for each in values]
    if twice := next((each for each in named if named.count(each) > 1), None):
        raise ValueError(f"{twice!r} is named twice")
    return values


T = TypeVar("T")
Swept = Annotated[T | Annotated[list[T], Field(min_length=1), AfterValidator(_is_axis)], _Swept()]
"""An option of a run, which changes neither builds nor models: one value, or a list that makes an axis."""


@dataclass(frozen=True)
class Point:
    """Options with one value each."""

    options: BaseModel
    values: Mapping[str, Any]
    """Those that other points have otherwise."""

    @property
    def name(self) -> str:
        """What it is called behind its framework's name; empty for the only one."""
        return "".join(f"{MARK}{key}={label(value)}" for key, value in self.values.items())


def base(framework: str) -> str:
    """The name of a manifest's entry in the name of a point of it."""
    return framework.partition(MARK)[0]


def label(value: Any) -> str:
    """A value as ids have it: letters, digits, `.`, `_` and `-` alone; `default` for an option that is not given."""
    text = "default" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return shorten(re.sub(r"[^A-Za-z0-9._-]", "_", text), 40)


@cache
def swept(options: type[BaseModel]) -> tuple[str, ...]:
    """The options that may be axes."""
    fields = options.model_fields.items()
    return tuple(name for name, field in fields if any(isinstance(each, _Swept) for each in field.metadata))


def points(options: BaseModel) -> Sequence[Point]:
    """Every combination of the values of options that are lists, in their order; raises `ValueError` where names get too long."""
    keys = [name for name in swept(type(options)) if isinstance(getattr(options, name), list)]
    found = []
    for values in product(*(getattr(options, name) for name in keys)):
        chosen = dict(zip(keys, values, strict=True))
        point = Point(options.model_copy(update=chosen), chosen)
        if len(point.name) > _LONGEST:
            raise ValueError(
                f"{len(keys)} options with several values each make names of more than {_LONGEST} characters"
            )
        found.append(point)
    return found
