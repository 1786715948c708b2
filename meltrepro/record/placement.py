"""Where an engine computes and where its bytes lie, as it says in the event `effective` (docs/runner.md)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from meltrepro.manifest.base import Strict
from meltrepro.record.trace import OperatorPhase

Word = Annotated[str, Field(max_length=100)]
Whole = Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class Placed(Strict):
    """An operator of one module, alike in every layer, in one step of a phase."""

    phase: OperatorPhase
    backend: Word
    """As the engine calls it: Vulkan0, CPU."""
    op: Word
    module: Word
    n: Whole
    """How often in a step."""
    lookup: bool = False
    """Whether it only reads rows of a table, which an engine may leave to the CPU by design."""
    why: Word = ""
    """Why it is not computed by a device that is there."""

    def on(self, backend: str) -> bool:
        """Whether it is computed by a backend, whichever of its devices that is."""
        # llama.cpp calls its OpenCL GPUOpenCL.
        name = self.backend.rstrip("0123456789").lower()
        return backend.lower() in (name, name.removeprefix("gpu"))

    def __str__(self) -> str:
        return f"{self.op} {self.module}".rstrip()


class Lying(Strict):
    """Bytes in one kind of memory, as the engine calls it."""

    memory: Word
    weights: Whole
    context: Whole
    compute: Whole


class Placement(Strict):
    """Which backend computes each operator, and how many bytes lie where."""

    operators: Annotated[tuple[Placed, ...], Field(max_length=10000)]
    bytes: Annotated[tuple[Lying, ...], Field(max_length=100)] = ()

    def __str__(self) -> str:
        """How many operators of a step each backend computes: `prefill: Vulkan0 340, CPU 1`."""
        found: dict[str, dict[str, int]] = {}
        for each in self.operators:
            backends = found.setdefault(each.phase, {})
            backends[each.backend] = backends.get(each.backend, 0) + each.n
        return "; ".join(
            f"{phase}: {', '.join(f'{name} {n}' for name, n in sorted(backends.items(), key=lambda item: -item[1]))}"
            for phase, backends in found.items()
        )

    def elsewhere(self, backend: str) -> tuple[Placed, ...]:
        """The operators that another backend computes, without lookups."""
        return tuple(each for each in self.operators if not each.lookup and not each.on(backend))
