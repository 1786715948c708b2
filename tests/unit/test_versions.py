"""Releases as an axis: which entries a list of them becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.errors import ManifestError
from meltrepro.frameworks.base import framework
from meltrepro.manifest.loader import LoadedManifest, load_manifest
from meltrepro.plan.names import resolve
from tests.fault.project import small


def loaded(tmp_path: Path, **frameworks: Any) -> LoadedManifest:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(small("axis", {"one": "hello"}, frameworks=frameworks), sort_keys=False))
    return load_manifest(path)


def test_a_list_becomes_an_entry_each_in_its_place(tmp_path: Path) -> None:
    manifest = loaded(
        tmp_path,
        first={"kind": "llama.cpp", "release": "2026-10-01"},
        **{"llama.cpp": {"releases": ["0.3.8 .. 0.3.10", "2024-02-27"], "options": {"mmap": False}}},
    ).manifest
    assert list(manifest.frameworks) == [
        "first",
        *(f"llama.cpp-{each}" for each in ("0.3.8", "0.3.9", "0.3.10", "2024-02-27")),
    ]
    for name, entry in list(manifest.frameworks.items())[1:]:
        assert (entry.kind, f"llama.cpp-{entry.release}", entry.optional) == ("llama.cpp", name, True)
        assert entry.model_dump()["options"]["mmap"] is False
    assert not manifest.frameworks["first"].optional


def test_a_single_text_is_a_list_of_one(tmp_path: Path) -> None:
    assert list(loaded(tmp_path, new={"kind": "llama.cpp", "releases": "0.3.30"}).manifest.frameworks) == ["new-0.3.30"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"releases": ["0.3.9 .. 0.4.2"]}, "range of at most 200"),
        ({"releases": ["0.3.9 .. 0.3.2"]}, "range of at most 200"),
        ({"releases": ["0.3.1 .. 0.3.900"]}, "range of at most 200"),
        ({"releases": []}, "the list is empty"),
        ({"releases": ["0.3.9", "0.3.8 .. 0.3.9"]}, "0.3.9 is named twice"),
        ({"releases": ["0.3.9"], "release": "0.3.8"}, "exactly one of the keys"),
    ],
)
def test_what_is_no_list_of_releases_is_told_at_its_place(tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        loaded(tmp_path, new={"kind": "llama.cpp", **entry})
    problem = next(each for each in caught.value.problems if said in each.message)
    assert problem.line > 1 and problem.field.startswith("frameworks.new.releases")


def test_versions_are_releases_and_others_are_unknown(tmp_path: Path) -> None:
    known = resolve(loaded(tmp_path, new={"kind": "llama.cpp", "releases": ["0.3.29 .. 0.3.30"]}))
    assert [each.release.commit for each in known.values()] == ["llama-cpp-python-0.3.29", "llama-cpp-python-0.3.30"]
    with pytest.raises(ManifestError, match="unknown release of llama.cpp 'b4000'"):
        resolve(loaded(tmp_path, new={"kind": "llama.cpp", "releases": ["b4000"]}))
    with pytest.raises(ManifestError, match="unknown release of onnxruntime"):
        resolve(loaded(tmp_path, new={"kind": "onnxruntime", "release": "0.3.29"}))


def test_what_came_with_the_newest_release_is_refused_of_a_version(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="may have no lazy"):
        resolve(loaded(tmp_path, new={"kind": "llama.cpp", "release": "0.3.30", "options": {"lazy": "on"}}))


def test_a_version_adds_files_and_changes_none_of_a_pinned_release() -> None:
    llama = framework("llama.cpp")
    pinned, version = llama.releases()["2026-10-01"], llama.version("0.3.30")
    assert version is not None
    variant = llama.tool_variant("quantize")
    folders = [set(llama.recipe(llama.options(), each, variant, "quantize").folders) for each in (pinned, version)]
    assert folders[1] - folders[0] == {"versions", "releases/0.3.30.cmake"} and folders[0] <= folders[1]
