"""How long a gallery takes: `meltrepro gallery` of 1,000 signed entries of two cells each, five times. Goal: at most 10 s.

Every signature is checked, and twenty keys are looked up among the signers.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.benchmarks._table import figure, finish
from tests.support.entries import allow, make_key, many, put

ENTRIES, SIGNERS, TIMES = 1000, 20, 5


def main() -> int:
    """Print one line; 1 where the goal is missed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = {f"signer{number}": make_key(folder, f"key{number}") for number in range(SIGNERS)}
        signers, entries = allow(folder / "signers", **keys), folder / "entries"
        whose = list(keys.values())
        with ThreadPoolExecutor() as pool:
            jobs = [
                pool.submit(put, entries, f"{place:04d}", each, whose[place % SIGNERS])
                for place, each in enumerate(many(ENTRIES))
            ]
            size = sum(job.result().stat().st_size for job in jobs)
        command = [sys.executable, "-m", "meltrepro", "gallery", str(entries), "-o", str(folder / "site")]
        times = []
        for _ in range(TIMES):
            began = time.perf_counter()
            done = subprocess.run([*command, "--signers", str(signers)], capture_output=True, text=True, check=True)
            times.append(time.perf_counter() - began)
            assert f"{ENTRIES} entries ({ENTRIES} signed)" in done.stdout, done.stdout
        page = (folder / "site" / "index.html").stat().st_size
    print(f"{ENTRIES} entries of {size / ENTRIES / 1000:.1f} kB, a page of {page / 1e6:.1f} MB", flush=True)
    return finish([figure("a gallery of 1,000 signed entries", times, "s", at_most=10)])


if __name__ == "__main__":
    sys.exit(main())
