"""What of the engines from wheels is built for the tests, and a campaign of all of them beside llama.cpp."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from meltrepro.record.events import read_trace
from meltrepro.record.trace import Trace
from tests.integration.bundles import Bundle
from tests.integration.conftest import ROOT, meltrepro
from tests.integration.runner.contract import Runner

SPEC = """\
meltrepro: 1
name: engines
include: [common/models.yaml]
models:
  smollm2-135m: {quantizations: [f16, q4_0]}
frameworks:
  llama.cpp: {release: "2026-10-01"}
  onnxruntime: {release: "1.29.0", options: {spinning: false}}
  openvino: {release: "2026.4.1"}
  mlc: {release: "0.27.0.post1", options: {spinning: false}}
targets:
  host: {kind: host, threads: 1}
workloads:
  chat:
    conversations: [["What is the capital of France?", "Tell me three facts about it."]]
    context: 512
    max_tokens: 16
    ignore_eos: true
    sampling: {greedy: true}
protocol: {profile: smoke, repetitions: 1, warmups: 0}
measure: {operators: true, limits: {cpu_pressure: 1}}
"""


@dataclass(frozen=True)
class Engines:
    """All that the manifest asks for, built."""

    spec: Path
    artifacts: Mapping[str, Path]
    """By id."""

    def runner(self, kind: str, folder: Path) -> Runner:
        """An engine's runner with its model of 4-bit codes."""
        bundle = next(path for name, path in self.artifacts.items() if name.startswith(f"{kind}/run/"))
        model = next(path for name, path in self.artifacts.items() if name.split("/")[1:3] == ["q4_0", kind])
        return Runner(Bundle(bundle), model, folder)


def build(folder: Path, spec: str = SPEC) -> Engines:
    shutil.copytree(ROOT / "specs" / "common", folder / "common")
    (folder / "engines.yaml").write_text(spec)
    done = meltrepro("build", folder / "engines.yaml", "--json", home=folder / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    return Engines(folder / "engines.yaml", {row["id"]: Path(row["path"]) for row in json.loads(done.stdout)})


@dataclass(frozen=True)
class Campaign:
    """What was measured."""

    cells: Path

    def trace(self, quantization: str, kind: str, trial: str = "r000") -> Trace:
        return read_trace(self.cells / quantization / kind / "host" / "chat" / trial / "events.jsonl")


def run(engines: Engines, home: Path) -> Campaign:
    # Others of these tests measure at the same time, on other cores or the same: tokens are looked at, not speed.
    done = meltrepro("run", engines.spec, "--no-track", home=home, MELTREPRO_LOCKS=str(home / "locks"))
    assert done.returncode == 0, done.stdout + done.stderr
    (campaign,) = (home / "records").iterdir()
    return Campaign(campaign / "cells" / "smollm2-135m")
