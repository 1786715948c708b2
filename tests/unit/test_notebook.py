"""docs/notebooks/analysis.ipynb runs from its first cell to its last, and is committed without what it prints.

Its cells are plain Python, so they are run as such: a kernel and its protocol would bring forty packages and prove no more.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.campaigns import Cell, build_campaign

NOTEBOOK = json.loads((Path(__file__).parents[2] / "docs" / "notebooks" / "analysis.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run(session: dict[str, Any], code: str) -> Any:
    """Execute a cell; returns the value of the expression at its end, which a notebook shows."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), session)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), session) if isinstance(last, ast.Expr) else None


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    build_campaign(tmp_path, [Cell("q8_0", 40), Cell("q4_0", 55)], repetitions=6)
    last = build_campaign(tmp_path, [Cell("q8_0", 60, runner="another"), Cell("q4_0", 55)], repetitions=6, number=1)
    session: dict[str, Any] = {}
    shown = [run(session, code) for code in CODE]
    assert last.name in capsys.readouterr().out
    table, missing, compared, both = shown[1], shown[2], shown[-2], shown[-1]
    assert len(table) == 2
    assert table.generation_tps.between(35, 70).all()
    assert missing.reason.notna().all()
    speeds = compared[compared.metric == "generation_tps"].set_index("cell").verdict
    assert [str(speeds[name]) == "DIFFERS" for name in sorted(speeds.index)] == [False, True]
    assert both.shape == (2, 2)
    assert session["axes"].get_xlabel() == "generated tokens per second"
    session["plt"].close("all")


def test_it_is_a_notebook_without_output() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    for cell in NOTEBOOK["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
