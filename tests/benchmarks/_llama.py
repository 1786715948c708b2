"""What the benchmarks of llama.cpp share: artifacts of the quickstart, and llama-bench."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMPT, GENERATED = 256, 64
"""Tokens decoded at once, and tokens generated into an almost empty context."""


def build(release: str, quantization: str) -> tuple[Path, Path]:
    """The runner bundle of a release for this CPU and a quantized model, built where they are missing."""
    rows = _build(f"frameworks.llama.cpp.release={release}", f"models.smollm2-135m.quantizations=[{quantization}]")
    bundle = next(path for node, path in rows.items() if "/run/" in node)
    return bundle, rows[f"smollm2-135m/{quantization}/llama.cpp"]


def build_for(release: str, isa: str) -> Path:
    """The runner bundle of a release for some other CPU, built where it is missing."""
    return _build(f"frameworks.llama.cpp.release={release}", f"frameworks.llama.cpp.options.isas=[{isa}]")[
        f"llama.cpp/run/{isa}"
    ]


def _build(*changes: str) -> dict[str, Path]:
    """Everything of a changed quickstart, by node id."""
    with tempfile.TemporaryDirectory() as name:
        specs = Path(name) / "specs"
        shutil.copytree(ROOT / "specs", specs)
        command = [sys.executable, "-m", "meltrepro", "build", str(specs / "quickstart.yaml"), "--json"]
        done = subprocess.run(
            [*command, *(f"--set={change}" for change in changes)], stdout=subprocess.PIPE, check=True
        )
    return {row["id"]: Path(row["path"]) for row in json.loads(done.stdout)}


def llama_bench(program: Path, model: Path, threads: int) -> tuple[float, float]:
    """Tokens per second of prefill and of generation, from one repetition of a llama-bench."""
    command = [str(program), "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json"]
    done = subprocess.run([*command, "-p", str(PROMPT), "-n", str(GENERATED)], capture_output=True, check=True)
    speeds = {("p" if row["n_prompt"] else "g"): row["avg_ts"] for row in json.loads(done.stdout)}
    return speeds["p"], speeds["g"]
