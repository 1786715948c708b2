"""How long `run` takes to its first trial where everything is built.

    .venv/bin/python -m tests.benchmarks.run_start [--repetitions 5]

From the start of the process to the step in which the first trial begins, by the campaign's own journal; the engine is
`process`. Goal: at most 2 s. It measures on this machine, so that nothing else may.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from meltrepro.record.campaign import JOURNAL
from tests.benchmarks._llama import ROOT
from tests.benchmarks._table import figure, finish

CHOSEN = ("--set=workloads.chat.max_tokens=1", "--set=protocol.repetitions=1", "--set=protocol.warmups=0")


def main() -> int:
    """Print one line; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    spec = str(ROOT / "specs/quickstart.yaml")
    subprocess.run([sys.executable, "-m", "meltrepro", "build", spec], check=True, capture_output=True)
    times = [_to_first_trial_s(spec) for _ in range(options.repetitions)]
    return finish([figure("`run` of the quickstart, to its first trial", times, "s", at_most=2)])


def _to_first_trial_s(spec: str) -> float:
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "meltrepro", "run", spec, "--only=*/q4_0/*", "--engine=process", "--no-track"]
        began_ns = time.monotonic_ns()
        subprocess.run(
            [*command, *CHOSEN], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "MELTREPRO_HOME": home}
        )
        (folder,) = (Path(home) / "records").iterdir()
        steps = map(json.loads, (folder / JOURNAL).read_text().splitlines())
        trial_ns: int = next(step["monotonic_ns"] for step in steps if step["name"] == "trial")
        return (trial_ns - began_ns) / 1e9


if __name__ == "__main__":
    sys.exit(main())
