"""docs/python.md as a session: its examples run as they stand there, on a small project that is really built and measured."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro import workflow
from tests.fault.project import Project, small

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_examples_run(
    equipped: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = equipped.folder / "specs"
    equipped.spec.parent.rename(specs)
    (specs / "quickstart.yaml").write_text(yaml.safe_dump(small("quickstart", {"chat": "pace 5"})))
    monkeypatch.chdir(equipped.folder)
    session: dict[str, Any] = {}
    shown = []
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(example, session)
        shown.append(capsys.readouterr().out)
    plan, run, load, tables, replay, errors = shown
    assert plan.startswith("m/as-is/llama.cpp/host/chat ")
    assert "campaign begin " in run and "5 trials went well, 0 failed" in run
    assert "m/as-is/llama.cpp/host/chat " in load and " tok/s (" in load
    assert "VALID" in tables and " ms" in tables
    assert replay.split()[0] in ("REPRODUCED", "DIFFERS", "INCONCLUSIVE")
    assert "m/as-is/llama.cpp/host/chat generation_tps " in replay
    assert "quickstart.yaml" in errors or "--set" in errors
    assert "unknown key 'repetition' (did you mean 'repetitions'?)" in errors


def test_every_function_is_on_the_page() -> None:
    table = PAGE.partition("## What there is")[2]
    there = {name for name in workflow.__all__ if inspect.isfunction(getattr(workflow, name))}
    assert (
        set(
            re.findall(
                r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines() if "`" in line and "|" in line)
            )
        )
        == there
    )
