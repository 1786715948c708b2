"""A model that cannot be loaded: the reason says what the engine complained of, what the file is, and what the release knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltrepro.campaign.failure import of_result
from meltrepro.frameworks.llamacpp.module import FRAMEWORK
from meltrepro.record.outcomes import FailureKind
from meltrepro.targets.base import TrialResult
from tests.support.ggufs import whole

SAID = """\
llama_model_loader: loaded meta data with 23 key-value pairs and 290 tensors from m
llama_model_load: error loading model: unknown model architecture: 'qwen3'
llama_load_model_from_file: failed to load model
"""
LOADING = b'{"e":"start","t":1}\n{"e":"load_begin","t":2}\n'


def failed(folder: Path, status: int, stderr: str = SAID, events: bytes = LOADING) -> str:
    (folder / "stderr.log").write_text(stderr)
    (folder / "events.jsonl").write_bytes(events)
    model = folder / "m.gguf"
    model.write_bytes(whole("qwen3"))
    found = of_result(TrialResult(status, 1.0), folder, 60, about=lambda: FRAMEWORK.describe(model, "2024-02-27"))
    assert found is not None
    return str(found)


def test_exit_status_3_names_the_complaint_and_the_model(tmp_path: Path) -> None:
    first, about, *_, last = failed(tmp_path, 3).split("\n")
    assert first == (
        "runner-error: exit status 3, the model cannot be loaded: llama_model_load: error loading model: "
        "unknown model architecture: 'qwen3'"
    )
    assert about.startswith("  the model: GGUF 3, qwen3, tokenizer gpt2 (default), 4 tensors (4 F32), ")
    assert "; release 2024-02-27 does not know architecture qwen3 (it knows: baichuan" in about
    assert last == "  llama_load_model_from_file: failed to load model", "what was said last is there as before"


@pytest.mark.parametrize("status", [132, 134, 135, 136, 139])
def test_a_signal_on_loading_names_the_model(tmp_path: Path, status: int) -> None:
    said = failed(tmp_path, status, 'GGML_ASSERT: ggml.c:20177: false && "invalid type"\n')
    assert said.startswith(f"{FailureKind.crashed}: the runner died of SIG")
    assert 'GGML_ASSERT: ggml.c:20177: false && "invalid type"\n  the model: GGUF 3, qwen3' in said


def test_a_signal_later_is_not_laid_to_the_model(tmp_path: Path) -> None:
    said = failed(tmp_path, 139, "", LOADING + b'{"e":"load_end","t":3}\n')
    assert "the model:" not in said
    assert "the model:" not in failed(tmp_path, 137), "somebody else stopped it"
    assert "the model:" not in failed(tmp_path, 5)


def test_what_nobody_complained_of(tmp_path: Path) -> None:
    assert failed(tmp_path, 3, "first line\nlast line\n").startswith(
        "runner-error: exit status 3, the model cannot be loaded: last line\n  the model: "
    )


def test_a_model_that_the_release_knows_and_one_that_is_none(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(whole())
    assert (FRAMEWORK.describe(model, "2024-02-27") or "").endswith(
        "; release 2024-02-27 knows all that its header names"
    )
    assert "release" not in (FRAMEWORK.describe(model, "custom-0123") or "")
    model.write_bytes(b"<html>")
    assert "it is a web page" in (FRAMEWORK.describe(model, "2024-02-27") or "")
    assert "cannot be read" in (FRAMEWORK.describe(tmp_path / "none", "2024-02-27") or "")
