"""Parts of a manifest that plug-ins describe: lazy, checked by the model of their kind, and readable as version 0.1 had them."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from meltrepro import registry
from meltrepro.errors import ManifestError, UsageError
from meltrepro.frameworks.llamacpp.options import Options
from meltrepro.manifest.loader import load_manifest, parse_manifest
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.schema import Manifest
from meltrepro.plan.names import resolve
from meltrepro.registry import Registry
from tests.support.manifests import GOOD, load, problems, write

RELEASE = "{release: 2024-02-27}"


def options_of(manifest: Manifest, name: str = "llama.cpp") -> Options:
    options = manifest.frameworks[name].options
    assert isinstance(options, Options)
    return options


# -- registries -------------------------------------------------------------------------------------------------------

Points = Callable[..., None]


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Points:
    """Have these entry points installed, as `name=value`."""

    def install(**values: str) -> None:
        found = [EntryPoint(name, value, "g") for name, value in values.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)

    return install


def test_a_built_in_name_asks_nobody_for_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(**_: Any) -> None:
        raise AssertionError("looked for entry points")

    monkeypatch.setattr(registry, "entry_points", nobody)
    table = Registry("g", "thing", {"join": "os.path:join"})
    assert table.has("join") and table.get("join")("a", "b") == "a/b"


def test_others_come_by_entry_points(points: Points) -> None:
    points(name="os.path:basename", join="nowhere:x")
    table = Registry("g", "thing", {"join": "os.path:join"})
    assert table.kinds() == ("join", "name")
    assert table.get("name")("a/b") == "b"
    assert table.get("join")("a", "b") == "a/b", "what is built in is not replaced"
    assert not table.has("other")
    with pytest.raises(UsageError, match="no thing 'other' is installed here"):
        table.get("other")


def test_a_broken_package_is_named(points: Points) -> None:
    points(x="nowhere.at.all:X", y="os.path:nothing", z="builtins:dict")
    for kind, cause in (("x", "ModuleNotFoundError"), ("y", "AttributeError"), ("z", "TypeError: it is a class")):
        with pytest.raises(UsageError, match=rf"thing '{kind}' cannot be loaded from .*: {cause}") as caught:
            Registry("g", "thing", {}).get(kind)
        assert "entry points of g" in str(caught.value.hint)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("{mmpa: false}", "frameworks.llama.cpp.options: unknown key 'mmpa' (did you mean 'mmap'?)"),
        ("{mmap: 7}", "frameworks.llama.cpp.options.mmap: expected true or false or a list, got 7"),
        ("{cuda: {jetpack: 7.2, jet: 1}}", "frameworks.llama.cpp.options.cuda: unknown key 'jet'"),
        ("[]", "frameworks.llama.cpp.options: expected a mapping, got an empty list"),
    ],
)
def test_what_is_wrong_is_told_at_its_place(tmp_path: Path, options: str, expected: str) -> None:
    (problem,) = problems(tmp_path, GOOD.replace(RELEASE, f"{{release: 2024-02-27, options: {options}}}"))
    assert expected in str(problem)
    line = (tmp_path / "spec.yaml").read_text().splitlines()[problem.line - 1]
    assert "options" in line and problem.column > line.index("llama.cpp")


def test_text_that_yaml_takes_for_a_number_is_text(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD.replace(RELEASE, "{release: 2026-10-01, options: {cuda: {jetpack: 7.2}}}"))
    cuda = options_of(loaded.manifest).cuda
    assert cuda is not None and cuda.jetpack == "7.2"


def test_options_can_be_set_where_there_are_none(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD, "frameworks.llama.cpp.options.mmap=false")
    assert options_of(loaded.manifest).mmap is False
    assert parse_manifest(Path(loaded.path).read_bytes()) != loaded.manifest


def test_a_framework_that_is_not_installed_can_be_read_and_not_planned(tmp_path: Path) -> None:
    text = GOOD.replace("llama.cpp:", "toy:").replace(RELEASE, "{release: '1', options: {depth: {of: 3}}}")
    manifest = parse_manifest(text.encode())
    again = Manifest.model_validate(manifest.model_dump(mode="json"))
    assert again.frameworks["toy"].options.model_dump() == {"depth": {"of": 3}}
    assert manifest_digest(again) == manifest_digest(manifest)
    with pytest.raises(ManifestError, match="unknown framework 'toy'"):
        resolve(load(tmp_path, text))


# -- version 0.1 ------------------------------------------------------------------------------------------------------

OLD = "{release: 2024-02-27, mmap: false, build: {isas: [armv8_2], toolchain: {ndk: ndk.zip}}}"


def test_options_beside_the_release_are_read_with_a_warning(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD.replace(RELEASE, OLD))
    options = options_of(loaded.manifest)
    assert options.isas == ["armv8_2"] and not options.mmap
    assert options.toolchain is not None and options.toolchain.ndk == "ndk.zip"
    assert len(loaded.warnings) == 3
    (said,) = [each for each in loaded.warnings if ".mmap " in each]
    assert "frameworks.llama.cpp.mmap stands in frameworks.llama.cpp.options.mmap now" in said
    assert said.startswith(f"{loaded.path}:"), "it says where"
    assert load(tmp_path, GOOD).warnings == ()


def test_a_recorded_manifest_of_then_is_the_same_as_one_of_today(tmp_path: Path) -> None:
    new = "{release: 2024-02-27, options: {mmap: false, isas: [armv8_2], toolchain: {ndk: ndk.zip}}}"
    assert parse_manifest(GOOD.replace(RELEASE, OLD).encode()) == parse_manifest(GOOD.replace(RELEASE, new).encode())
    nothing = "{release: 2024-02-27, build: {toolchain: null, cuda: null, ios: null, isas: []}, mmap: true}"
    assert parse_manifest(GOOD.replace(RELEASE, nothing).encode()).frameworks["llama.cpp"].options == Options()


def test_the_paths_in_an_included_manifest_of_then_count_from_it(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace(RELEASE, OLD), "common/base.yaml")
    loaded = load_manifest(write(tmp_path, "meltrepro: 1\nname: main\ninclude: [common/base.yaml]\n"))
    toolchain = options_of(loaded.manifest).toolchain
    assert toolchain is not None and toolchain.ndk == "common/ndk.zip"
    assert "common/base.yaml" in loaded.warnings[0]


def test_what_is_said_twice_or_of_no_framework_is_a_problem(tmp_path: Path) -> None:
    twice = "{release: 2024-02-27, mmap: false, options: {mmap: true}}"
    (problem,) = problems(tmp_path, GOOD.replace(RELEASE, twice))
    assert "unknown key 'mmap'" in str(problem) and "belongs to frameworks.NAME.options" in str(problem)
    (problem,) = problems(tmp_path, GOOD.replace(RELEASE, "{release: 2024-02-27, build: {tooclhain: {}}}"))
    assert "options: unknown key 'tooclhain'" in str(problem) and "toolchain" in str(problem.suggestion)
