"""How fast synthetic weights are made, in how much memory, and that they are those of the zoo.

Goals: at least 150 MB/s on one core, and less than 4 GB of memory for every shape. Nothing is written; each shape has a
process of its own, so that its peak is its own.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import time
from pathlib import Path

import yaml

from meltrepro.frameworks.llamacpp.synthetic import pieces
from meltrepro.manifest.shapes import SHAPES, ShapeName
from tests.benchmarks._table import figure, finish

ZOO = Path(__file__).parents[2] / "specs" / "paper" / "models"


def main() -> int:
    """Print two lines a shape; raises `SystemExit` where a digest is not that of the zoo."""
    wrong, rows = [], []
    context = multiprocessing.get_context("spawn")
    for file in sorted(ZOO.glob("*.yaml")):
        (model,) = yaml.safe_load(file.read_text(encoding="utf-8"))["models"].values()
        source = model["source"]
        with context.Pool(1) as pool:
            digest, size, seconds, peak = pool.apply(make, (source["synthetic"], source["seed"]))
        rows.append(figure(f"weights of {source['synthetic']}", [size / seconds / 1e6], "MB/s", at_least=150))
        rows.append(figure(f"weights of {source['synthetic']}, memory", [peak / 1e9], "GB", at_most=4))
        if digest != source["digest"]:
            wrong.append(f"{source['synthetic']}: the zoo has {source['digest']}, made was {digest}")
    if wrong:
        raise SystemExit("\n".join(wrong))
    return finish(rows)


def make(name: ShapeName, seed: int) -> tuple[str, int, float, int]:
    """Digest, bytes, seconds and the process's peak memory in bytes of making one file."""
    began, size, digest = time.perf_counter(), 0, hashlib.sha256()
    for piece in pieces(SHAPES[name], seed):
        digest.update(piece)
        size += len(memoryview(piece))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return digest.hexdigest(), size, time.perf_counter() - began, peak


if __name__ == "__main__":
    raise SystemExit(main())
