"""Nothing is called that Python got after 3.11.0: `requires-python` promises that this is enough, and Debian 12 has 3.11.2.

mypy is told 3.11, so that it knows what 3.12 brought, but not what came with 3.11.4. That is listed here, from Python's
own changes and from a comparison of two libraries; `make test-debian` runs what no list can foresee.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = {
    "3.11.4": "FilterError AbsolutePathError OutsideDestinationError SpecialFileError AbsoluteLinkError "
    "LinkOutsideDestinationError fully_trusted_filter tar_filter data_filter extraction_filter",
    "3.11.9": "GetReparseDeferralEnabled SetReparseDeferralEnabled",
    "3.11.10": "supports_strict_parsing verify_generated_headers",
    "3.11.13": "ALLOW_MISSING LinkFallbackError",
}
"""Attributes of modules and classes, by the version that has them first."""
ARGUMENTS = {
    "3.11.4": {
        "extract": {"filter"},
        "extractall": {"filter"},
        "unpack_archive": {"filter"},
        "replace": {"name", "mtime", "mode", "linkname", "uid", "gid", "uname", "gname", "deep"},  # of a TarInfo
    },
    "3.11.10": {"getaddresses": {"strict"}, "parseaddr": {"strict"}},
}
"""Arguments of functions and methods, by their names."""
_SINCE = {name: version for version, names in NAMES.items() for name in names.split()}


def newer(code: str) -> Iterator[tuple[int, str]]:
    """Line, and what of it which version has first."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute | ast.alias):
            name = node.attr if isinstance(node, ast.Attribute) else node.name
            if name in _SINCE:
                yield node.lineno, f"{name}: {_SINCE[name]}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if function == "replace" and node.args:
                continue  # a dataclass, or a part of a text
            for version, functions in ARGUMENTS.items():
                for name in functions.get(function, set()) & {word.arg for word in node.keywords}:
                    yield node.lineno, f"{function}({name}): {version}"


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["meltrepro", "images", "tests"])
def test_nothing_needs_more_than_we_say(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{line}: {what}"
        for path in files
        for line, what in newer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_this_is_what_we_say() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["requires-python"] == ">=3.11"
    assert project["tool"]["mypy"]["python_version"] == "3.11"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("with tarfile.open(a) as tar:\n    tar.extractall(b, filter='tar')", "extractall(filter): 3.11.4"),
        ("tar.extract(member, filter='data')", "extract(filter): 3.11.4"),
        ("shutil.unpack_archive(a, b, filter='data')", "unpack_archive(filter): 3.11.4"),
        ("member.replace(name='x', deep=False)", "replace(name): 3.11.4"),
        ("try: pass\nexcept tarfile.FilterError: pass", "FilterError: 3.11.4"),
        ("from tarfile import data_filter", "data_filter: 3.11.4"),
        ("email.utils.parseaddr(a, strict=False)", "parseaddr(strict): 3.11.10"),
        ("os.path.realpath(a, strict=os.path.ALLOW_MISSING)", "ALLOW_MISSING: 3.11.13"),
    ],
)
def test_what_came_later_is_found(code: str, what: str) -> None:
    assert what in {found for _, found in newer(code)}


@pytest.mark.parametrize(
    "code", ["replace(tool, name='x')", "text.replace('a', 'b')", "tar.extractall(a)", "when.replace(tzinfo=zone)"]
)
def test_what_there_always_was_is_not(code: str) -> None:
    assert not list(newer(code))
