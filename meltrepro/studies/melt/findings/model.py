"""What a finding is: a claim, a rule that decides it, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from meltrepro.report.results import CellResult

_PROPOSED = "proposed by this project before anything was measured; the paper's text was not available"


class Ruling(StrEnum):
    """What data say of a claim. A claim that fails is a result and no error."""

    holds = "HOLDS"
    fails = "FAILS"
    not_testable = "NOT TESTABLE HERE"


@dataclass(frozen=True)
class Quantity:
    """A number with its unit; `1` for counts and ratios."""

    value: float
    unit: str = "1"

    def __str__(self) -> str:
        shown = f"{self.value:.0f}" if float(self.value).is_integer() and abs(self.value) < 1e6 else f"{self.value:.4g}"
        return shown if self.unit == "1" else f"{shown} {self.unit}"


@dataclass(frozen=True)
class Published:
    """A figure of the paper that was recovered, or that follows from such figures."""

    name: str
    quantity: Quantity
    source: str
    secondhand: bool = False
    """Only quoted by others: a rough range, and no target."""


@dataclass(frozen=True)
class Judgement:
    """What a rule made of some cells."""

    held: bool | None
    """`None` where the data cannot tell."""
    reason: str
    """Why, in one sentence; where `held` is `None`, what is missing."""
    numbers: Mapping[str, Quantity] = field(default_factory=dict)
    evidence: tuple[CellResult, ...] = ()
    """The cells that it rests on."""
    notes: tuple[str, ...] = ()
    """What a reader must know besides."""


Rule = Callable[[Sequence[CellResult]], Judgement]


@dataclass(frozen=True)
class Definition:
    """One claim of the paper and how it is decided."""

    id: str
    """`F1` to `F22`."""
    claim: str
    threshold: str
    """When it holds."""
    needs: str
    """The least data that decide it."""
    decide: Rule
    """Of cells of one kind of device, real or virtual."""
    direct: bool = True
    """Whether the claim follows the paper's abstract or artifact closely; else it is implied by what its scripts measure."""
    synthetic: bool = True
    """Whether made-up weights may be used: for speed and memory, never for accuracy."""
    reference: Callable[[], tuple[Published, ...]] = tuple
    """Figures of the paper; none where they were not recovered."""


@dataclass(frozen=True, kw_only=True)
class Finding(Judgement):
    """A claim decided."""

    definition: Definition
    virtual: bool
    """Decided by virtual devices, whose numbers say nothing of real ones."""

    @property
    def verdict(self) -> Ruling:
        return {True: Ruling.holds, False: Ruling.fails, None: Ruling.not_testable}[self.held]

    @property
    def synthetic(self) -> bool:
        """Whether it rests on made-up weights, also in part."""
        return any(cell.synthetic for cell in self.evidence)

    @property
    def marks(self) -> tuple[str, ...]:
        """`virtual` and `synthetic`, as far as they apply."""
        return tuple(name for name in ("virtual", "synthetic") if getattr(self, name))

    def as_json(self) -> dict[str, Any]:
        evidence = dict.fromkeys((cell.campaign, cell.cell) for cell in self.evidence)
        return {
            "id": self.definition.id,
            "claim": self.definition.claim,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "virtual": self.virtual,
            "synthetic": self.synthetic,
            "numbers": {name: {"value": q.value, "unit": q.unit} for name, q in self.numbers.items()},
            "notes": list(self.notes),
            "threshold": self.definition.threshold,
            "threshold_source": _PROPOSED,
            "reference": [
                {
                    "name": one.name,
                    "value": one.quantity.value,
                    "unit": one.quantity.unit,
                    "source": one.source,
                    "secondhand": one.secondhand,
                }
                for one in self.definition.reference()
            ],
            "evidence": [{"campaign": campaign, "cell": cell} for campaign, cell in evidence],
        }


def missing(reason: str, numbers: Mapping[str, Quantity] | None = None, *cells: CellResult) -> Judgement:
    """The data cannot tell, and why."""
    return Judgement(None, reason, numbers or {}, cells)
