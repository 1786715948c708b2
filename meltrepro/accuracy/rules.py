"""Rules that an answer to an instruction must keep, each checked exactly: the text keeps it, or there is a reason why not."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from meltrepro.manifest.base import Strict
from meltrepro.untrusted import load_json
from meltrepro.words import counted, shorten

_BULLETS = ("- ", "* ", "• ")
_FENCE = "```"


class _Rule(Strict):
    def __str__(self) -> str:
        """As its question has it: `words least 2 most 9`."""
        said = self.model_dump(exclude_unset=True)
        return " ".join([said.pop("kind"), *(f"{key} {value!r}" for key, value in said.items())])

    @abstractmethod
    def broken(self, answer: str) -> str | None:
        """Why an answer, without space around it, does not keep the rule; `None` where it does."""


class _Number(_Rule):
    """Between `least` and `most` of something."""

    least: int | None = Field(None, ge=0)
    most: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.least is None and self.most is None:
            raise ValueError("expected 'least', 'most' or both")
        if self.least is not None and self.most is not None and self.least > self.most:
            raise ValueError(f"least {self.least} is more than most {self.most}")
        return self

    def _beyond(self, found: int, what: str) -> str | None:
        if self.least is not None and found < self.least:
            return f"{counted(found, what)}, at least {self.least}"
        if self.most is not None and found > self.most:
            return f"{counted(found, what)}, at most {self.most}"
        return None


class Words(_Number):
    """Words are what spaces separate, as far as a letter or digit is in it."""

    kind: Literal["words"]

    def broken(self, answer: str) -> str | None:
        return self._beyond(sum(any(map(str.isalnum, word)) for word in answer.split()), "word")


class Bullets(_Number):
    """Bullet points are lines that begin with `-`, `*` or `•` and a space."""

    kind: Literal["bullets"]

    def broken(self, answer: str) -> str | None:
        lines = (line.strip() for line in answer.splitlines())
        return self._beyond(sum(line.startswith(_BULLETS) for line in lines), "bullet point")


class UpperCase(_Rule):
    """At least one letter, and none that is small."""

    kind: Literal["upper-case"]

    def broken(self, answer: str) -> str | None:
        return None if answer.isupper() else "not all letters are capital"


class LowerCase(_Rule):
    """At least one letter, and none that is capital."""

    kind: Literal["lower-case"]

    def broken(self, answer: str) -> str | None:
        return None if answer.islower() else "not all letters are small"


class _Text(_Rule):
    text: str = Field(pattern=r"\S")

    @property
    def _shown(self) -> str:
        return repr(shorten(self.text))


class Contains(_Text):
    """Somewhere in the answer, in capital or small letters."""

    kind: Literal["contains"]

    def broken(self, answer: str) -> str | None:
        return None if self.text.casefold() in answer.casefold() else f"{self._shown} is not in it"


class Lacks(_Text):
    """Nowhere in the answer, in capital or small letters."""

    kind: Literal["lacks"]

    def broken(self, answer: str) -> str | None:
        return f"{self._shown} is in it" if self.text.casefold() in answer.casefold() else None


class BeginsWith(_Text):
    """To the letter."""

    kind: Literal["begins-with"]

    def broken(self, answer: str) -> str | None:
        return None if answer.startswith(self.text) else f"it does not begin with {self._shown}"


class EndsWith(_Text):
    """To the letter."""

    kind: Literal["ends-with"]

    def broken(self, answer: str) -> str | None:
        return None if answer.endswith(self.text) else f"it does not end with {self._shown}"


class Json(_Rule):
    """The whole answer is one JSON mapping that has these keys; marks of a block of code around it are taken off."""

    kind: Literal["json"]
    keys: list[str] = Field(default_factory=list)

    def broken(self, answer: str) -> str | None:
        if answer.startswith(_FENCE) and answer.endswith(_FENCE) and "\n" in answer:
            answer = answer.split("\n", 1)[1].removesuffix(_FENCE)
        try:
            found = load_json(answer)
        except ValueError:
            return "it is no JSON"
        if not isinstance(found, dict):
            return "it is JSON, and no mapping"
        missing = [key for key in self.keys if key not in found]
        return f"it lacks the key {missing[0]!r}" if missing else None


Rule = Annotated[
    Words | Bullets | UpperCase | LowerCase | Contains | Lacks | BeginsWith | EndsWith | Json,
    Field(discriminator="kind"),
]


class Instruction(Strict):
    """What a question asks for."""

    rules: list[Rule] = Field(min_length=1)
