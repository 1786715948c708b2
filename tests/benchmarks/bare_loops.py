"""Is each engine's runner as fast as a bare loop on the same library? Interleaved in one run, with the same model and threads.

    .venv/bin/python -m tests.benchmarks.bare_loops [--repetitions 9] [--threads 1] [--quantization q4_0]

The loop (`_bare.py`) is in Python, on the very wheel that the bundle's library is from; of MLC, TVM's virtual machine as its compiler's
bundle has it. Python costs some microseconds a token, which a runner saves. llama.cpp has a benchmark of its own (`harness_overhead`).
The order within a pair is drawn. The goal is a median ratio of the pairs of at least 0.97. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from meltrepro import settings
from meltrepro.frameworks.base import framework
from meltrepro.frameworks.prebuilt.module import WheelFramework
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from tests.benchmarks._llama import GENERATED, PROMPT, runner
from tests.benchmarks._table import Row, beside, finish
from tests.benchmarks.engines import artifacts

ENGINES = ("mlc", "onnxruntime", "openvino")


def main() -> int:
    """Print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--quantization", default="q4_0")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    bundles, models, compiler = artifacts(options.quantization)
    order, rows = random.Random(1), list[Row]()
    with tempfile.TemporaryDirectory() as name:
        for engine in ENGINES:
            command = [*_loop(engine, compiler, Path(name)), str(models[engine]), str(options.threads)]
            speeds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
            for repetition in range(options.repetitions + 1):
                for ours in order.sample([True, False], 2):
                    measured = (
                        runner(bundles[engine], models[engine], options.threads, Path(name)) if ours else _bare(command)
                    )
                    if repetition:  # the first round warms up
                        speeds[ours].append(measured)
            for phase, what in enumerate(("prefill", "generation")):
                ours_, theirs = ([speed[phase] for speed in speeds[ours]] for ours in (True, False))
                title = f"runner of {engine}, {options.quantization}, threads {options.threads}, {what}"
                rows.append(beside(title, ours_, "bare loop", theirs, "tok/s", at_least=0.97))
    return finish(rows)


def _bare(command: list[str]) -> tuple[float, float]:
    done = subprocess.run([*command, str(PROMPT), str(GENERATED)], stdout=subprocess.PIPE, check=True)
    prefill, generation = json.loads(done.stdout.splitlines()[-1])
    return prefill, generation


def _loop(engine: str, compiler: Path, folder: Path) -> list[str]:
    """The loop's command up to the model, by an interpreter that the engine's wheel is for: this one, or that of MLC's compiler."""
    loader = str(compiler / "lib" / "ld-linux-x86-64.so.2")
    python = [loader, "--library-path", str(compiler / "lib"), str(compiler / "bin" / "python3"), "-I", "-S", "-B"]
    packages = [compiler / "packages"]
    if engine != "mlc":
        found = framework(engine)
        assert isinstance(found, WheelFramework)
        wheel, here = found.engine.wheels[0].source("x86_64"), settings.load()
        with zipfile.ZipFile(Fetcher(Store(here.store), here, silent).get(wheel, folder)) as archive:
            archive.extractall(folder / engine)
        packages.insert(0, folder / engine)
        if f"cp{sys.version_info.major}{sys.version_info.minor}-" in str(wheel.filename):
            python, packages = [sys.executable], packages[:1]
    script = Path(__file__).with_name("_bare.py")
    return [*python, str(script), engine, ":".join(map(str, packages))]


if __name__ == "__main__":
    sys.exit(main())
