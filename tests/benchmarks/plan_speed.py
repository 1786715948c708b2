"""How long planning takes: 10,000 cells, ten times. Goal: under 1 s."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import yaml

from meltrepro.manifest.loader import load_manifest
from meltrepro.plan.identity import plan_digest
from meltrepro.plan.planner import make_plan
from meltrepro.targets.base import DeviceFacts
from tests.benchmarks._table import figure, finish

MODELS, QUANTIZATIONS, FRAMEWORKS, TARGETS, WORKLOADS = 25, ["q8_0", "q4_0", "q4_K", "q3_K"], 4, 5, 5
FEATURES = frozenset({"avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"})


def main() -> int:
    """Print one line a measure; 1 where the goal is missed."""
    model = {"source": {"file": "m.gguf"}, "chat_template": "chatml", "quantizations": QUANTIZATIONS, "parameters": 1e9}
    document = {
        "meltrepro": 1,
        "name": "large",
        "models": {f"model{i}": model for i in range(MODELS)},
        "frameworks": {f"framework{i}": {"kind": "llama.cpp", "release": "2024-02-27"} for i in range(FRAMEWORKS)},
        "targets": {f"target{i}": {"kind": "host"} for i in range(TARGETS)},
        "workloads": {f"workload{i}": {"conversations": [["Hi"]]} for i in range(WORKLOADS)},
    }
    host = DeviceFacts("host", "host", "CPU", "x86_64", FEATURES, 4, 32 * 10**9, 10**12)
    devices = {f"target{i}": host for i in range(TARGETS)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        loaded = load_manifest(path)
    rows = []
    for only in ([], ["*/q4_0/*", "model7/*"]):
        times = []
        for _ in range(10):
            began = time.perf_counter()
            plan = make_plan(loaded, devices, only=only)
            plan_digest(plan)
            times.append(time.perf_counter() - began)
        rows.append(figure(f"a plan of {len(plan.cells):,} cells and its digest", times, "s", at_most=1))
    return finish(rows)


if __name__ == "__main__":
    sys.exit(main())
