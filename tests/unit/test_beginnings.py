"""Manifests to begin with: `init` by options and by questions, `run` of a model alone."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro import errors, workflow
from meltrepro.cli.app import main
from meltrepro.manifest.loader import load_manifest
from meltrepro.targets.base import Attached
from tests.support.beginnings import here, hub
from tests.support.checkpoints import write_llama
from tests.support.ggufs import STRING, TIED, U32, part, whole
from tests.support.hub import Hub
from tests.support.terminal import environment

__all__ = ["here", "hub"]


def made(folder: Path) -> dict[str, Any]:
    """The only manifest of a folder, which is well and can be planned."""
    (path,) = folder.glob("*.yaml")
    assert main(["validate", str(path)]) == 0
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def planned(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The cells that would run."""
    (path,) = folder.glob("*.yaml")
    capsys.readouterr()
    assert main(["plan", str(path), "--json"]) == 0
    return [cell["id"] for cell in json.loads(capsys.readouterr().out)["cells"]]


def test_a_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "study", "--model", "Tiny Model-Q4_K_M.gguf"]) == 0
    said = capsys.readouterr().out
    assert "study/tiny-model-q4_k_m.yaml: written" in said and "run study/tiny-model-q4_k_m.yaml" in said
    entry = {
        "source": {"file": "../Tiny Model-Q4_K_M.gguf"},
        "quantizations": ["as-is", "q4_0"],
        "chat_template": "plain",  # it brings none
    }
    assert made(here / "study")["models"] == {"tiny-model-q4_k_m": entry}
    cell = "tiny-model-q4_k_m/{}/llama.cpp/host/chat"
    assert planned(here / "study", capsys) == [cell.format("as-is"), cell.format("q4_0")]


@pytest.mark.parametrize(
    ("model", "name", "source", "quantizations"),
    [
        ("hf:Org/Tiny-Chat", "tiny-chat", "hf:Org/Tiny-Chat", ["q8_0", "q4_0"]),
        ("hf:Org/Tiny-Chat/q/tiny-f16.gguf", "tiny-f16", "hf:Org/Tiny-Chat/q/tiny-f16.gguf", ["q8_0", "q4_0"]),
        ("../checkpoint", "checkpoint", {"folder": "../../checkpoint"}, ["q8_0", "q4_0"]),
        ("synthetic:tiny-llama", "tiny-llama", {"synthetic": "tiny-llama"}, ["q8_0", "q4_0"]),
    ],
)
def test_every_kind_of_model(
    here: Path, hub: Hub, model: str, name: str, source: object, quantizations: list[str]
) -> None:
    assert main(["init", "study", "--model", model]) == 0
    (entry,) = made(here / "study")["models"].items()
    licence = {"licence": "apache-2.0"} if model.startswith("hf:") else {}
    template = {"chat_template": "plain"} if model in ("../checkpoint", "synthetic:tiny-llama") else {}
    assert entry == (name, {"source": source, "quantizations": quantizations, **template, **licence})


def test_a_template_that_a_model_brings_is_taken(here: Path) -> None:
    text = "{% for message in messages %}<s>{{ message.content }}</s>{% endfor %}"
    (here / "chatty.gguf").write_bytes(whole(extra={"tokenizer.chat_template": (STRING, text)}))
    for _ in range(2):
        assert main(["init", "study", "--model", "chatty.gguf"]) == 0
    (entry,) = made(here / "study")["models"].values()
    assert "chat_template" not in entry


@pytest.mark.parametrize(
    ("trained", "context", "turns", "most"),
    [(4096, 1024, 2, 48), (256, 256, 2, 48), (100, 100, 1, 48), (32, 32, 1, 13)],
)
def test_conversations_fit_what_a_model_was_trained_for(
    here: Path, capsys: pytest.CaptureFixture[str], trained: int, context: int, turns: int, most: int
) -> None:
    (here / "small.gguf").write_bytes(whole(extra={"llama.context_length": (U32, trained)}))
    assert main(["init", "study", "--model", "small.gguf", "--compare", "frameworks"]) == 0
    chat = made(here / "study")["workloads"]["chat"]
    assert (chat["context"], chat["max_tokens"]) == (context, most)
    assert [len(each) for each in chat["conversations"]] == [turns, turns]
    capsys.readouterr()
    assert main(["validate", "study"]) == 0
    assert "context" not in capsys.readouterr().err


def test_engines_are_compared_on_what_all_of_them_make(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "study", "--model", "synthetic:tiny-llama", "--compare", "frameworks"]) == 0
    cells = planned(here / "study", capsys)
    assert cells == [f"tiny-llama/q4_0/{kind}/host/chat" for kind in ("llama.cpp", "mlc", "onnxruntime", "openvino")]


