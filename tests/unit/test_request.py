"""Cells -> requests: the texts and limits that a runner gets, and prompts that are refused with their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.campaign.request import make_requests, request_digest
from meltrepro.chat.template import BUILT_IN, ChatTemplate
from meltrepro.errors import ManifestError
from meltrepro.frameworks.llamacpp.variants import LEVELS
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.prompts import load_conversations
from meltrepro.plan.planner import make_plan
from meltrepro.record.trial import Request
from meltrepro.targets.base import DeviceFacts

TURNS = "{% for m in messages %}{{ m.content }}<end>{% endfor %}"
HOST = DeviceFacts("host-1", "host", "CPU", "x86_64", LEVELS["x86_64_v2"].requires, 6, 10**10, 10**10)


def requests(
    folder: Path,
    workload: dict[str, Any],
    target: dict[str, Any] | None = None,
    protocol: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Request]:
    path = folder / "spec.yaml"
    model = {"source": {"file": "m"}, "quantizations": ["as-is"]}
    document = {
        "meltrepro": 1,
        "name": "test",
        "models": {name: {**model, "chat_template": name} for name in ("chatml", "gemma")},
        "frameworks": {"alpha": {"kind": "llama.cpp", "release": "2024-02-27", "options": options or {}}},
        "targets": {"host": {"kind": "host", **(target or {})}},
        "workloads": {"chat": workload},
        "protocol": {"seed": 7, **(protocol or {})},
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    loaded = load_manifest(path)
    plan = make_plan(loaded, {"host": HOST})
    conversations = {name: load_conversations(entry, folder) for name, entry in loaded.manifest.conversations.items()}
    return make_requests(loaded, plan, conversations, {"host": HOST}, BUILT_IN)


def test_a_request_is_complete(tmp_path: Path) -> None:
    made = requests(
        tmp_path,
        {
            "conversations": [["Hi", "Why?", "dropped"], ["dropped"]],
            "first": 1,
            "turns": 2,
            "context": 128,
            "max_tokens": 9,
            "batch": 32,
            "ignore_eos": True,
            "sampling": {"temperature": 0.5, "top_k": 3},
        },
    )
    assert set(made) == {"chatml/as-is/alpha/host/chat", "gemma/as-is/alpha/host/chat"}
    request = made["chatml/as-is/alpha/host/chat"]
    assert request.conversations == [
        [
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
            "<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n",
        ]
    ]
    assert (request.context, request.max_tokens, request.batch, request.ignore_eos) == (128, 9, 32, True)
    assert (request.sampling.greedy, request.sampling.temperature, request.sampling.top_k) == (False, 0.5, 3)
    assert request.sampling.seed == 7
    assert request.threads == 6, "all usable cores where the target does not say"
    assert "<start_of_turn>" in made["gemma/as-is/alpha/host/chat"].conversations[0][0]


def test_a_model_that_thinks_is_asked_with_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    requests(tmp_path, {"conversations": [["Hi"]], "max_tokens": 9})
    document = yaml.safe_load(path.read_text())
    document["models"]["chatml"]["thinking"] = {"end": "</thoughts>"}
    document["workloads"]["chat"]["max_thinking_tokens"] = 5
    path.write_text(yaml.safe_dump(document))
    loaded = load_manifest(path)
    made = make_requests(loaded, make_plan(loaded, {"host": HOST}), {"chat": [["Hi"]]}, {"host": HOST}, BUILT_IN)
    thinks, plain = (made[f"{name}/as-is/alpha/host/chat"] for name in ("chatml", "gemma"))
    assert thinks.model_dump(mode="json")["thinking"] == {"begin": "<think>", "end": "</thoughts>", "max_tokens": 5}
    assert "thinking" not in plain.model_dump(mode="json", exclude_none=True)
    assert request_digest(thinks) != request_digest(thinks.model_copy(update={"thinking": None}))


@pytest.mark.parametrize(
    ("text", "thinking", "said"),
    [
        (TURNS, {}, 0),
        ("{# thinking #}" + TURNS, {}, 1),
        ("{# <think> thinking </think> #}" + TURNS, {}, 0),
        ("{# thinking #}" + TURNS, {"thinking": {}}, 0),
    ],
)
def test_thinking_without_marks_is_said(tmp_path: Path, text: str, thinking: dict[str, Any], said: int) -> None:
    path = tmp_path / "spec.yaml"
    requests(tmp_path, {"conversations": [["Hi"]]})
    document = yaml.safe_load(path.read_text())
    document["models"] = {"chatml": document["models"]["chatml"] | thinking}
    path.write_text(yaml.safe_dump(document))
    loaded, notes = load_manifest(path), list[str]()
    templates = {"chatml": ChatTemplate("of model chatml", text)}
    make_requests(
        loaded, make_plan(loaded, {"host": HOST}), {"chat": [["Hi"]]}, {"host": HOST}, templates, notes.append
    )
    assert ["name them: models.chatml.thinking" in note for note in notes] == [True] * said


def test_threads_of_the_target_win(tmp_path: Path) -> None:
    made = requests(tmp_path, {"conversations": [["Hi"]]}, {"threads": 2})
    assert {request.threads for request in made.values()} == {2}


def test_weights_are_mapped_unless_the_framework_says_otherwise(tmp_path: Path) -> None:
    cell, chat = "chatml/as-is/alpha/host/chat", {"conversations": [["Hi"]]}
    mapped = requests(tmp_path, chat)[cell]
    read = requests(tmp_path, chat, options={"mmap": False})[cell]
    assert (mapped.options["mmap"], read.options["mmap"]) == (True, False)
    assert request_digest(mapped) != request_digest(read)


def test_prompts_that_break_out_are_refused_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        requests(tmp_path, {"conversations": [["Hi"], ["fine", "x<|im_end|>y"], ["<end_of_turn>"]]})
    first, second = caught.value.problems
    assert first.field == "workloads.chat.conversations[1][1]"
    assert "conversation 2, prompt 2 contains '<|im_end|>'" in first.message
    assert "chat template chatml" in first.message
    assert "x<|im_end|>y" in (tmp_path / "spec.yaml").read_text().splitlines()[first.line - 1]
    assert second.field == "workloads.chat.conversations[2][0]"
    assert "chat template gemma" in second.message


def test_prompts_of_a_file_are_named_by_number(tmp_path: Path) -> None:
    (tmp_path / "prompts.yaml").write_text("conversations:\n- [fine]\n- [fine, '<|im_start|>']\n")
    with pytest.raises(ManifestError) as caught:
        requests(tmp_path, {"conversations": "prompts.yaml"})
    (problem,) = caught.value.problems
    assert "conversation 2, prompt 2" in problem.message
    assert "prompts.yaml" in (tmp_path / "spec.yaml").read_text().splitlines()[problem.line - 1]


def test_a_system_prompt_that_breaks_out_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        requests(tmp_path, {"conversations": [["Hi"], ["Ho"]], "system": "<|im_end|>"})
    (problem,) = caught.value.problems
    assert problem.field == "workloads.chat.system"


def test_where_the_model_lies_is_no_part_of_the_identity(tmp_path: Path) -> None:
    request, other = requests(tmp_path, {"conversations": [["Hi"]]}).values()
    assert request_digest(request) == request_digest(request.model_copy(update={"model": "/somewhere"}))
    assert request_digest(request) != request_digest(request.model_copy(update={"threads": 99}))
    assert request_digest(request) != request_digest(other)
