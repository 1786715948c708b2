"""Manifests: everything that is wrong is said at once, in plain words, at its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticUndefined

from meltrepro.errors import ManifestError
from meltrepro.manifest.base import Strict
from meltrepro.manifest.loader import load_manifest, problem_at
from meltrepro.manifest.meters import Meter
from meltrepro.manifest.schema import Manifest
from tests.support.examples import examples
from tests.support.manifests import FAULTS, GOOD, load, problems, write


def said(folder: Path, text: str, *overrides: str) -> list[str]:
    prefix = f"{folder / 'spec.yaml'}:"
    return [str(problem).removeprefix(prefix) for problem in problems(folder, text, *overrides)]


def without(key: str) -> str:
    document = yaml.safe_load(GOOD)
    del document[key]
    return yaml.safe_dump(document, sort_keys=False)


# -- what is right ------------------------------------------------------------------------------------------------


def test_a_good_manifest(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.manifest.frameworks["llama.cpp"].release == "2024-02-27"
    assert list(loaded.manifest.targets) == ["host"]
    assert loaded.path == tmp_path / "spec.yaml"
    assert loaded.keys["models", "m"].line == 4
    assert loaded.tree.nearest(("models", "m", "quantizations", 1)).at.column == 27


def test_the_document_loads_again_as_the_same_manifest(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD, "measure.energy=off", "models.m.parameters=1e6")
    document = loaded.manifest.model_dump(mode="json", exclude_unset=True)
    assert "tracking" not in document
    again = load(tmp_path, yaml.safe_dump(document)).manifest
    assert again == loaded.manifest
    assert again.model_dump(mode="json", exclude_unset=True) == document


@pytest.mark.parametrize(
    ("written", "version"), [("1.10", "1.10"), ("2", "2"), ("'3'", "3"), ("2024-02-27", "2024-02-27"), ("1e5", "1e5")]
)
def test_text_is_read_as_it_was_written(tmp_path: Path, written: str, version: str) -> None:
    loaded = load(tmp_path, GOOD.replace("0.1.2", written))
    assert loaded.manifest.models["m"].source.model_dump()["version"] == version


@pytest.mark.parametrize("commit", ["1" * 40, "12345678901234567890123456789012345678e9"])
def test_a_commit_that_looks_like_a_number(tmp_path: Path, commit: str) -> None:
    text = GOOD.replace("{release: 2024-02-27}", f"{{source: {{git: there, commit: {commit}}}}}")
    source = load(tmp_path, text).manifest.frameworks["llama.cpp"].source
    assert source is not None
    assert source.model_dump()["commit"] == commit


def test_words_of_yaml_1_1_are_names(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD + "measure: {energy: off}\n")
    assert loaded.manifest.measure.energy.value == "off"
    prompts = load(tmp_path, GOOD.replace("[[Hello, Again], [Bye]]", "[[yes, 1984, 3.50]]"))
    assert prompts.manifest.conversations["chat"].conversations == [["yes", "1984", "3.50"]]


# -- what is wrong ------------------------------------------------------------------------------------------------


def test_everything_at_once(tmp_path: Path) -> None:
    text = """\
meltrepro: 1
name: x
models:
  a:
    source: {pypi: foo, verion: 0.10, member: "*"}
    chat_template: chatml
    quantisation: [q4]
    quantizations: q8_0
    context: ten
frameworks:
  llama.cpp: {release: 2024-02-27, sourc: 1}
  other: {}
workloads:
  c: {conversations: {a: b}}
  d: {conversations: [[hi, 5], [a, ""]], max_tokens: "10"}
  e: {conversations: nofile.yaml}
