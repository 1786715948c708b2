"""What does sampling cost the runner? Trials without, at the default rate and at ten times that, interleaved.

    .venv/bin/python -m tests.benchmarks.sampler_overhead [--repetitions 9] [--threads N] [--tokens 200]

Every core has a thread of the runner, so that whatever the sampler takes is taken from it. Goal: at the default rate,
generation keeps at least 0.99 of its speed. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meltrepro.measure.metrics import compute
from meltrepro.measure.sensor_plan import sensor_plan
from meltrepro.record.events import read_trace
from meltrepro.record.samples import read_samples
from meltrepro.targets.base import RUNNER, SAMPLER
from meltrepro.targets.remote.sensors import linux_sources
from tests.benchmarks._llama import build
from tests.benchmarks._table import beside, figure, finish

RATES = (0.0, 1.0, 10.0)


def main() -> int:
    """Print the table; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--release", default="2026-10-01")
    options = parser.parse_args()
    bundle, model = build(options.release, "q4_0")
    speeds: dict[float, list[float]] = {rate: [] for rate in RATES}
    shares: dict[float, list[float]] = {rate: [] for rate in RATES}
    for repetition in range(options.repetitions + 1):
        for rate in RATES[repetition % 3 :] + RATES[: repetition % 3]:
            speed, share = _trial(bundle, model, options.threads, options.tokens, rate)
            if repetition:  # the first round warms up
                speeds[rate].append(speed)
                shares[rate].append(share)
    found = []
    for rate in RATES[1:]:
        goal = 0.99 if rate == 1 else None
        what = f"generation, sampler at {rate:g} Hz"
        found.append(beside(what, speeds[rate], "without", speeds[0.0], "tok/s", at_least=goal))
        found.append(figure(f"sampler at {rate:g} Hz, of a core", [100 * share for share in shares[rate]], "%"))
    return finish(found)


def _trial(bundle: Path, model: Path, threads: int, tokens: int, rate_hz: float) -> tuple[float, float]:
    """Tokens per second of generation, and the sampler's CPU time as a share of one core."""
    sampling = {"greedy": True, "temperature": 1.0, "top_k": 1, "top_p": 1.0, "repeat_penalty": 1.0}
    request = {
        "v": 1,
        "model": str(model),
        "context": 1024,
        "threads": threads,
        "batch": 512,
        "max_tokens": tokens,
        "ignore_eos": True,
        "sampling": {**sampling, "repeat_last_n": 0, "seed": 1},
        "conversations": [["Once upon a time"]],
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "request.json").write_text(json.dumps(request))
        with _sampler(bundle, folder, rate_hz):
            runner = [bundle / RUNNER, folder / "request.json", folder / "events.jsonl"]
            subprocess.run(runner, check=True, capture_output=True)
        recording = read_samples(folder / "samples.jsonl") if rate_hz else None
        values = compute(read_trace(folder / "events.jsonl"), recording).values
    return values["generation_tps"], values.get("sampler_overhead_share", 0.0)


@contextmanager
def _sampler(bundle: Path, folder: Path, rate_hz: float) -> Iterator[None]:
    if rate_hz == 0:
        yield
        return
    (folder / "plan.json").write_bytes(sensor_plan(linux_sources(Path("/")), rate_hz))
    with subprocess.Popen([bundle / SAMPLER, folder / "plan.json", folder / "samples.jsonl"]) as process:
        try:
            yield
        finally:
            process.terminate()


if __name__ == "__main__":
    raise SystemExit(main())
