"""Build the bundle of JetPack 7.2 with CUDA from scratch, and start its runner where there is no driver.

    .venv/bin/python -m tests.device.cuda_build [--engine process]

Fetches some 165 MB of compilers, then compiles 144 files for the GPU: hours on two cores, six minutes on sixteen. What was built
once is taken from the store. The runner must start under emulation, and end with the error that no GPU can be used. Needs
root for the lab's packages, whose C library the emulator uses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from meltrepro import settings
from meltrepro.build.pipeline import Builder
from meltrepro.build.tools import Tools
from meltrepro.frameworks.llamacpp.cuda import BUILDS
from meltrepro.frameworks.llamacpp.options import ALL_LAYERS
from meltrepro.frameworks.llamacpp.variants import LEVELS, with_cuda
from meltrepro.lab import system
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.lock import Lock
from meltrepro.plan.model import Costs, Plan
from meltrepro.settings import Settings
from meltrepro.steps import Step, silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.targets.base import RUNNER
from meltrepro.testing.targets import request
from tests.support.frameworks import bundle

ROOT = Path(__file__).parents[2]


def build(here: Settings, engine: Literal["docker", "process"]) -> Path:
    """The bundle's folder; built, or taken from the store. Planning would need a board that can be reached."""
    variant = with_cuda(LEVELS["armv8_2"], BUILDS["7.2"])
    node = bundle(variant, name="llama.cpp", cuda={"jetpack": "7.2"})
    plan = Plan(load_manifest(ROOT / "specs/quickstart.yaml").manifest, (), (), (node,), (), Costs(None, None, {}), ())
    tools = Tools(here, show, Lock(manifest="0" * 64), engine, base_dir=ROOT)
    return Builder(tools).build(plan).artifacts[node.id].path


def show(step: Step) -> None:
    """Print what begins and what a build says."""
    if step.phase != "progress":
        print(step.phase, step.name, step.subject, flush=True)


def main() -> int:
    """Build, start, look; 1 where the runner does not end as it must."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("docker", "process"), default="process")
    options = parser.parse_args()
    here = settings.load()
    bundle = build(here, options.engine)
    print(json.dumps(json.loads((bundle / "bundle.json").read_text()), indent=2))
    there = system.device_root(system.BOARD, Store(here.cache / "store"), here.cache / "lab", silent)
    with tempfile.TemporaryDirectory() as name:
        manifest = load_manifest(ROOT / "specs/quickstart.yaml").manifest
        model = Fetcher(Store(here.cache / "store"), here, silent).get(manifest.models["smollm2-135m"].source)
        asked = request("Hello").model_copy(update={"model": str(model), "gpu_layers": ALL_LAYERS})
        (Path(name) / "request.json").write_text(asked.model_dump_json(exclude_none=True))
        runner = [system.EMULATOR, "-L", str(there), str(bundle / RUNNER)]
        ended = subprocess.run(
            [*runner, f"{name}/request.json", f"{name}/events.jsonl"], capture_output=True, text=True, check=False
        )
    print(ended.stderr)
    fine = ended.returncode == 3 and "CUDA driver version is insufficient" in ended.stderr
    return 0 if fine and "no GPU can be used" in ended.stderr else 1


if __name__ == "__main__":
    raise SystemExit(main())
