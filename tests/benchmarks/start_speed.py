"""How long the command line takes to start, and a build with nothing to do.

    .venv/bin/python -m tests.benchmarks.start_speed [--repetitions 9]

Medians over whole processes. Goals: `--help` within 0.2 s, `validate` within 0.3 s, a build with nothing to do within 0.6 s,
without an engine: it is given the address of one that does not exist. The quickstart is built first where it is not yet.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks._llama import ROOT
from tests.benchmarks._table import figure, finish

SPEC = ROOT / "specs" / "quickstart.yaml"
GOALS_S = {
    ("--help",): 0.2,
    ("validate", str(SPEC)): 0.3,
    ("build", str(SPEC), "--locked"): 0.6,
}


def main() -> int:
    """Print one line a command; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    _run(("build", str(SPEC)), os.environ)
    nowhere = {**os.environ, "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    rows = []
    for arguments, goal_s in GOALS_S.items():
        times = [_run(arguments, nowhere) for _ in range(options.repetitions)]
        rows.append(figure(f"`{arguments[0]}` of the quickstart", times, "s", at_most=goal_s))
    return finish(rows)


def _run(arguments: tuple[str, ...], environment: Mapping[str, str]) -> float:
    program = Path(sys.executable).with_name("meltrepro")
    began = time.perf_counter()
    subprocess.run([program, *arguments], env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
