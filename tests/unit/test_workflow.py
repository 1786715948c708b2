"""The Python API: what it exports, and what importing it costs."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys

import pytest

from meltrepro import workflow
from tests.unit.test_imports import HEAVY


def test_importing_it_loads_nothing_heavy() -> None:
    code = f"import sys; from meltrepro import workflow; print(*({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "\n"


def test_no_module_takes_the_place_of_a_function() -> None:
    assert not set(workflow.__all__) & {module.name for module in pkgutil.iter_modules(workflow.__path__)}


@pytest.mark.parametrize("name", workflow.__all__)
def test_everything_is_there_and_documented(name: str) -> None:
    found = getattr(workflow, name)
    assert inspect.getdoc(found)
    assert name in dir(workflow)
    if inspect.isfunction(found):
        hints = inspect.get_annotations(found)
        assert set(hints) == {*inspect.signature(found).parameters, "return"}


def test_a_name_that_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'rnu'"):
        _ = workflow.rnu
