"""How fast is each engine with the same codes? All of `specs/engines.yaml` and llama.cpp of 2024, interleaved in one run.

    .venv/bin/python -m tests.benchmarks.engines [--repetitions 7] [--threads 1] [--quantization q4_0]

Each decodes the same number of prompt tokens at once (prefill) and generates the same number of tokens into an almost empty context
(generation), by the runner. The order within a round is drawn. The goals are MLC's: beside llama.cpp of 2024-02-27 a generation at
least as fast, and a prefill twice as fast. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks._llama import ROOT, build, runner
from tests.benchmarks._table import Row, beside, finish

OLD, NEW = "llama.cpp 2024-02-27", "llama.cpp"
GOALS = {"mlc": (2.0, 1.0)}
"""Of prefill and generation, beside llama.cpp of 2024-02-27."""


def main() -> int:
    """Print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--quantization", default="q4_0")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    bundles, models, _ = artifacts(options.quantization)
    engines = {OLD: build("2024-02-27", options.quantization)}
    engines |= {name: (bundle, models[name]) for name, bundle in bundles.items()}
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    order = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        for repetition in range(options.repetitions + 1):
            for name in order.sample(sorted(engines), len(engines)):
                measured = runner(*engines[name], options.threads, Path(folder))
                if repetition:  # the first round warms up
                    speeds[name].append(measured)
    rows: list[Row] = []
    for name in (each for each in engines if each != OLD):
        for phase, what in enumerate(("prefill", "generation")):
            for other, goal in ((OLD, GOALS.get(name, (None, None))[phase]), *([(NEW, None)] if name != NEW else [])):
                ours, theirs = ([speed[phase] for speed in speeds[each]] for each in (name, other))
                title = f"{name}, {options.quantization}, threads {options.threads}, {what}"
                rows.append(beside(title, ours, other, theirs, "tok/s", at_least=goal))
    return finish(rows)


def artifacts(quantization: str) -> tuple[Mapping[str, Path], Mapping[str, Path], Path]:
    """Bundle and model of every engine that offers the scheme, by framework, and the compiler of MLC's models."""
    with tempfile.TemporaryDirectory() as name:
        spec = shutil.copytree(ROOT / "specs", Path(name) / "specs") / "engines.yaml"
        command = [
            sys.executable,
            "-m",
            "meltrepro",
            "build",
            str(spec),
            "--json",
            "--only",
            f"*/{quantization}/*/host/chat",
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    paths = {row["id"]: Path(row["path"]) for row in json.loads(done.stdout)}
    bundles = {id.partition("/")[0]: path for id, path in paths.items() if "/run/" in id}
    models = {id.split("/")[2]: path for id, path in paths.items() if id.split("/")[1] == quantization}
    return bundles, models, next(path for id, path in paths.items() if id.startswith("mlc/compile/"))


if __name__ == "__main__":
    sys.exit(main())
