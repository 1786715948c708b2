"""Is the runner as fast as llama-bench from the same build? Interleaved in one run, medians and ratios.

    .venv/bin/python -m tests.benchmarks.harness_overhead [--repetitions 5] [--threads 1] [--release 2024-02-27]

Both decode the same number of prompt tokens at once (prefill) and generate the same number of tokens into an almost empty
context (generation). The goal is a ratio of at least 0.98. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from meltrepro.record.events import read_trace
from tests.benchmarks._llama import GENERATED, PROMPT, build, llama_bench


def main() -> int:
    """Print the table; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1))
    parser.add_argument("--release", default="2024-02-27")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle, model = build(options.release, "q4_0")
        rows: dict[str, list[float]] = {}
        for repetition in range(options.repetitions + 1):
            measured = {
                "llama-bench": llama_bench(bundle / "bin" / "llama-bench", model, options.threads),
                "melt-runner": _runner(bundle, model, options.threads, folder),
            }
            if repetition:  # the first round warms up
                for program, (prefill, generation) in measured.items():
                    rows.setdefault(f"{program} prefill", []).append(prefill)
                    rows.setdefault(f"{program} generation", []).append(generation)
    print(
        f"llama.cpp {options.release}, q4_0, {options.threads} threads, {options.repetitions} interleaved repetitions"
    )
    met = True
    for phase in ("prefill", "generation"):
        ours, theirs = (statistics.median(rows[f"{program} {phase}"]) for program in ("melt-runner", "llama-bench"))
        met &= ours / theirs >= 0.98
        print(f"{phase:12} llama-bench {theirs:8.1f} tok/s   melt-runner {ours:8.1f} tok/s   ratio {ours / theirs:.3f}")
    return 0 if met else 1


def _runner(bundle: Path, model: Path, threads: int, folder: Path) -> tuple[float, float]:
    """Prefill from one long prompt, generation from a second conversation with a prompt of one token."""
    request = {
        "v": 1,
        "model": str(model),
        "context": 1024,
        "threads": threads,
        "batch": 2048,
        "max_tokens": GENERATED + 1,
        "ignore_eos": True,
        "sampling": {
            "greedy": True,
            "temperature": 1.0,
            "top_k": 1,
            "top_p": 1.0,
            "repeat_penalty": 1.0,
            "repeat_last_n": 0,
            "seed": 1,
        },
        "conversations": [[" word" * PROMPT], [" word"]],
        "warmup_tokens": 16,
    }
    (folder / "request.json").write_text(json.dumps(request))
    (folder / "events.jsonl").unlink(missing_ok=True)
    subprocess.run(
        [bundle / "bin" / "melt-runner", folder / "request.json", folder / "events.jsonl"],
        check=True,
        capture_output=True,
    )
    long, short = (conversation.turns[0] for conversation in read_trace(folder / "events.jsonl").conversations)
    assert long.prefill is not None
    prefill_s = (long.prefill.end_ns - long.prefill.begin_ns) / 1e9
    generation_s = (short.token_ns[-1] - short.token_ns[0]) / 1e9
    return long.n_prompt / prefill_s, (short.n_gen - 1) / generation_s


if __name__ == "__main__":
    sys.exit(main())
