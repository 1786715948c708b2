"""What the benchmarks of engines share: artifacts of the quickstart, llama-bench, and the runner doing the same work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from meltrepro.record.events import read_trace

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


def llama_bench(
    program: Path, model: Path, threads: int, options: Sequence[str] = (), depth: int = 0
) -> tuple[float, float]:
    """Tokens per second of prefill and of generation, from one repetition of a llama-bench with these words."""
    command = [str(program), "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json", *options]
    command += ["-d", str(depth)] if depth else []  # older ones do not know it
    done = subprocess.run([*command, "-p", str(PROMPT), "-n", str(GENERATED)], capture_output=True, check=True)
    speeds = {("p" if row["n_prompt"] else "g"): row["avg_ts"] for row in json.loads(done.stdout)}
    return speeds["p"], speeds["g"]


def runner(
    bundle: Path,
    model: Path,
    threads: int,
    folder: Path,
    options: Mapping[str, object] = MappingProxyType({}),
    depth: int = 0,
) -> tuple[float, float]:
    """The same of a runner, asked as workloads of lengths ask it."""
    request = {
        **options,
        "v": 1,
        "model": str(model),
        "context": PROMPT + GENERATED + depth,
        "threads": threads,
        "batch": 512,
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
        "conversations": [[{"tokens": PROMPT, "max_tokens": 1}], [{"tokens": 1}]],
        "depth": depth,
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
