"""`model add`: an entry for a model in somebody's file, of which every other line stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from meltrepro import errors
from meltrepro.cli.app import main
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.yaml.insert import with_entry
from tests.support.beginnings import COMMIT, here, hub
from tests.support.hub import Hub
from tests.support.json_output import checked

__all__ = ["here", "hub"]

MINE = """\
# My study. Do not touch.
meltrepro: 1
name:   mine      # spaces of my own

models:
    # The first one.
    first:
        source: {synthetic: tiny-llama}   # made up
        chat_template: chatml
        quantizations:
          - q8_0

# What runs them.
frameworks: {llama.cpp: {release: "2026-10-01"}}
workloads:
  chat: {conversations: [[Hello]], context: 64, max_tokens: 4}
"""


def test_a_model_is_added_and_every_other_line_stays(here: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    spec = here / "mine.yaml"
    spec.write_text(MINE)
    assert main(["model", "add", "qwen", "hf:Org/Tiny-Chat", "mine.yaml"]) == 0
    said = capsys.readouterr().out
    assert "mine.yaml: models.qwen added" in said and COMMIT in said and "licence: apache-2.0" in said
    added = [
        "    qwen:",
        "      source: hf:Org/Tiny-Chat",
        "      quantizations: [q8_0, q4_0]",
        "      licence: apache-2.0",
    ]
    lines = MINE.splitlines()
    place = lines.index("          - q8_0") + 1
    assert spec.read_text().splitlines() == [*lines[:place], *added, *lines[place:]]
    options = ["--quantizations", "q4_0,q2_K"]
    assert main(["model", "add", "file", "Tiny Model-Q4_K_M.gguf", "mine.yaml", *options]) == 0
    models = load_manifest(spec).manifest.models
    assert list(models) == ["first", "qwen", "file"] and models["file"].quantizations == ["q4_0", "q2_K"]


def test_what_was_added_as_json(here: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine.yaml").write_text(MINE)
    said = checked(capsys)
    model = {"source": "hf:Org/Tiny-Chat", "quantizations": ["q8_0", "q4_0"], "licence": "apache-2.0"}
    expected = {"path": "mine.yaml", "name": "qwen", "model": model, "revision": COMMIT}
    assert said("model-add", "model", "add", "qwen", "hf:Org/Tiny-Chat", "mine.yaml") == expected
    options = ["--quantizations", "q4_0"]
    file = said("model-add", "model", "add", "file", "Tiny Model-Q4_K_M.gguf", "mine.yaml", *options)
    template = {"chat_template": "plain"}  # it brings none
    assert file["model"] == {"source": {"file": "Tiny Model-Q4_K_M.gguf"}, "quantizations": ["q4_0"]} | template
    assert file["revision"] is None


Change = Callable[[str], str]


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (lambda text: text, "first", "mine.yaml:7: there is a models.first already"),
        (lambda text: text, "a b", "models: expected a name"),
        (lambda text: text.replace("q8_0", "q99"), "second", "q99"),
        (lambda text: "models: {a: {source: {synthetic: tiny-llama}}}\n", "second", "models is written on one line"),
        (lambda text: "models:\n\tx: 1\n", "second", "tab"),
        (lambda text: "- a\n", "second", "expected a mapping"),
    ],
)
def test_a_model_that_cannot_be_added_changes_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], change: Change, name: str, said: str
) -> None:
    text = change(MINE)
    (here / "mine.yaml").write_text(text)
    status = main(["model", "add", name, "synthetic:tiny-llama", "mine.yaml"])
    assert status in (errors.UsageError.exit_code, errors.ManifestError.exit_code)
    assert said in capsys.readouterr().err
    assert (here / "mine.yaml").read_text() == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 1", "a: 1\nm:\n  x:\n    k: v\n"),
        ("m:\na: 1\n", "m:\n  x:\n    k: v\na: 1\n"),
        ("m: # none yet\na: 1\n", "m: # none yet\n  x:\n    k: v\na: 1\n"),
        ("m:\n  y: 1\n\n\n# of a\na: 1\n", "m:\n  y: 1\n  x:\n    k: v\n\n\n# of a\na: 1\n"),
        ("m:\n  y: 1\n  # the last word\n", "m:\n  y: 1\n  x:\n    k: v\n  # the last word\n"),
        (
            "m:\n  y:\n    z: |\n      text\n\n      more\na: 1\n",
            "m:\n  y:\n    z: |\n      text\n\n      more\n  x:\n    k: v\na: 1\n",
        ),
        ("a: 1\r\nm:\r\n  y: 1\r\n", "a: 1\r\nm:\r\n  y: 1\r\n  x:\r\n    k: v\r\n"),
        ("\ufeffm:\n y: 1\n", "\ufeffm:\n y: 1\n x:\n   k: v\n"),
    ],
)
def test_an_entry_goes_behind_the_others(before: str, after: str) -> None:
    assert with_entry(before.encode(), "f.yaml", "m", "x", ["k: v"]).decode() == after
