"""What does a build cost beyond the same cmake build by hand, and how soon does `verify` answer from digests?

    .venv/bin/python -m tests.benchmarks.build_speed [--release 2024-02-27] [--repetitions 3]

By hand: the same compiler, flags, sources and number of jobs, with a warm compiler cache, but no sandbox: unpack,
configure, compile. Against it, interleaved: the same recipe from scratch by both engines. Goals: at most 1.1 times the time
by hand; digests of an unchanged build within 1 s. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from meltrepro import settings
from meltrepro.build import toolchain
from meltrepro.build.model import Recipe
from meltrepro.build.pipeline import Builder
from meltrepro.build.process_engine import ProcessEngine
from meltrepro.build.tools import EngineName, Tools
from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.manifest.lock import Lock
from meltrepro.steps import silent
from tests.benchmarks._llama import ROOT, build
from tests.benchmarks._table import beside, figure, finish
from tests.support.frameworks import bundle


def main() -> int:
    """Print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", default="2024-02-27", choices=sorted(RELEASES))
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    build(options.release, "q4_0")  # fetches everything
    all_tools = {name: _tools(name) for name in ("docker", "process")}
    node = bundle("x86_64_v3", options.release, name="llama.cpp")
    recipe = Builder(all_tools["process"]).recipe(node)
    ways: dict[str, Callable[[Path], None]] = {
        "by hand": lambda folder: _by_hand(recipe, all_tools["process"], folder),
        **{f"engine {name}": _by_engine(recipe, tools) for name, tools in all_tools.items()},
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(options.repetitions + 1):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                way(Path(folder))
                if repetition:  # the first round warms compiler caches up
                    seconds[name].append(time.monotonic() - began)
    rows = [
        beside(f"{name}, {options.release}, from scratch", times, "by hand", seconds["by hand"], "s", at_least=1 / 1.1)
        for name, times in seconds.items()
        if name != "by hand"
    ]
    digests_s = _verify_s(options.repetitions)
    return finish([*rows, figure("`verify --no-rebuild` of the quickstart", digests_s, "s", at_most=1)])


def _tools(engine: EngineName) -> Tools:
    return Tools(settings.load(), silent, Lock(lock=1, manifest="0" * 64), engine)


def _by_engine(recipe: Recipe, tools: Tools) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        out = folder / "out"
        out.mkdir()
        tools.engine().build(recipe, out, folder / "log", silent, fresh=True)

    return run


def _by_hand(recipe: Recipe, given: Tools, folder: Path) -> None:
    """The recipe's own script with its folders somewhere else, straight on this machine."""
    engine = given.engine()
    assert isinstance(engine, ProcessEngine)
    root = engine.root()
    programs = folder / "toolchain"
    programs.mkdir()
    for name in ("zig", "cmake", "ninja"):
        (programs / name).symlink_to(root / "opt/toolchain" / name)
    shutil.copytree(root / "opt/toolchain/bin", programs / "bin")
    for wrapper in (programs / "bin").iterdir():
        wrapper.write_text(wrapper.read_text().replace("/opt/toolchain", str(programs)))
    for name, content in recipe.files.items():
        path = folder / "recipe" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "inputs").mkdir()
    for name, path in recipe.inputs.items():
        (folder / "inputs" / name).symlink_to(path)
    cache = settings.load().cache / "benchmarks" / "zig-cache"
    environment = toolchain.environment(recipe.triple) | {
        "PATH": os.environ["PATH"],
        "JOBS": str(settings.load().jobs),
        "ZIG_GLOBAL_CACHE_DIR": str(cache),
        "ZIG_LOCAL_CACHE_DIR": str(folder / "zig-local"),
        "TOOLCHAIN": str(programs),
        **{name.upper(): str(folder / name) for name in ("src", "build", "out", "inputs", "recipe")},
    }
    with (folder / "log").open("w") as log:
        command = ["sh", str(folder / "recipe" / "build.sh")]
        subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)


def _verify_s(repetitions: int) -> list[float]:
    """Wall times of the whole command."""
    with tempfile.TemporaryDirectory() as name:
        specs = Path(name) / "specs"
        shutil.copytree(ROOT / "specs", specs)
        spec = str(specs / "quickstart.yaml")
        command = [sys.executable, "-m", "meltrepro"]
        subprocess.run([*command, "build", spec], check=True, capture_output=True)
        times = []
        for _ in range(repetitions):
            began = time.monotonic()
            subprocess.run([*command, "verify", "--no-rebuild", spec], check=True, capture_output=True)
            times.append(time.monotonic() - began)
    return times


if __name__ == "__main__":
    sys.exit(main())
