"""A context that is too small for its workload: said by `validate` and `plan`, before anything is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro import workflow
from meltrepro.cli.app import main
from tests.support.manifests import GOOD

WORDS = "one two three four five six seven eight nine ten"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")


def spec(folder: Path, *, templates: tuple[str, ...] = ("plain",), more: Any = None, **workload: Any) -> Path:
    document = yaml.safe_load(GOOD)
    model = {**document["models"]["m"], "quantizations": ["as-is"]}
    document["models"] = {f"m{i}": {**model, "chat_template": each} for i, each in enumerate(templates)}
    document["workloads"] = {"chat": {"conversations": [[WORDS]], "context": 64, "max_tokens": 4, **workload}}
    document["workloads"] |= more or {}
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


CANNOT: dict[str, dict[str, Any]] = {
    "an answer": {"max_tokens": 64, "ignore_eos": True},
    "a prompt": {"conversations": [[" ".join([WORDS] * 7)]]},
    "many turns": {"conversations": [["Hi"], [WORDS] * 5], "ignore_eos": True},
    "many turns of prompts alone": {"conversations": [[WORDS] * 7]},
    "a system prompt": {"system": " ".join([WORDS] * 6)},
    "markup": {"conversations": [["Hi"] * 10], "max_tokens": 3, "ignore_eos": True, "templates": ("zephyr",)},
    "a prompt without pauses": {"conversations": [[WORDS], [WORDS * 2]], "continuous": True, "context": 300},
    "every template": {"conversations": [[WORDS] * 7], "templates": ("chatml", "gemma", "llama-2")},
}
CAN: dict[str, dict[str, Any]] = {
    "exactly": {"max_tokens": 53, "ignore_eos": True},
    "conversations one by one": {"conversations": [[WORDS], [WORDS], [WORDS]], "ignore_eos": True, "max_tokens": 50},
    "what is cut off": {"conversations": [[WORDS] * 9], "turns": 1},
    "what is left out": {"conversations": [[WORDS], [WORDS] * 9], "first": 1},
}


@pytest.mark.parametrize("command", ["validate", "plan", "build", "lock"])
def test_what_cannot_fit_is_refused_where_the_number_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    path = spec(tmp_path, **CANNOT["many turns"])
    assert main([command, str(path)]) == 3
    err = capsys.readouterr().err
    assert "workloads.chat.context: conversation 2 (5 turns with answers of 4 tokens) takes at least 69 tokens" in err
    assert "and the context has 64 (a larger context, fewer turns, or a smaller max_tokens)" in err
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "context: 64" in text)
    assert f"{path}:{line}:" in err


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = spec(tmp_path, **CANNOT[name])
    for command in ("validate", "plan"):
        assert main([command, str(path)]) == 3
        assert "workloads.chat.context: " in capsys.readouterr().err
    assert main(["validate", str(path), "--set", "workloads.chat.context=4096"]) == 0


@pytest.mark.parametrize("name", CAN)
def test_what_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["validate", str(spec(tmp_path, **CAN[name]))]) == 0
    assert "warning" not in capsys.readouterr().err


def test_what_may_not_fit_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer may end earlier, and so may a prompt have fewer tokens."""
    path = spec(tmp_path, conversations=[["Hi"], [WORDS] * 2], max_tokens=30)
    said = "conversation 2 (2 turns) takes about 24 tokens for its prompts and up to 59 for its answers, and the context has 64"
    assert main(["validate", str(path)]) == 0
    assert said in capsys.readouterr().err
    (warning,) = workflow.plan(path).plan.warnings
    assert said in warning and "where it is full the conversation ends" in warning


def test_one_model_of_several_is_no_reason_to_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The markup of its template is more than others have: with those the workload can be held."""
    workload = {**CANNOT["markup"], "templates": ("plain", "zephyr")}
    assert main(["validate", str(spec(tmp_path, **workload))]) == 0
    assert "conversation 1 (10 turns) takes about" in capsys.readouterr().err


def test_a_workload_that_is_not_asked_for_stops_no_other(tmp_path: Path) -> None:
    path = spec(tmp_path, more={"small": {"conversations": [[WORDS] * 9], "context": 16}})
    assert main(["plan", str(path)]) == 3
    assert main(["plan", str(path), "--only", "*/chat"]) == 0


@pytest.mark.parametrize(
    "workload",
    [
        {"conversations": [["Hi"]], "context": 4096},
        {"task": "perplexity", "text": {"file": "spec.yaml"}, "context": 4096},
        {"task": "piqa", "data": {"file": "spec.yaml"}, "context": 4096},
    ],
    ids=["conversations", "text", "questions"],
)
def test_more_than_a_model_was_trained_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workload: dict[str, Any]
) -> None:
    path = spec(tmp_path, templates=("plain", "chatml"), more={"long": workload})
    assert main(["validate", str(path), "--set", "models.m0.context=2048"]) == 0
    said = "workloads.long.context: 4096 tokens are more than these models have: m0 (2048); such cells are skipped"
    assert said in capsys.readouterr().err
    planned = workflow.plan(path, overrides=["models.m0.context=2048"])
    reasons = {skip.cell_id: skip.reason for skip in planned.plan.skipped if skip.kind == "context"}
    assert reasons == {"m0/as-is/llama.cpp/host/long": "needs a context of 4096 tokens, model m0 has 2048"}