def test_the_quickstarts_model_with_options(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "study", "--device", "host"]) == 0
    assert planned(here / "study", capsys) == [
        f"smollm2-135m/{quantization}/llama.cpp/host/chat" for quantization in ("q8_0", "q4_0")
    ]


PHONE = Attached("android", "3A021JEHN02756", "device", "Pixel 6", None)
LOCKED = Attached("android", "X", "unauthorized", "", "tap Allow")


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [LOCKED, PHONE, Attached("host", "", "device", "this machine", None)]
    monkeypatch.setattr("meltrepro.workflow.beginnings.attached", lambda settings: (rows, []))


@pytest.mark.usefixtures("phone")
def test_devices(here: Path) -> None:
    assert main(["init", "one", "--model", "synthetic:tiny-llama", "--device", "3A021JEHN02756"]) == 0
    phone = {"3a021jehn02756": {"kind": "android", "serial": "3A021JEHN02756"}}
    assert made(here / "one")["targets"] == phone
    assert main(["init", "all", "--model", "synthetic:tiny-llama", "--compare", "devices"]) == 0
    assert made(here / "all")["targets"] == {"host": {"kind": "host"}} | phone


@pytest.mark.usefixtures("phone")
def test_a_device_that_nobody_knows_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init = ["init", "study", "--model", "synthetic:tiny-llama", "--device"]
    for name, said in (
        ("pixel", "there is this machine (host), X, 3A021JEHN02756; one that is not attached is written KIND:NAME"),
        ("3A021JEHN02765", "did you mean 3A021JEHN02756?"),
        ("phone:x", "there is no device 'phone:x'"),
    ):
        assert main([*init, name]) == errors.UsageError.exit_code
        assert said in capsys.readouterr().err
        assert not (here / "study").exists()
    assert main([*init, "linux:board"]) == 0, "nobody can know who is not attached"
    assert made(here / "study")["targets"] == {"linux-board": {"kind": "linux", "host": "board"}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "none.gguf"], "there is no model 'none.gguf': no such file or folder"),
        (["--model", "Org/Tiny-Chat"], "write hf:Org/Tiny-Chat"),
        (["--model", "hf:Tiny"], "expected OWNER/NAME, got 'Tiny/'"),
        (["--model", "hf:a/b@main"], "expected a full commit id behind '@'"),
        (["--model", "synthetic:tiny-lama"], "there is synthetic:tiny-llama; real"),
        (["--model", "synthetic:qwen3"], "synthetic:qwen3-0.6b, synthetic:qwen3-1.7b, "),
        (
            ["--model", "gema-3-1b"],
            "of made-up weights there is synthetic:gemma-3-1b; real ones are named hf:OWNER/NAME",
        ),
        (["--model", "Qwen3:0.6B"], "there is synthetic:qwen3-0.6b; real"),
        (["--model", "synthetic:tiny-llama", "--device", "linux:"], "'linux:' names no device"),
        (["--model", "synthetic:tiny-llama", "--compare", "phones"], "'phones' cannot be compared"),
        (
            ["--model", "synthetic:tiny-llama", "--compare", "devices", "--device", "x"],
            "takes every device that is there",
        ),
        (["--model", "synthetic:tiny-llama", "--compare", "devices"], "there is only this machine to measure on"),
    ],
)
def test_what_means_nothing(here: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert main(["init", "study", *options]) == errors.UsageError.exit_code
    assert said in capsys.readouterr().err
    assert not list((here / "study").glob("*"))


def test_what_is_no_model_leaves_nothing_and_names_nothing_that_is_gone(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "page.gguf").write_text("<html>Sign in</html>")
    assert main(["init", "new/study", "--model", "page.gguf"]) == errors.ModelError.exit_code
    said = capsys.readouterr().err
    assert "page.gguf is not a GGUF file" in said and "it is a web page" in said and ".yaml" not in said
    assert not (here / "new").exists()
    (here / "there").mkdir()
    assert main(["init", "there", "--model", "page.gguf"]) == errors.ModelError.exit_code
    assert (here / "there").is_dir() and not list((here / "there").iterdir()), "a folder of the user's stays"
    capsys.readouterr()
    (here / "empty").mkdir()
    assert main(["init", "study", "--model", "empty"]) == errors.SourceError.exit_code
    assert not list((here / "study").glob("*"))


def test_the_hub_is_asked_before_anything_is_written(here: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "study", "--model", "hf:Org/Tiny-Chat/tiny.gguf"]) == errors.SourceError.exit_code
    assert "did you mean q/tiny-f16.gguf?" in capsys.readouterr().err
    assert not (here / "study").exists()


