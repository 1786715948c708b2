"""LoRA adapters with made-up numbers, and what they add to weights, computed here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf as library
import numpy as np
import numpy.typing as npt

from tests.support import ggufs

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lora:
    """Two matrices for each of some weights."""

    a: Mapping[str, Floats]
    """Of `rank` rows, a column for each number that the weight takes."""
    b: Mapping[str, Floats]
    """A row for each number that it gives, `rank` columns."""
    rank: int
    alpha: float

    def file(self, architecture: str = "llama") -> bytes:
        pairs = {
            name: (self.a[name].shape[::-1], self.a[name].tobytes(), self.b[name].shape[::-1], self.b[name].tobytes())
            for name in self.a
        }
        return ggufs.adapter(pairs, alpha=self.alpha, architecture=architecture)

    def added(self, scale: float) -> dict[str, Floats]:
        """What it adds to each weight, as rows of columns: scale alpha / rank B A."""
        factor = np.float32(scale * self.alpha / self.rank)
        return {name: (factor * (self.b[name] @ self.a[name])).astype(np.float32) for name in self.a}


def lora(model: Path, weights: Iterable[str], *, rank: int = 4, alpha: float = 8.0, size: float = 0.2) -> Lora:
    """An adapter for some weights of a model; with a `size` of 0 it adds nothing."""
    shapes = {each.name: [int(n) for n in each.shape] for each in library.GGUFReader(model).tensors}
    random = np.random.default_rng(11)
    a, b = {}, {}
    for name in weights:
        ins, outs = shapes[name]
        a[name] = random.standard_normal((rank, ins)).astype(np.float32)
        b[name] = (size * random.standard_normal((outs, rank))).astype(np.float32)
    return Lora(a, b, rank, alpha)
