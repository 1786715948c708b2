"""How long the command line takes to start, and a build with nothing to do.

    .venv/bin/python -m tests.benchmarks.start_speed [--repetitions 9]

Medians over whole processes. Goals: `--help` and `validate` within 0.3 s, a build with nothing to do within 2 s, without
an engine: it is given the address of one that does not exist. The quickstart is built first where it is not yet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks._llama import ROOT

SPEC = ROOT / "specs" / "quickstart.yaml"
GOALS_S = {
    ("--help",): 0.3,
    ("validate", str(SPEC)): 0.3,
    ("build", str(SPEC), "--locked"): 2.0,
}


def main() -> int:
    """Print one line a command; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    _run(("build", str(SPEC)), os.environ)
    nowhere = {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    missed = False
    for arguments, goal_s in GOALS_S.items():
        times = [_run(arguments, nowhere) for _ in range(options.repetitions)]
        median_s = statistics.median(times)
        missed |= median_s > goal_s
        spread = f"({min(times):.2f} to {max(times):.2f})"
        print(f"{arguments[0]:10}{median_s:6.2f} s {spread}, goal {goal_s:g} s")
    return int(missed)


def _run(arguments: tuple[str, ...], environment: Mapping[str, str]) -> float:
    program = Path(sys.executable).with_name("meltrepro")
    began = time.perf_counter()
    subprocess.run([program, *arguments], env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
