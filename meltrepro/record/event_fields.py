"""The fields of one line of `events.jsonl`, none of which is believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic import ValidationError

from meltrepro.errors import RecordError
from meltrepro.record.placement import Placement
from meltrepro.record.trace import Said
from meltrepro.words import shorten

_MOST = 2**63 - 1
_LONGEST_NAME, _LONGEST_SAID = 100, 4000
"""Characters of what a program says of itself."""


class EventFields:
    """The fields of one event, checked when they are taken."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where
        self.kind = self.string("e")
        self.t = self.whole("t")

    def fail(self, message: str) -> NoReturn:
        raise RecordError(
            f"{self._where}: {message}", hint="the record is damaged or its runner breaks the contract: docs/runner.md"
        )

    def whole(self, key: str, most: int = _MOST) -> int:
        value = self._values.get(key)
        if type(value) is not int or not 0 <= value <= most:
            self.fail(f"{key}: expected a whole number from 0, got {shorten(ascii(value))}")
        return value

    def whole_or_none(self, key: str) -> int | None:
        return None if self._values.get(key) is None else self.whole(key)

    def amount_or_none(self, key: str) -> float | None:
        value = self._values.get(key)
        if value is not None and (type(value) not in (int, float) or not 0 <= value < math.inf):
            self.fail(f"{key}: expected a number from 0, got {shorten(ascii(value))}")
        return None if value is None else float(value)

    def truth(self, key: str) -> bool:
        value = self._values.get(key)
        if not isinstance(value, bool):
            self.fail(f"{key}: expected true or false, got {shorten(ascii(value))}")
        return value

    def string_or_none(self, key: str) -> str | None:
        return None if self._values.get(key) is None else self.string(key)

    def string(self, key: str) -> str:
        value = self._values.get(key)
        if not isinstance(value, str):
            self.fail(f"{key}: expected a text, got {shorten(ascii(value))}")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(f"{key}: the text holds half a character")
        return value

    def placement(self) -> Placement | None:
        """Where an engine computes; `None` where it does not say."""
        value = self._values.get("placement")
        try:
            return None if value is None else Placement.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            self.fail(f"placement.{'.'.join(map(str, first['loc']))}: {first['msg']}")

    def said(self, *apart: str) -> Said:
        """All but kind, time and what stands `apart`, by names of the program's own; values are text, numbers or truths."""
        names = ("e", "t", *apart)
        found = {name: value for name, value in self._values.items() if name not in names and value is not None}
        for name, value in found.items():
            if not isinstance(value, str | int | float):
                self.fail(f"{name}: expected a text, a number, true or false, got {shorten(ascii(value))}")
            if len(name) > _LONGEST_NAME or len(str(value)) > _LONGEST_SAID:
                self.fail(f"{shorten(ascii(name))}: longer than anything that is said here")
            if isinstance(value, float) and not math.isfinite(value):
                self.fail(f"{name}: not finite")
        return {name: self.string(name) if isinstance(value, str) else value for name, value in found.items()}

    def one_of_or_none(self, key: str, choices: tuple[str, ...]) -> Any:
        return None if self._values.get(key) is None else self.one_of(key, choices)

    def one_of(self, key: str, choices: tuple[str, ...]) -> Any:
        value = self._values.get(key)
        if value not in choices:
            self.fail(f"{key}: expected one of {', '.join(choices)}, got {shorten(ascii(value))}")
        return value
