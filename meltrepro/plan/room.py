"""Which models the store's disk has room for, in the order in which they are made."""

from __future__ import annotations

from dataclasses import dataclass, field

from meltrepro.manifest.sources import Source
from meltrepro.plan.estimate import Sizes
from meltrepro.plan.model import AS_IS, Cell
from meltrepro.words import readable


@dataclass
class Room:
    """What is left of the store's disk while one plan is made."""

    sizes: Sizes
    _taken: int = 0
    _made: set[Source] = field(default_factory=set)
    _answers: dict[str, str | None] = field(default_factory=dict)

    def refuse(self, cell: Cell, node: str, weights: int | None) -> str | None:
        """Why a cell's model cannot be made, else `None`, and its room is taken. `weights` is the file's size in bytes."""
        if node not in self._answers:
            self._answers[node] = self._ask(cell, node, weights)
        return self._answers[node]

    def _ask(self, cell: Cell, node: str, weights: int | None) -> str | None:
        free, source = self.sizes.free_bytes, cell.model.source
        if free is None or node in self.sizes.stored:
            return None
        whole = 0 if source in self._made else self.sizes.made.get(source, 0)
        is_source = cell.quantization == AS_IS and cell.model.synthetic  # which the store then holds once
        needed = whole if is_source else whole + (weights or 0)
        if self._taken + needed > free:
            taken = f", {readable(self._taken)} of it for the models before it" if self._taken else ""
            return f"needs {readable(needed)} in the store to be made, its disk has {readable(free)} free{taken}"
        self._taken += needed
        if whole:
            self._made.add(source)
        return None