protocol: {timeout_s: 0}
protocol: {seed: 2}
"""
    assert said(tmp_path, text) == [
        "5:25: models.a.source: unknown key 'verion' (did you mean 'version'?)",
        "7:5: models.a: unknown key 'quantisation' (did you mean 'quantizations'?)",
        "8:20: models.a.quantizations: expected a list, got 'q8_0' (write [q8_0])",
        "9:14: models.a.context: expected a whole number, got 'ten'",
        "11:36: frameworks.llama.cpp: unknown key 'sourc' (did you mean 'source'?)",
        "12:3: frameworks.other: expected exactly one of the keys release, releases, source",
        "14:7: workloads.c.conversations: expected text or a list, got a mapping",
        "15:36: workloads.d.conversations[1][1]: expected a prompt that is not empty, got ''",
        "15:54: workloads.d.max_tokens: expected a whole number, got '10' (leave out the quotes)",
        f"16:22: workloads.e.conversations: the file {tmp_path / 'nofile.yaml'} does not exist",
        "17:23: protocol.timeout_s: expected more than 0, got 0",
        "18:1: protocol: duplicate key 'protocol' (first written in line 17)",
    ]


@pytest.mark.parametrize(("part", "replacement", "message"), FAULTS)
def test_one_fault(tmp_path: Path, part: str, replacement: str, message: str) -> None:
    assert part in GOOD
    found = said(tmp_path, GOOD.replace(part, replacement, 1))
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize("key", ["meltrepro", "name", "models", "frameworks", "workloads"])
def test_a_missing_section(tmp_path: Path, key: str) -> None:
    assert said(tmp_path, without(key)) == [f"1:1: the key {key!r} is missing"]


def test_a_misspelt_key_is_not_also_missing(tmp_path: Path) -> None:
    found = said(tmp_path, GOOD.replace("chat_template", "chat-template"))
    assert found == ["6:5: models.m: unknown key 'chat-template' (did you mean 'chat_template'?)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "1:1: expected a mapping, got a list"),
        ("just text\n", "1:1: expected a mapping, got 'just text'"),
        ("~\n", "1:1: expected a mapping, got nothing"),
        ("", "1:1: the file is empty"),
        ("lock: 1\n", "1:1: this is a lock, not a manifest (give the manifest itself)"),
        ("conversations: []\n", "1:1: this is a prompt file, not a manifest (give the manifest itself)"),
    ],
)
def test_not_a_manifest_at_all(tmp_path: Path, text: str, message: str) -> None:
    assert said(tmp_path, text) == [message]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "quickstart.yaml")
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path / "quickstrat.yaml")
    (problem,) = caught.value.problems
    assert problem.message == f"the file {tmp_path / 'quickstrat.yaml'} does not exist"
    assert problem.suggestion == "did you mean 'quickstart.yaml'?"
    assert caught.value.exit_code == 3


def test_messages_stay_on_one_line_and_steer_no_terminal(tmp_path: Path) -> None:
    found = said(tmp_path, GOOD.replace("name: small", 'name: "\\e[2J\\n\\0"\n"\\e[31m": 1'))
    assert len(found) == 2
    assert all(line.isprintable() for line in found)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_thousands_of_problems_do_not_take_forever(tmp_path: Path) -> None:
    prompts = ", ".join(["[5, {}]"] * 5000)
    text = GOOD.replace("[[Hello, Again], [Bye]]", f"[{prompts}]") + "".join(f"kye{i}: 1\n" for i in range(5000))
    found = said(tmp_path, text)
    assert len(found) == 201
    assert found[-1].endswith("more problems") or any("more problems" in line for line in found)


# -- problems of later stages -------------------------------------------------------------------------------------


def test_a_later_stage_can_point_at_a_field(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    at = problem_at(loaded, ("models", "m", "quantizations", 1), "unknown quantization 'q4_0'", "use another")
    assert (at.line, at.column, at.field, at.suggestion) == (7, 27, "models.m.quantizations[1]", "use another")
    near = problem_at(loaded, ("frameworks", "llama.cpp"), "unknown", value="llama.cpp", known=["llamacpp", "mlc"])
    assert (near.line, near.column, near.suggestion) == (9, 3, "did you mean 'llamacpp'?")
    default = problem_at(loaded, ("targets", "host", "isa"), "unknown", value="zzz", known=["auto", "x86_64_v3"])
    assert (default.line, default.column, default.field) == (1, 1, "targets.host.isa")
    assert default.suggestion == "known: auto, x86_64_v3"
    assert problem_at(loaded, ("models", "m", "context"), "m").line == 4


# -- whatever is written ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=examples(200))
@given(st.text() | st.text(st.sampled_from("ab:-[]{},&*!#|>'\"% \n01.~<"), max_size=80))
def test_any_text_is_a_manifest_or_a_manifest_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in caught.value.problems)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["pypi", "host", "off", "m.yaml", "q4_0", ""]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "source",
                    "pypi",
                    "version",
                    "digest",
                    "file",
                    "conversations",
                    "kind",
                    "release",
                    "host",
                    "x",
                    "<<",
                    "[key]",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=examples(300))
@given(st.dictionaries(st.sampled_from(sorted(Manifest.model_fields)), VALUES, max_size=4), st.integers(0, 3))
def test_any_shape_is_a_manifest_or_a_manifest_error(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any], deep: int
) -> None:
    document = yaml.safe_load(GOOD)
    for key, value in changes.items():
        if deep and isinstance(value, dict) and isinstance(document.get(key), dict):
            name = next(iter(document[key]))
            document[key][name] = {**document[key][name], **value} if deep > 1 else value
        else:
            document[key] = value
    path = tmp_path_factory.getbasetemp() / "shape.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    try:
        loaded = load_manifest(path)
    except ManifestError as error:
        assert all("\n" not in str(problem) for problem in error.problems)
    else:
        assert Manifest.model_validate(loaded.manifest.model_dump(mode="json", exclude_unset=True)) == loaded.manifest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            "columns: {a: mA, b: A, u: V}",
            "expected one column of current at most, got 'a', 'b': rails add up in W or J only",
        ),
        ("columns: {i: A, u: V, v: mV}", "expected one column of voltage at most, got 'u', 'v'"),
        ("columns: {c: C, q: mAh}", "expected one column of charge at most"),
        (
            "columns: {u: V, h: degC}",
            "expected a column of power (W), energy (J), current (A), in which the sync mark is",
        ),
        ("columns: {c: C}", "expected a column of power (W), energy (J), current (A), in which the sync mark is seen"),
        ("columns: {u: V}, clock: host", "expected a column of power (W), energy (J), current (A) or charge (C)"),
        ("columns: {P: W}, clock_bound_s: 1", "expected no clock_bound_s with clock: own"),
        ("columns: {P: W}, clock: host, sync_mark: {rest_ms: 5}", "expected no sync_mark with clock: host"),
        ("columns: {µ: W, \u03bc: W}", "expected one unit a column, got 'μ' twice"),
        ("columns: {P: W}, encoding: rot13", "expected an encoding of text, such as cp1252 or utf-16"),
        ("columns: {P: W}, encoding: utf-32", "expected an encoding with the digits of ASCII, or utf-16"),
        ("columns: {P: W}, time_format: noon", "expected iso or a format such as '%d.%m.%Y %H:%M:%S'"),
        ("columns: {P: W}, time_format: '%d %d'", "expected iso or a format such as"),
        ("columns: {P: W}, time_zone: UTC", "expected time_format with time_zone"),
        ("columns: {P: W}, date: d", "expected time_format with date"),
        ("columns: {P: W}, time_format: iso, time_unit: ms", "expected no time_unit with time_format"),
        ("columns: {P: W}, time_format: iso, clock: device", "expected no time_format with clock: device"),
        ("columns: {P: W}, time_format: '%H:%M:%S', clock: host", "expected dates with clock: host"),
        ("columns: {P: W}, time_format: '%d.%m.%Y %H:%M', clock: host", "expected time_zone with clock: host"),
        ("columns: {P: W}, time_format: iso, time_zone: '+25'", "expected a time zone: UTC, an offset"),
    ],
)
def test_a_meter_that_could_never_work(tmp_path: Path, changes: str, message: str) -> None:
    entry = f"targets={{host: {{meter: {{file: m.csv, time: t, {changes}}}}}}}"
    (problem,) = problems(tmp_path, GOOD, entry)
    assert message in problem.message


def test_keys_of_a_meter_that_nobody_wrote_are_part_of_no_digest() -> None:
    """So that campaigns of before there were such keys go on."""
    entry = Meter.model_validate({"file": "m.csv", "time": "t", "columns": {"P": "W"}})
    known = [
        "file",
        "time",
        "time_unit",
        "clock",
        "clock_bound_s",
        "columns",
        "delimiter",
        "refresh_s",
        "linger_s",
        "sync_mark",
    ]
    assert list(entry.model_dump(mode="json")) == known
    changed = entry.model_copy(update={"decimal": ",", "time_offset_s": 1.0, "time_format": "iso"})
    assert {"decimal", "time_offset_s", "time_format"} <= set(changed.model_dump(mode="json"))


@pytest.mark.parametrize(
    "changes", ["columns: {a: W, b: mW, e: J}", "columns: {c: C}, clock: host", "columns: {i: A, u: V, t: degC}"]
)
def test_a_meter_that_works_is_still_one_as_its_record_shows_it(tmp_path: Path, changes: str) -> None:
    entry = f"targets={{host: {{meter: {{file: m.csv, time: t, {changes}}}}}}}"
    document = load(tmp_path, GOOD, entry).manifest.model_dump(mode="json", exclude_none=True)
    assert Manifest.model_validate(document).targets["host"].meter is not None


def switched_off() -> Iterator[tuple[type[Strict], str]]:
    """Every key whose null says something else than its absence."""
    todo: list[type[Strict]] = [Strict]
    while todo:
        model = todo.pop()
        todo += model.__subclasses__()
        for name, field in model.model_fields.items():
            if type(None) in get_args(field.annotation) and field.get_default() not in (None, PydanticUndefined):
                yield model, name


@pytest.mark.parametrize(("model", "name"), list(switched_off()), ids=lambda each: getattr(each, "__name__", each))
def test_what_null_switches_off_is_off_in_what_a_record_keeps(model: type[Strict], name: str) -> None:
    written = model.model_validate({name: None})
    assert model.model_validate(written.model_dump(mode="json", exclude_none=True)) == written
    assert model.model_validate_json(written.model_dump_json(exclude_none=True)) == written
