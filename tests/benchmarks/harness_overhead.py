"""Is the runner as fast as llama-bench from the same build? Interleaved in one run, medians and ratios.

    .venv/bin/python -m tests.benchmarks.harness_overhead [--repetitions 15] [--threads 1] [--release 2024-02-27]
        [--quantization q4_0] [--depth 2048] [--options flash_attention=off kv_type=q8_0 ubatch=128]

Both decode the same number of prompt tokens at once (prefill) and generate the same number of tokens (generation) into a
context that holds as many tokens before, in steps and a context of about the same size. The order within a pair is drawn. The goal is a median
ratio of the pairs of at least 0.98. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

from meltrepro.frameworks.llamacpp.options import Options, arguments, given
from tests.benchmarks._llama import build, llama_bench, runner
from tests.benchmarks._table import beside, finish


def main() -> int:
    """Print the table; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--quantization", default="q4_0")
    parser.add_argument("--threads", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1))
    parser.add_argument("--release", default="2024-02-27")
    parser.add_argument("--depth", type=int, default=0, help="tokens that the context holds before")
    parser.add_argument("--options", nargs="*", default=[], metavar="NAME=VALUE", help="of llama.cpp, for both")
    options = parser.parse_args()
    asked = given(Options.model_validate(dict(each.split("=", 1) for each in options.options)))
    words = arguments(asked, options.release)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle, model = build(options.release, options.quantization)
        programs = {
            "llama-bench": lambda: llama_bench(
                bundle / "bin" / "llama-bench", model, options.threads, words, options.depth
            ),
            "melt-runner": lambda: runner(bundle, model, options.threads, folder, asked, options.depth),
        }
        rows: dict[str, list[tuple[float, float]]] = {program: [] for program in programs}
        order = random.Random(1)
        for repetition in range(options.repetitions + 1):
            for program in order.sample(sorted(programs), len(programs)):
                measured = programs[program]()
                if repetition:  # the first round warms up
                    rows[program].append(measured)
    found = []
    for phase, name in enumerate(("prefill", "generation")):
        theirs, ours = ([row[phase] for row in rows[program]] for program in programs)
        what = ", ".join(
            ["runner", options.release, options.quantization, *options.options, f"depth {options.depth}", name]
        )
        found.append(beside(what, ours, "llama-bench", theirs, "tok/s", at_least=0.98))
    return finish(found)


if __name__ == "__main__":
    sys.exit(main())