def test_the_hub_says_for_how_long_a_context_a_model_was_trained(
    here: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "study", "--model", "hf:Org/Tiny-Chat"]) == 0
    trained = json.loads((here.parent / "checkpoint" / "config.json").read_bytes())["max_position_embeddings"]
    assert made(here / "study")["workloads"]["chat"]["context"] == trained < 1024
    assert "trained" not in capsys.readouterr().err
    assert {name for name in hub.files if hub.gets(name)} == {"config.json"}


def test_what_the_hub_does_not_say_of_the_context_is_told(
    here: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "one", "--model", "hf:Org/Tiny-Chat/q/tiny-f16.gguf"]) == 0
    assert "warning: for how long a context hf:Org/Tiny-Chat/q/tiny-f16.gguf was trained" in capsys.readouterr().err
    config = json.loads(hub.files["config.json"])
    del config["max_position_embeddings"]
    hub.commits("0dd0000000" * 4, hub.files | {"config.json": json.dumps(config).encode()})
    assert main(["init", "two", "--model", "hf:Org/Tiny-Chat"]) == 0
    assert "is not known here (its configuration is silent)" in capsys.readouterr().err
    assert made(here / "two")["workloads"]["chat"]["context"] == 1024
    hub.commits("feed000000" * 4, hub.files)
    hub.gated = True
    assert main(["init", "three", "--model", "hf:Org/Tiny-Chat"]) == 0, (
        "what a gate hides is asked for when it is needed"
    )
    assert "is not known here (huggingface:Org/Tiny-Chat" in capsys.readouterr().err


def test_a_manifest_of_the_users_own_is_not_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["init", ".", "--model", "synthetic:tiny-llama"]) == 0
    (here / "tiny-llama.yaml").write_text("mine")
    assert main(["init", ".", "--model", "synthetic:tiny-llama"]) == errors.UsageError.exit_code
    assert "is there already" in capsys.readouterr().err
    assert (here / "tiny-llama.yaml").read_text() == "mine"


# -- on a terminal ----------------------------------------------------------------------------------------------------


