"""YAML -> positioned values: what is read as what, where it stands, and what is refused."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from meltrepro.errors import Problem
from meltrepro.manifest.yaml import positions
from meltrepro.manifest.yaml.tree import FieldPath, Node, Position, field_path
from tests.support.examples import examples

LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if yaml.__with_libyaml__ else [])]


@pytest.fixture(params=LOADERS, autouse=True)
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "LOADER", request.param)


START = Position("f")


def read(text: str, origin: Position = START) -> tuple[Node | None, list[Problem]]:
    problems: list[Problem] = []
    return positions.read_text(text, origin, problems), problems


def good(text: str) -> Node:
    node, problems = read(text)
    assert problems == []
    assert node is not None
    return node


def bad(text: str) -> list[tuple[int, int, str]]:
    return [(problem.line, problem.column, problem.message) for problem in read(text)[1]]


def place(node: Node, *path: str | int) -> tuple[int, int]:
    found = node.find(path)
    assert found is not None
    return found.at.line, found.at.column


# -- what is read as what -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2024-02-27", "2024-02-27"),
        ("2024-02-27T10:00:00Z", "2024-02-27T10:00:00Z"),
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("010", "010"),
        ("0o10", "0o10"),
        ("0x10", "0x10"),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("00.5", "00.5"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("134.5e+6", 134.5e6),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("0.1.2", "0.1.2"),
        ("9" * 101, "9" * 101),
        ("=", "="),
        ("'12'", "12"),
        ('"true"', "true"),
        ("''", ""),
        ("|\n  12\n", "12\n"),
    ],
)
def test_scalars(written: str, value: Any) -> None:
    found = good(f"key: {written}").plain()["key"]
    assert found == value
    assert type(found) is type(value)


def test_a_plain_scalar_remembers_how_it_was_written() -> None:
    node = good("a: 1.10\nb: '1.10'")
    assert [node.value[key].text for key in "ab" if isinstance(node.value, dict)] == ["1.10", None]


def test_keys_are_texts_as_written() -> None:
    assert good("1: a\ntrue: b\n~: c\n2024-02-27: d\n010: e").plain() == {
        "1": "a",
        "true": "b",
        "~": "c",
        "2024-02-27": "d",
        "010": "e",
    }


def test_aliases_and_merge_keys() -> None:
    text = "base: &b {x: 1, y: 2}\nsame: *b\nmore:\n  <<: *b\n  y: 3\nmany:\n  <<: [{x: 9}, *b]\n'<<': text\n"
    assert good(text).plain() == {
        "base": {"x": 1, "y": 2},
        "same": {"x": 1, "y": 2},
        "more": {"x": 1, "y": 3},
        "many": {"x": 9, "y": 2},
        "<<": "text",
    }


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(codecs.BOM_UTF8 + b"a: 1\n")
    problems: list[Problem] = []
    node = positions.read_file(path, "f", Position("f"), (), problems)
    assert node is not None
    assert node.plain() == {"a": 1}


# -- where it stands ----------------------------------------------------------------------------------------------


def test_places_of_keys_and_values() -> None:
    node = good("a: 1\nb:\n  - x\n  - {k:   v}\nc:\n    d: |\n      text\n    e:\n")
    assert place(node, "a") == (1, 4)
    assert place(node, "b") == (3, 3)
    assert place(node, "b", 0) == (3, 5)
    assert place(node, "b", 1, "k") == (4, 11)
    assert place(node, "c", "d") == (6, 8)
    inner = node.find(("b", 1, "k"))
    assert inner is not None
    assert inner.key_at == Position("f", 4, 6)
    mapping = node.find(("c",))
    assert mapping is not None
    assert mapping.where == Position("f", 5, 1)


def test_columns_count_characters() -> None:
    assert place(good("{é: 1, 日本: 2}"), "日本") == (1, 12)


def test_a_text_that_begins_in_the_middle_of_a_line() -> None:
    node, problems = read("{a: 1,\n b: 2}", Position("--set x", 1, 8))
    assert not problems
    assert node is not None
    assert place(node, "a") == (1, 12)
    assert place(node, "b") == (2, 5)


NAMES = st.text(st.sampled_from("abcxyz0129_-é日"), min_size=1, max_size=8).filter(lambda name: name[0] not in "-")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"), max_size=20)
"""Without the line breaks that the YAML writer folds; reading them is not at stake here."""
# The YAML writer knows only YAML 1.1, where 0E0 is no number and needs no quotes.
WORDS = st.one_of(NAMES, TEXTS).filter(lambda text: not re.fullmatch(r"[-+]?[0-9]+[eE][-+]?[0-9]+", text))
SCALARS = st.one_of(st.integers(-(10**12), 10**12), st.booleans(), st.none(), WORDS)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=20
)


@settings(deadline=None, max_examples=examples(50))
@given(st.dictionaries(NAMES, TREES, min_size=1, max_size=4), st.booleans())
def test_every_place_is_where_the_value_was_written(data: dict[str, Any], flow: bool) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=True, width=40, sort_keys=False)
    node, problems = read(text)
    assert problems == []
    assert node is not None
    assert node.plain() == data
    lines = text.split("\n")
    for path, inner in node.walk():
        if inner.key_at is not None:
            rest = lines[inner.key_at.line - 1][inner.key_at.column - 1 :]
            assert yaml.safe_load(rest.split(":")[0].lstrip("? ")) is not None
            assert str(path[-1]) in rest
        if isinstance(inner.value, int) and not isinstance(inner.value, bool):
            assert lines[inner.at.line - 1][inner.at.column - 1 :].startswith(str(inner.value))


@settings(deadline=None, max_examples=examples(50))
@given(st.dictionaries(NAMES, TREES, min_size=1, max_size=4))
def test_paths_are_unique_and_lead_back(data: dict[str, Any]) -> None:
    node = good(yaml.safe_dump(data, allow_unicode=True))
    seen: set[FieldPath] = set()
    for path, inner in node.walk():
        assert path not in seen
        seen.add(path)
        assert node.find(path) is inner


# -- what is refused ----------------------------------------------------------------------------------------------


def test_all_duplicate_keys_are_reported() -> None:
    node, problems = read("a: 1\nb: {c: 1, c: 2}\na: 3\nd:\n  e: 1\n  f: 2\n  e: 3\n")
    assert [(p.line, p.column, p.field, p.message, p.suggestion) for p in problems] == [
        (2, 11, "b.c", "duplicate key 'c'", None),
        (3, 1, "a", "duplicate key 'a'", "first written in line 1"),
        (7, 3, "d.e", "duplicate key 'e'", "first written in line 5"),
    ]
    assert node is not None
    assert node.plain() == {"a": 1, "b": {"c": 1}, "d": {"e": 1, "f": 2}}


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a:\n\tb: 1", 2, 1, "a tab cannot indent"),
        ("a: b: c", 1, 5, "a ':' cannot stand here"),
        ("a: 1\n b: 2", 2, 3, "a ':' cannot stand here"),
        ("a: @x", 1, 4, "a text cannot begin with '@'"),
        ("a: `x`", 1, 4, "a text cannot begin with '`'"),
        ("a: !!python/object/apply:os.system [ls]", 1, 4, "the tag !!python/object/apply:os.system is not allowed"),
        ("a: !!str 1", 1, 4, "the tag !!str is not allowed"),
        ("a: !mine {}", 1, 4, "the tag !mine is not allowed"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document begins here; expected one"),
        ("? [a]\n: 1", 1, 3, "expected a key, which must be plain text"),
        ("a: *b", 1, 4, "*b has no anchor above it"),
        ("a: &b [*b]", 1, 8, "*b contains itself"),
        ("a: 1\n<<: 2", 2, 5, "expected a mapping or a list of mappings to merge"),
        ("a: \x00", 1, 4, "the character U+0000 is not allowed in a text file"),
        ("a: 1\nb: \x1b[2J", 2, 4, "the character U+001B is not allowed in a text file"),
    ],
)
def test_refused(text: str, line: int, column: int, message: str) -> None:
    assert (line, column, message) in bad(text)


@pytest.mark.parametrize("text", ["a: [1,\nb: 2", "a: 'x", "{a, b", "- a\nb: 1", "a: &x &y z", "%YAML 9.9\n---\na: 1"])
def test_syntax_errors_are_one_located_problem(text: str) -> None:
    ((line, column, message),) = bad(text)
    assert line >= 1
    assert column >= 1
    assert message.startswith("not valid YAML: ")
    assert "\n" not in message


def test_a_syntax_error_says_where_its_context_begins() -> None:
    ((_, _, message),) = bad("a: 1\nb: [1,\n2\nc")
    assert "that begins in line 2" in message


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "&a [" * 5000 + "]" * 5000])
def test_depth_is_bounded(text: str) -> None:
    ((line, _, message),) = bad(text)
    assert line == 1
    assert message == "nested deeper than 64 levels"


def test_aliases_do_not_deepen_without_bound() -> None:
    chain = ["- &a0 [x]"] + [f"- &a{i} [[[[[[[[*a{i - 1}]]]]]]]]" for i in range(1, 20)]
    ((line, _, message),) = bad("\n".join(chain))
    assert message == "nested deeper than 64 levels"
    assert line == 9


def test_aliases_do_not_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "MAX_VALUES", 2000)
    laughs = ["- &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    laughs += [f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    ((line, _, message),) = bad("\n".join(laughs))
    assert (line, message) == (4, "more than 2000 values")


def test_the_number_of_values_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positions, "MAX_VALUES", 2000)
    assert good("[" + "a," * 1999 + "]").size == 2000
    ((_, column, message),) = bad("[" + "a," * 2000 + "]")
    assert (column, message) == (2 * 1999 + 2, "more than 2000 values")


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n"])
def test_an_empty_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    problems: list[Problem] = []
    assert positions.read_file(path, "f", Position("f"), (), problems) is None
    assert [str(problem) for problem in problems] == ["f:1:1: the file is empty"]


@pytest.mark.parametrize(
    ("content", "line", "column", "message"),
    [
        (b"a: 1\nb: \xe9t\xe9\n", 2, 4, "the byte 0xe9 is not UTF-8 text"),
        (codecs.BOM_UTF16_LE + "a: 1".encode("utf-16-le"), 1, 1, "the byte 0xff is not UTF-8 text"),
        ("é: é\nä: ".encode() + b"\x80", 2, 4, "the byte 0x80 is not UTF-8 text"),
    ],
)
def test_not_utf8(tmp_path: Path, content: bytes, line: int, column: int, message: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    problems: list[Problem] = []
    assert positions.read_file(path, "f", Position("f"), (), problems) is None
    assert [(p.line, p.column, p.message) for p in problems] == [(line, column, message)]


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    with path.open("wb") as file:
        file.truncate(positions.MAX_BYTES + 1)
    problems: list[Problem] = []
    assert positions.read_file(path, "f", Position("f"), (), problems) is None
    assert [problem.message for problem in problems] == ["the file is larger than 8 MiB"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("a: 1")
    named_at, problems = Position("main.yaml", 3, 7), list[Problem]()
    for name in ("quikstart.yaml", "nothing-like-it", ".", "quickstart.yaml/below", "a\0b", "x" * 5000):
        assert positions.read_file(tmp_path / name, name, named_at, ("include", 0), problems) is None
    assert all((p.file, p.line, p.column, p.field) == ("main.yaml", 3, 7, "include[0]") for p in problems)
    assert [(p.message.replace("x" * 100, ""), p.suggestion) for p in problems[:4]] == [
        ("the file quikstart.yaml does not exist", "did you mean 'quickstart.yaml'?"),
        ("the file nothing-like-it does not exist", None),
        (". is a folder; expected a file", None),
        ("the file quickstart.yaml/below cannot be read: Not a directory", None),
    ]
    assert all("cannot be read: " in problem.message and len(problem.message) < 300 for problem in problems[4:])


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("a: 1")
    path.chmod(0)
    problems: list[Problem] = []
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        assert positions.read_file(path, "f", Position("f"), (), problems) is None
    finally:
        os.seteuid(user)
    assert [problem.message for problem in problems] == ["the file f cannot be read: Permission denied"]


@settings(deadline=None)
@given(st.text())
def test_any_text_gives_a_tree_or_problems(text: str) -> None:
    node, problems = read(text)
    assert isinstance(node, Node) or node is None
    assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)


@settings(deadline=None)
@given(st.text(st.sampled_from("ab:-[]{},&*!#|>'\"%@` \n\t<?01.~\\ux"), max_size=60))
def test_any_yaml_like_text_gives_a_tree_or_problems(text: str) -> None:
    node, problems = read(text)
    if node is not None:
        node.plain()
        assert node.size == sum(1 for _ in node.walk())
    assert all(problem.line >= 1 and problem.column >= 1 for problem in problems)


def test_field_paths() -> None:
    assert field_path(("models", "smollm2-135m", "quantizations", 0)) == "models.smollm2-135m.quantizations[0]"
    assert field_path(("frameworks", "llama.cpp", "release")) == "frameworks.llama.cpp.release"
    assert field_path(("models", "a b\x1b")) == 'models."a b\\u001b"'
    assert len(field_path(("x" * 1000,))) < 70
