"""Pictures of the console for the documentation: `python -m tests.support.pictures` writes them.

They show a campaign that was recorded on a device, `plain` of `tests/data/records-0.1`: its steps as `run` draws them, and `show`.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from meltrepro.cli.console import console
from meltrepro.record.campaign import JOURNAL
from meltrepro.steps import Step
from tests.support.terminal import environment, in_terminal

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
WIDTHS = (80, 120)
_RECORDS = ROOT / "tests" / "data" / "records-0.1" / "plain.tar.gz"
_FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""They would come from another host."""
_STEPS = 7
"""From the journal: a warm-up and a repetition have ended, the next one runs."""
_WITHIN = {"turn": 2, "tokens": 5, "phase": "generating", "elapsed_s": 0}
"""Where that one is at some moment; a journal keeps no such moments."""


def pictures() -> Iterator[tuple[Path, str]]:
    """Every picture, and what it should hold."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with tarfile.open(_RECORDS) as tar:
            tar.extractall(home / "records")
        (journal,) = home.glob(f"records/*/{JOURNAL}")
        known = {field.name for field in fields(Step)}
        lines = journal.read_text(encoding="utf-8").splitlines()[:_STEPS]
        steps = [Step(**{key: value for key, value in json.loads(line).items() if key in known}) for line in lines]
        for columns in WIDTHS:
            shown = in_terminal(columns, "show", "plain", **environment(home))
            parts = ("$ meltrepro run tiny.yaml", _moving(steps, columns), "", "$ meltrepro show", shown)
            yield FOLDER / f"console-{columns}.svg", _drawn("\n".join(parts), columns)


def _moving(steps: list[Step], columns: int) -> str:
    """What stands on the screen while the last of the steps goes on."""
    out = io.StringIO()
    screen = Console(file=out, force_terminal=True, width=columns, highlight=False, color_system="standard")
    now = steps[-1]
    with console(output=screen) as sink:
        for step in steps:
            sink(step)
        within = {**now.detail, **_WITHIN}
        sink(replace(now, phase="progress", detail=within, monotonic_ns=now.monotonic_ns + 10**9))
        rows = out.getvalue().split("\n")
    return "\n".join(row.rpartition("\x1b[2K")[2] for row in rows)


def _drawn(text: str, columns: int) -> str:
    recorder = Console(file=io.StringIO(), record=True, width=columns, color_system="standard", force_terminal=True)
    recorder.print(Text.from_ansi(text), soft_wrap=True)
    drawn = recorder.export_svg(title=f"{columns} columns", unique_id=f"console-{columns}")
    return "\n".join(line.rstrip() for line in _FONTS.sub("", drawn).splitlines()) + "\n"


if __name__ == "__main__":
    for path, drawn in pictures():
        path.write_text(drawn, encoding="utf-8")
