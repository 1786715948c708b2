"""Are our reproducible binaries as fast as what `gcc -O3 -march=native` makes of the same source on this machine?

    .venv/bin/python -m tests.benchmarks.native_compiler [--release 2024-02-27] [--quantizations q4_0 q8_0]
        [--threads 1] [--repetitions 5]

The same llama-bench from both builds, interleaved; medians and ratios. The goal is a ratio of at least 1.0. Needs gcc, g++,
cmake and ninja-build of the distribution. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from meltrepro import settings
from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.targets.remote import procfs as linux
from tests.benchmarks._llama import build, llama_bench
from tests.benchmarks._table import beside, finish

SWITCHED_OFF = {
    "2024-02-27": ("LLAMA_CCACHE", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_SERVER"),
    "2026-10-01": (
        *("GGML_CCACHE", "GGML_NATIVE", "LLAMA_OPENSSL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES"),
        *("LLAMA_BUILD_SERVER", "LLAMA_BUILD_APP", "LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI"),
    ),
}
"""What llama-bench does not need. `-march=native` is given by hand, because of AMX."""


def main() -> int:
    """Print the table; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", default="2024-02-27", choices=sorted(RELEASES))
    parser.add_argument("--quantizations", nargs="+", default=["q4_0", "q8_0"])
    parser.add_argument("--threads", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1))
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    native = _native_build(options.release)
    found = []
    for quantization in options.quantizations:
        bundle, model = build(options.release, quantization)
        programs = {"gcc": native, "ours": bundle / "bin" / "llama-bench"}
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for repetition in range(options.repetitions + 1):
            for name, program in programs.items():
                speeds = llama_bench(program, model, options.threads)
                if repetition:  # the first round warms up
                    rows[name].append(speeds)
        for index, phase in enumerate(("prefill", "generation")):
            gcc, ours = ([row[index] for row in rows[name]] for name in ("gcc", "ours"))
            what = f"our build, {options.release}, {quantization}, {phase}"
            found.append(beside(what, ours, "gcc", gcc, "tok/s", at_least=1))
    return finish(found)


def _native_build(release: str) -> Path:
    """llama-bench by the distribution's compiler, kept in the cache."""
    if missing := [tool for tool in ("gcc", "g++", "cmake", "ninja") if shutil.which(tool) is None]:
        sys.exit(f"{', '.join(missing)}: not installed; on Debian: apt-get install g++ cmake ninja-build")
    here = settings.load()
    folder = here.cache / "benchmarks" / f"gcc-{release}"
    program = folder / "build" / "bin" / "llama-bench"
    if program.exists():
        return program
    (source,) = RELEASES[release].sources.values()
    archive = Fetcher(Store(here.cache / "store"), here, silent).get(source, Path())
    (folder / "source").mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", folder / "source"], check=True)
    (tree,) = (folder / "source").glob("*/vendor/llama.cpp")
    # gcc 12's AMX code of the 2026 release crashes on start, and no CPU level of ours has AMX.
    flags = "-O3 -march=native"
    if "amx_tile" in linux.cpu(Path("/")).features:
        flags += " -mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    switches = [f"-D{name}=OFF" for name in ("BUILD_SHARED_LIBS", *SWITCHED_OFF[release])]
    compilers = ["-DCMAKE_C_COMPILER=gcc", "-DCMAKE_CXX_COMPILER=g++", f"-DCMAKE_C_FLAGS={flags}"]
    compilers += [f"-DCMAKE_CXX_FLAGS={flags}", "-DCMAKE_BUILD_TYPE=Release", "-G", "Ninja"]
    with (folder / "build.log").open("w") as log:
        for command in (
            ["cmake", "-S", str(tree), "-B", str(folder / "build"), *compilers, *switches],
            ["ninja", "-C", str(folder / "build"), "llama-bench"],
        ):
            subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return program


if __name__ == "__main__":
    sys.exit(main())