def answered(here: Path, answers: Sequence[str], *options: str) -> str:
    """What `init` shows on a terminal where each question gets the next answer."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "meltrepro", "init", "study", *options]
    shown, left = "", list(answers)
    with subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, cwd=here, env=environment(here.parent / "home")
    ) as process:
        os.close(follower)
        while True:
            if left and shown.endswith("): ") and not select.select([leader], [], [], 0.2)[0]:
                os.write(leader, f"{left.pop(0)}\n".encode())
                shown += "\0"
            try:
                piece = os.read(leader, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece.decode()
    os.close(leader)
    assert process.returncode == 0, shown
    assert not left, shown
    return shown


def test_two_questions_where_there_is_one_device(here: Path) -> None:
    shown = answered(here, ["none.gguf", "Tiny Model-Q4_K_M.gguf", "phones", "f"])
    assert shown.count("model (hf:OWNER/NAME") == 2 and "there is no model 'none.gguf'" in shown
    assert shown.count("compare (quantizations, frameworks; Enter for quantizations)") == 2
    assert "device (" not in shown
    assert set(made(here / "study")["frameworks"]) == {"llama.cpp", "mlc", "onnxruntime", "openvino"}


@pytest.mark.usefixtures("phone")
@pytest.mark.parametrize(
    ("answers", "targets"),
    [
        (["synthetic:tiny-llama", "", "3", "2"], ["3a021jehn02756"]),
        (["synthetic:tiny-llama", "", "3A021JEHN02756"], ["3a021jehn02756"]),
        (["synthetic:tiny-llama", "", ""], ["host"]),
        (["synthetic:tiny-llama", "devices"], ["host", "3a021jehn02756"]),
    ],
)
def test_the_third_question_is_for_the_device(
    here: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str], targets: list[str]
) -> None:
    asked: list[str] = []

    def prompt(question: str, **_: object) -> str:
        asked.append(question)
        return answers[len(asked) - 1]

    monkeypatch.setattr("typer.prompt", prompt)
    for stream in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{stream}", Terminal())
    assert main(["init", "study"]) == 0
    assert len(asked) == len(answers)
    assert list(made(here / "study")["targets"]) == targets


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_answers_make_the_quickstart(here: Path) -> None:
    assert "with its lock and prompts" in answered(here, ["", ""])
    assert (here / "study" / "quickstart.lock.yaml").is_file()


def test_what_options_say_is_not_asked(here: Path) -> None:
    shown = answered(here, [], "--model", "synthetic:tiny-llama", "--compare", "quantizations", "--device", "host")
    assert "): " not in shown and "tiny-llama.yaml: written" in shown


# -- a model alone ----------------------------------------------------------------------------------------------------


def test_a_model_alone_is_run_by_a_manifest_beside_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "sub").mkdir()
    for i in range(2):
        (here / "sub" / f"Big-0000{i + 1}-of-00002.gguf").write_bytes(part(i, 2, TIED[:2] if i == 0 else TIED[2:]))
    write_llama(here / "Checkpoint")
    seen: list[Path] = []

    def run(spec: Path, **_: object) -> None:
        seen.append(spec)
        raise errors.Interrupted("far enough")

    monkeypatch.setattr(workflow, "run", run)
    for model in ("Tiny Model-Q4_K_M.gguf", "sub/Big-00002-of-00002.gguf", "Checkpoint"):
        for _ in range(2):  # the manifest that was made is kept, and taken again
            assert main(["run", model, "--quiet"]) == errors.Interrupted.exit_code
        assert f"manifest: {seen[-1]}" in capsys.readouterr().err
    names = ["tiny-model-q4_k_m.yaml", "sub/big.yaml", "checkpoint.yaml"]
    assert list(map(str, seen)) == [name for name in names for _ in range(2)]
    models = [next(iter(load_manifest(path).manifest.models.values())) for path in seen[::2]]
    assert [model.quantizations for model in models] == [["as-is"], ["as-is"], ["q8_0", "q4_0"]]
    changed = (here / "tiny-model-q4_k_m.yaml").read_text().replace("max_tokens: 48", "max_tokens: 8")
    (here / "tiny-model-q4_k_m.yaml").write_text(changed)
    assert main(["run", "Tiny Model-Q4_K_M.gguf", "--quiet"]) == errors.Interrupted.exit_code
    assert (here / "tiny-model-q4_k_m.yaml").read_text() == changed


def test_a_manifest_of_another_model_is_not_run_for_one_of_nearly_its_name(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(here / "Tiny Model-Q4_K_M.gguf", here / "tiny-model-Q4_K_M.gguf")
    assert main(["run", "Tiny Model-Q4_K_M.gguf", "--dry-run"]) == 0
    capsys.readouterr()
    assert main(["run", "tiny-model-Q4_K_M.gguf", "--dry-run"]) == errors.UsageError.exit_code
    said = capsys.readouterr().err
    assert (
        "of another model than tiny-model-Q4_K_M.gguf" in said and "init FOLDER --model tiny-model-Q4_K_M.gguf" in said
    )


def test_a_file_is_no_folder_to_write_into(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "notes.txt").write_text("mine")
    for options in ([], ["--model", "synthetic:tiny-qwen3"]):
        assert main(["init", "notes.txt", *options]) == errors.UsageError.exit_code
        assert "notes.txt is a file" in capsys.readouterr().err


def test_made_up_weights_without_a_template_are_told_before_they_are_made(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for shape, template in (("olmoe-1b-7b", "plain"), ("tiny-llama", "plain"), ("tiny-qwen3", None)):
        assert main(["init", shape, "--model", f"synthetic:{shape}"]) == 0
        (entry,) = made(here / shape)["models"].values()
        assert entry.get("chat_template") == template
    spec = here / "olmoe-1b-7b" / "olmoe-1b-7b.yaml"
    spec.write_text(spec.read_text().replace("chat_template: plain", "chat_template: auto"))
    assert main(["validate", str(spec)]) == errors.ModelError.exit_code
    assert "brings no chat template" in capsys.readouterr().err


def test_what_is_no_model_is_said_as_ever(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "page.gguf").write_text("<html>Sign in</html>")
    assert main(["run", "page.gguf"]) == errors.ModelError.exit_code
    assert main(["run", "none.gguf"]) == errors.ManifestError.exit_code
    assert main(["run", "."]) == errors.UsageError.exit_code
    capsys.readouterr()
    assert main(["run", "hf:Qwen/Qwen3-0.6B"]) == errors.UsageError.exit_code
    assert "meltrepro init --model hf:Qwen/Qwen3-0.6B" in capsys.readouterr().err
    assert main(["plan", "Tiny Model-Q4_K_M.gguf"]) == errors.ManifestError.exit_code
    assert "of a model's file or folder `meltrepro run` makes one" in capsys.readouterr().err
    assert not list(here.glob("*.yaml"))
