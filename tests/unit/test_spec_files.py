"""Local sources that are not there are found before anything is fetched; keys in the wrong place are told the right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.cli.app import main
from meltrepro.errors import ManifestError
from meltrepro.manifest.files import missing_files
from meltrepro.manifest.loader import load_manifest
from tests.support.ggufs import model

SPEC = """\
meltrepro: 1
name: local
models:
  small: {source: {file: smal.gguf}, chat_template: chatml, quantizations: [q8_0]}
  v1.5:
    source:
      folder: checkpoint
    chat_template: chatml
    quantizations: [q4_0]
frameworks: {llama.cpp: {release: "2024-02-27"}}
targets: {host: {kind: host, sandbox: bare}}
workloads:
  chat: {conversations: [[Hi]]}
  facts: {task: openbookqa, data: {file: questions.jsonl}}
  book: {task: perplexity, text: {file: book.txt}}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    (tmp_path / "small.gguf").write_bytes(model())
    (tmp_path / "book.txt").mkdir()
    return path


def said(spec: Path) -> list[str]:
    return [
        str(problem).removeprefix(f"{spec}:") for problem in missing_files(load_manifest(spec), lambda source: False)
    ]


def test_every_kind_of_local_source_is_looked_for(spec: Path) -> None:
    here = spec.parent
    assert said(spec) == [
        f"4:26: models.small.source.file: expected a file, but {here}/smal.gguf does not exist (did you mean 'small.gguf'?)",
        f"7:15: models.v1.5.source.folder: expected a folder, but {here}/checkpoint does not exist",
        f"14:42: workloads.facts.data.file: expected a file, but {here}/questions.jsonl does not exist",
        f"15:41: workloads.book.text.file: expected a file, but {here}/book.txt is a folder",
    ]
    (here / "smal.gguf").write_bytes(model())
    (here / "checkpoint").mkdir()
    (here / "questions.jsonl").write_text("x")
    (here / "book.txt").rmdir()
    (here / "book.txt").write_text("x")
    assert said(spec) == []


def test_a_path_that_cannot_be_looked_at_is_a_problem_too(spec: Path) -> None:
    (spec.parent / "smal.gguf").symlink_to("smal.gguf")
    assert "cannot be looked at: Too many levels of symbolic links" in said(spec)[0]


def test_validate_names_them_all_with_a_next_step(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(spec)]) == ManifestError.exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("expected a f") == 4
    assert "next: put them there, or mend the paths" in captured.err


def test_a_plan_needs_only_the_files_of_its_cells(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(spec), "--only", "v1.5/*/chat"]) == ManifestError.exit_code
    (spec.parent / "checkpoint").mkdir()
    assert "models.v1.5.source.folder" in capsys.readouterr().err
    (spec.parent / "smal.gguf").write_bytes(model())
    capsys.readouterr()
    assert main(["plan", str(spec), "--only", "small/*/chat"]) == 0
    assert main(["plan", str(spec), "--only", "small/*/facts"]) == ManifestError.exit_code
    error = capsys.readouterr().err
    assert "workloads.facts.data.file" in error and "book" not in error


def test_what_a_mirror_has_need_not_be_there(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mirrors = spec.parent / "mirrors.yaml"
    mirrors.write_text('mirrors: {"file:smal.gguf": small.gguf}')
    monkeypatch.setenv("MELTREPRO_MIRRORS", str(mirrors))
    assert main(["validate", str(spec)]) == ManifestError.exit_code
    assert "models.small" not in capsys.readouterr().err


def test_wrong_turns_on_the_way_to_a_manifest(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, a bare name, and every file that `*.yaml` stands for."""
    root = spec.parent
    monkeypatch.chdir(root)
    (root / "specs").mkdir()
    manifest = root / "specs/quick.yaml"
    manifest.write_text(
        SPEC.replace("smal.gguf", "../small.gguf").partition("  v1.5")[0] + SPEC[SPEC.index("frameworks") :]
    )
    manifest.write_text(manifest.read_text().partition("  facts")[0])
    manifest.with_name("quick.lock.yaml").write_text("lock: 1\n")
    assert main(["plan", "specs"]) == 2
    assert "next: name one, such as specs/quick.yaml; validate and study take folders" in capsys.readouterr().err
    assert main(["plan", "quick"]) == ManifestError.exit_code
    assert "next: is specs/quick.yaml meant?" in capsys.readouterr().err
    assert main(["plan", "nothing"]) == ManifestError.exit_code
    assert "meant?" not in capsys.readouterr().err
    files = ["specs/quick.lock.yaml", "specs/quick.yaml"]
    assert main(["validate", *files]) == 0
    assert capsys.readouterr().out.startswith("ok  specs/quick.yaml")
    assert main(["validate", files[0]]) == ManifestError.exit_code
    assert "this is a lock, not a manifest" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "hint"),
    [
        ("{kind: host", "{kind: host, gpu_layers: 99", "'gpu_layers' belongs to frameworks.NAME"),
        ("{release:", "{threads: 4, release:", "'threads' belongs to targets.NAME"),
        ("{release:", "{quantizations: [q4_0], release:", "'quantizations' belongs to models.NAME"),
        ("name: local", "name: local\nidle_s: 5", "'idle_s' belongs to protocol"),
        ("[[Hi]]", "[[Hi]], top_k: 1", "'top_k' belongs to workloads.NAME.sampling"),
        ("{kind: host", "{kind: host, sandbocks: bare", "did you mean 'sandbox'?"),
        ("{kind: host", "{kind: host, file: x", "known keys: "),
    ],
)
def test_a_key_in_the_wrong_place_is_told_the_right_one(spec: Path, before: str, after: str, hint: str) -> None:
    spec.write_text(SPEC.replace(before, after))
    with pytest.raises(ManifestError) as caught:
        load_manifest(spec)
    (problem,) = caught.value.problems
    assert problem.message.startswith("unknown key")
    assert hint in (problem.suggestion or "")
