"""`meltrepro plan` as people and machines see it, and the summary of a campaign."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from meltrepro import workflow
from meltrepro.build.keys import bundle_key, model_key
from meltrepro.cli.app import main
from meltrepro.cli.summary import number, short_names
from meltrepro.manifest.sources import FileSource, Source
from meltrepro.plan.estimate import Sizes
from tests.support.ggufs import model

SPEC: dict[str, Any] = {
    "meltrepro": 1,
    "name": "quick",
    "models": {
        "small": {
            "source": {"file": "small.gguf"},
            "chat_template": "smollm2",
            "quantizations": ["q8_0", "as-is"],
            "parameters": 135e6,
        },
        "huge": {
            "source": {"file": "huge.gguf"},
            "chat_template": "llama-2",
            "quantizations": ["f16"],
            "parameters": 13e12,
        },
    },
    "frameworks": {"llama.cpp": {"release": "2024-02-27"}},
    "targets": {"host": {"kind": "host", "sandbox": "bare"}},
    "workloads": {"chat": {"conversations": [["Hi"]], "context": 1024}},
    "protocol": {"repetitions": 4, "warmups": 1},
}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")
    (tmp_path / "small.gguf").write_bytes(model().ljust(1000, b"\0"))
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(SPEC, sort_keys=False))
    return path


def test_for_people(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(spec)]) == 0
    out = capsys.readouterr().out
    assert "small/q8_0/llama.cpp/host/chat" in out
    assert "small/q8_0/llama.cpp " in out
    assert "build" in out
    assert "not locked yet: its source was never looked up" in out and f"meltrepro build {spec}" in out
    assert "needs 260" in out
    assert "2 cells, 10 trials" in out
    assert max(map(len, out.replace(str(spec), "SPEC").splitlines())) <= 120, "a pipe gets lines as long as they need"
    assert "\x1b" not in out


def test_for_machines(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(spec), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [cell["id"] for cell in document["cells"]] == [
        "small/q8_0/llama.cpp/host/chat",
        "small/as-is/llama.cpp/host/chat",
    ]
    assert [skip["id"] for skip in document["skipped"]] == ["huge/f16/llama.cpp/host/chat"]
    assert {node["stored"] for node in document["bundles"] + document["models"]} == {False}
    assert document["cells"][1]["peak_memory_bytes"] < document["cells"][0]["peak_memory_bytes"], (
        "a local file is weighed"
    )


def test_what_is_here_already_is_found_without_a_lock(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its key; of what hangs on a source that nobody has looked at, the plan says so and what to do."""
    from meltrepro import settings
    from meltrepro.build.pipeline import Builder
    from meltrepro.build.tools import Tools
    from meltrepro.manifest.lock import Lock
    from meltrepro.steps import silent

    def states() -> dict[str, str]:
        assert main(["plan", str(spec)]) == 0
        lines = capsys.readouterr().out.splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith("to have first"))
        return dict(line.split(maxsplit=1) for line in lines[first + 1 : lines.index("", first)])

    before, plan = states(), workflow.plan(spec).plan
    assert before["small/as-is/llama.cpp"].strip() == "not locked yet"
    bundles = [name for name in before if "/run/" in name or "/quantize/" in name]
    assert {before[name].strip() for name in bundles} == {"build"}
    tools = Tools(settings.load(), silent, Lock(lock=1, manifest="0" * 64), base_dir=spec.parent)
    builder = Builder(tools)
    source = plan.models[0].source
    digest = tools.fetcher.pin(source, spec.parent).digest
    assert states()["small/q8_0/llama.cpp"].strip() == "build", "its quantizer is not there"
    for bundle in plan.bundles:
        key = bundle_key(builder.recipe(bundle))
        made = tools.store.put_bytes(bundle.id.encode())
        tools.store.put_ref("artifacts", key, {"name": bundle.id, "digest": made})
    assert plan.models[1].quantization == "as-is"
    made = tools.store.put_bytes(b"model")
    tools.store.put_ref(
        "artifacts",
        model_key(digest, [(step, plan.models[1].kind) for step in plan.models[1].steps]),
        {"name": "m", "digest": made},
    )
    after = states()
    assert {name: state.strip() for name, state in after.items()} == {
        **dict.fromkeys(bundles, "reuse"),
        "small/q8_0/llama.cpp": "build",
        "small/as-is/llama.cpp": "reuse",
    }


