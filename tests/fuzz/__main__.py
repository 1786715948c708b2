"""`make fuzz`: every kind of input for a while, by atheris where it is installed, else by random changes alone.

An input that ends in anything but a value or an error of ours is kept as a file below `.fuzz/` and named.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import mutate

FOUND = Path(".fuzz")
_CHILD = "MELTREPRO_FUZZ_CHILD"
_SLOW_S = 20
"""More than any input may take, on a busy machine too."""
_MEMORY_MB = 4096
_NO_ATHERIS = "atheris is not installed: it has wheels for CPython 3.11 to 3.13 on x86-64 Linux alone; inputs are changed at random instead"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("kind", help="a kind of the table, or all")
    parser.add_argument("seconds", type=int, help="for each kind")
    parser.add_argument("rest", nargs="*", help="files: read these inputs and nothing else")
    given = parser.parse_args()
    atheris = _atheris()
    if _CHILD in os.environ:
        return _one(given.kind, given.seconds, atheris, [Path(name) for name in given.rest])
    from tests.fuzz.kinds import kinds

    if atheris is None:
        print(_NO_ATHERIS)
    if given.kind not in ("all", *kinds()):
        parser.error(f"there is no kind {given.kind!r}; known: all, {', '.join(sorted(kinds()))}")
    bad = []
    for name in sorted(kinds()) if given.kind == "all" else [given.kind]:
        with tempfile.TemporaryDirectory(prefix="meltrepro-fuzz-") as scratch:  # libFuzzer leaves without tidying up
            command = [sys.executable, "-m", "tests.fuzz", name, str(given.seconds), *given.rest]
            done = subprocess.run(command, env={**os.environ, "TMPDIR": scratch, _CHILD: "1"}, check=False)
        bad += [name] if done.returncode else []
    print(f"faults in: {', '.join(bad) or 'none'}")
    return bool(bad)


def _atheris() -> Any:
    try:
        import atheris
    except ImportError:
        return None
    return atheris


def _one(name: str, seconds: int, atheris: Any, inputs: list[Path]) -> int:
    if atheris is None:
        from tests.fuzz import kinds as table
    else:
        with atheris.instrument_imports(include=["meltrepro"]):
            from tests.fuzz import kinds as table
    kind = table.kinds()[name]
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="meltrepro-fuzz-") as scratch:
        folder = Path(scratch)
        if inputs:
            for path in inputs:
                print(f"{path}: {'read' if table.attempt(kind, path.read_bytes(), folder) else 'refused'}")
            return 0
        if atheris is None:
            return _at_random(name, kind, seconds, folder)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, sample in enumerate(kind.samples()):
            (corpus / str(number)).write_bytes(sample)
        work = folder / "work"
        work.mkdir()

        def change(data: bytes, most: int, seed: int) -> bytes:
            """Ours knows what a sample is made of, libFuzzer's finds new ways by what was reached."""
            if seed % 2:
                return bytes(atheris.Mutate(data, most))
            return mutate(data, kind.form, random.Random(seed))[:most]

        options = [f"-max_total_time={seconds}", f"-timeout={_SLOW_S}", f"-rss_limit_mb={_MEMORY_MB}"]
        prefix = [f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=0", "-max_len=16384"]
        atheris.Setup(
            [name, *options, *prefix, str(corpus)],
            lambda data: table.attempt(kind, data, work),
            custom_mutator=change,
        )
        print(f"== {name}: {seconds} s; what fails is kept in {found}/", flush=True)
        atheris.Fuzz()
    return 0


def _at_random(name: str, kind: Any, seconds: int, folder: Path) -> int:
    from tests.fuzz.kinds import attempt

    samples, rng, number = list(kind.samples()), random.Random(), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = mutate(rng.choice(samples), kind.form, rng)
        began = time.monotonic()
        try:
            attempt(kind, data, folder)
            assert time.monotonic() - began < _SLOW_S, f"it took {time.monotonic() - began:.0f} s"
        except BaseException:
            path = FOUND / name / hashlib.sha256(data).hexdigest()[:16]
            path.write_bytes(data)
            print(f"== {name}: failed at {path}", flush=True)
            raise
        number += 1
    print(f"== {name}: {number} inputs in {seconds} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
