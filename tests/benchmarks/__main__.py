"""Run benchmarks, all or those that are named, one after the other; put their rows into the table of docs/benchmarks.md.

    .venv/bin/python -m tests.benchmarks [NAME ...]

Each is a process of its own. Rows of benchmarks that were not run stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from meltrepro.targets.remote import procfs
from tests.benchmarks._llama import ROOT
from tests.benchmarks._table import ROWS

PAGE = ROOT / "docs/benchmarks.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
_HEAD = """\
| what | ours | beside | ratio | from, to | goal | met | `python -m tests.benchmarks.` | when, load |
| --- | ---: | ---: | ---: | ---: | --- | --- | --- | --- |
"""
_COMMAND = 7
"""The column that says which benchmark a row is of."""


def main() -> int:
    """Run them and rewrite the table; 1 where a goal is missed or a benchmark fails."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    wanted = parser.parse_args().names or names
    if unknown := sorted({*wanted} - {*names}):
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(names)}")
    before, found = PAGE.read_text(encoding="utf-8").split(BEGIN)
    table, after = found.split(END)
    lines = {name: [line for line in table.splitlines()[2:] if _name(line) == name] for name in names}
    failed = False
    for name in wanted:
        print(f"== {name}", flush=True)
        load = os.getloadavg()[0]
        status, rows = _run(name)
        failed |= status != 0
        when = f"{datetime.now(UTC):%Y-%m-%d}, {procfs.cpu(Path('/')).model} x {os.cpu_count()}, {load:.1f}"
        lines[name] = [_line(row, when) for row in rows]
        written = _HEAD + "".join(f"{line}\n" for name in names for line in lines[name])
        PAGE.write_text(f"{before}{BEGIN}{written}{END}{after}", encoding="utf-8")
    return int(failed)


def _run(name: str) -> tuple[int, list[dict[str, str | bool | None]]]:
    """Its exit status and rows; one row that says why, where it has none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        command = [sys.executable, "-m", f"tests.benchmarks.{name}"]
        done = subprocess.run(command, env={**os.environ, ROWS: str(path)}, stderr=subprocess.PIPE, text=True)
        sys.stderr.write(done.stderr)
        if path.exists():
            return done.returncode, json.loads(path.read_text())
    said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return 1, [{"what": f"not measured here: {said[:120]}", "command": name}]


def _line(row: dict[str, str | bool | None], when: str) -> str:
    met = {True: "yes", False: "**no**", None: ""}[bool(row["met"]) if row.get("met") is not None else None]
    texts = [str(row.get(key, "")) for key in ("what", "ours", "anchor", "ratio", "interval", "goal")]
    cells = [*texts, met, f"`{row['command']}`", when]
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def _name(line: str) -> str:
    return line.split("|")[_COMMAND + 1].strip(" `").split(" ")[0]


if __name__ == "__main__":
    sys.exit(main())