def test_what_the_stores_disk_has_no_room_for_is_left_out_with_the_reason(
    spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from meltrepro.workflow import sizes

    document = {**SPEC, "models": {"small": {**SPEC["models"]["small"], "quantizations": ["q4_0", "q8_0"]}}}
    spec.write_text(yaml.safe_dump(document, sort_keys=False))
    monkeypatch.setattr(sizes, "free_bytes", lambda path: 200 * 10**6)
    assert main(["plan", str(spec)]) == 0
    out = capsys.readouterr().out
    assert "free on the store's disk: 200.0 MB" in out
    assert "needs 143" in out and "in the store to be made, its disk has 200.0 MB free, 7" in out
    assert "meltrepro gc" in out and "meltrepro study --drop-models" in out
    assert "1 cell, " in out
    monkeypatch.setattr(sizes, "free_bytes", lambda path: 10**12)
    assert main(["plan", str(spec)]) == 0
    assert "in the store" not in capsys.readouterr().out


def test_what_is_fetched_and_built_besides_models_may_not_fit_either(
    spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from meltrepro.workflow import sizes

    def of_others(_: object, source: Source, *__: object) -> int:
        return 0 if isinstance(source, FileSource) else 10**9

    monkeypatch.setattr("meltrepro.store.fetch.Fetcher.estimate", of_others)
    monkeypatch.setattr(sizes, "free_bytes", lambda path: 500 * 10**6)
    assert main(["plan", str(spec)]) == 0
    assert " are needed in the store, 500.0 MB are free on its disk" in capsys.readouterr().out


def test_nothing_can_run(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(spec), "--only", "huge/*"]) == 4
    captured = capsys.readouterr()
    assert "needs 260" in captured.out
    assert "nothing in this manifest can run here" in captured.err
    assert "needs 260" not in captured.err, "what the plan said is not said again"
    assert "meltrepro plan" not in captured.err, "the hint named the very command"
    assert "name smaller models or quantizations" in captured.err


def test_a_slip_in_only(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(spec), "--only", "smal/*"]) == 2
    assert "no cell matches 'smal/*'" in capsys.readouterr().err


def test_nothing_is_written_but_the_store(spec: Path) -> None:
    before = {path for path in spec.parent.iterdir() if path.name != "cache"}
    assert main(["plan", str(spec)]) == 0
    assert {path for path in spec.parent.iterdir() if path.name != "cache"} == before


def test_a_dry_run_is_a_plan(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(spec), "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert main(["plan", str(spec)]) == 0
    assert dry == capsys.readouterr().out
    assert not (spec.parent / "home").exists()


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_is_never_overrun(spec: Path, width: int) -> None:
    from meltrepro.cli.plan import show
    from meltrepro.manifest.loader import load_manifest
    from meltrepro.plan.planner import make_plan
    from meltrepro.targets.base import DeviceFacts
    from meltrepro.workflow import Planned

    host = DeviceFacts(
        "h", "host", "CPU", "x86_64", frozenset({"ssse3", "sse4_1", "sse4_2", "popcnt"}), 2, 10**10, 10**10
    )
    plan = make_plan(load_manifest(spec), {"host": host})
    text = io.StringIO()
    screen = Console(file=text, force_terminal=True, color_system=None, width=width, highlight=False)
    show(Planned(plan, Sizes()), Path("SPEC"), screen)
    assert max(map(len, text.getvalue().splitlines())) <= width


@pytest.mark.parametrize(
    ("ids", "pattern", "names"),
    [
        (["m/q8/f/h/c"], "", ["m/q8/f/h/c"]),
        (["m/q8/f/h/c", "m/q4/f/h/c"], "m/*/f/h/c", ["q8", "q4"]),
        (["m/q8/f/h/c", "n/q8/f/h/d"], "*/q8/f/h/*", ["m/c", "n/d"]),
    ],
)
def test_short_names(ids: list[str], pattern: str, names: list[str]) -> None:
    assert short_names(ids) == (pattern, names)


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12346"), (108.24, "108.2"), (0.0123456, "0.01235"), (0, "0.000"), (999.96, "1000")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_a_mirror_map_is_read_before_anything_else(
    spec: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MELTREPRO_MIRRORS", str(spec.parent / "none.yaml"))
    assert main(["plan", str(spec)]) == 2
    assert "names a mirror map that does not exist" in capsys.readouterr().err
