"""What a study is: a set of manifests with claims of its own, and the numbers and tables that belong to them.

A manifest says which one it belongs to (`study: NAME`), its campaigns keep that in their records, and `STUDIES` of
`meltrepro.registry` finds the study by this name, also in other packages (entry points of the group `meltrepro.studies`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from meltrepro.registry import STUDIES
from meltrepro.report.results import Results
from meltrepro.report.values import Section


@dataclass(frozen=True)
class Decided:
    """What results say of a study's claims, in the forms in which it is shown."""

    tally: str
    """In one line: `4 hold (1 virtual), 1 fails, 17 not testable here`."""
    text: str
    json: str


class Study(Protocol):
    """Pure functions of results: the same records give the same bytes."""

    @property
    def name(self) -> str:
        """What manifests call it."""

    def decide(self, results: Results, *, virtual_only: bool = False) -> Decided:
        """Its claims, as far as these results can tell."""

    def sections(self, results: Results) -> Sequence[Section]:
        """What stands in a report after the results: claims, reference numbers, tables."""


def studies_of(results: Results) -> Iterator[tuple[Study, Results]]:
    """Each study that campaigns belong to, with what they alone found; one that is not installed says nothing."""
    for name in dict.fromkeys(results.studies.values()):
        if STUDIES.has(name):
            yield STUDIES.get(name), results.of_study(name)
