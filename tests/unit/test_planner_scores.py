"""Cells that score: what they need besides the model, and which are skipped or told to be slips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.errors import ManifestError
from meltrepro.frameworks.base import Framework, Release, SkipKind
from meltrepro.frameworks.llamacpp.scorer import PerplexityScorer
from meltrepro.frameworks.prebuilt.scorer import LogitsScorer
from meltrepro.manifest.loader import load_manifest
from meltrepro.plan.model import Plan
from meltrepro.plan.planner import make_plan
from meltrepro.registry import FRAMEWORKS
from tests.support.frameworks import Fake
from tests.unit.test_planner import ALPHA, BASE, BETA, HOST, merged

QUESTIONS = {"task": "piqa", "data": {"file": "x"}}
DIVERGENCE = {"task": "kl-divergence", "text": {"file": "x"}}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (replace(ALPHA, scorer=PerplexityScorer()), BETA):
        monkeypatch.setitem(FRAMEWORKS.loaded, each.kind, each)


def scored(folder: Path, workload: Mapping[str, Any], changes: Mapping[str, Any] = {}) -> Plan:
    path = folder / "spec.yaml"
    document = merged({**BASE, "workloads": {"w": dict(workload)}}, changes)
    source = document["models"]["m"]["source"]
    if "synthetic" in source:
        del source["file"]
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return make_plan(load_manifest(path), {"host": HOST})


def test_questions_need_no_more_than_the_model(tmp_path: Path) -> None:
    made = scored(tmp_path, QUESTIONS)
    assert [cell.id for cell in made.cells] == ["m/q8_0/alpha/host/w"]
    assert made.logits == ()
    assert [node.id for node in made.models] == ["m/q8_0/alpha"]


def test_a_divergence_needs_the_unquantized_model_and_what_it_expects(tmp_path: Path) -> None:
    made = scored(tmp_path, DIVERGENCE, {"models": {"m": {"quantizations": ["q8_0", "q4_0"]}}})
    (node,) = made.logits
    assert node.id == "m/f16/alpha/logits/w"
    assert {cell.logits_id for cell in made.cells} == {node.id}
    assert [model.id for model in made.models] == ["m/q8_0/alpha", "m/q4_0/alpha", "m/f16/alpha"]
    assert (node.model.id, node.bundle.id) == ("m/f16/alpha", "alpha/run/new"), "of the quantizer's level"


MADE_UP = {"models": {"m": {"source": {"synthetic": "tiny-llama"}, "quantizations": ["q8_0"]}}}


@pytest.mark.parametrize(
    ("workload", "changes", "expected"),
    [
        (
            QUESTIONS,
            {"frameworks": {"alpha": {"kind": "beta"}}, "models": {"m": {"quantizations": ["int4"]}}},
            "framework alpha has no scorer",
        ),
        (
            DIVERGENCE | {"against": "int4"},
            {"frameworks": {"beta": {"release": "2024-02-27"}}, "models": {"m": {"quantizations": ["q8_0"]}}},
            "framework alpha does not offer quantization int4 to compare with",
        ),
        (QUESTIONS, MADE_UP, "model m is synthetic: its weights were made up, and have no accuracy"),
        (DIVERGENCE, MADE_UP, "model m is synthetic: its weights were made up, and have no accuracy"),
        (QUESTIONS | {"context": 9999}, {"models": {"m": {"context": 2048}}}, "needs a context of 9999 tokens"),
    ],
)
def test_what_cannot_be_scored_is_skipped(
    tmp_path: Path, workload: Mapping[str, Any], changes: Mapping[str, Any], expected: str
) -> None:
    made = scored(tmp_path, workload, changes)
    assert expected in made.skipped[0].reason
    assert (made.cells, made.logits) == ((), ())


class Choosy(PerplexityScorer):
    def refusal(self, task: str) -> str | None:
        return "which it never learned" if task == "kl-divergence" else None


def test_a_task_that_a_scorer_does_not_know_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FRAMEWORKS.loaded, ALPHA.kind, replace(ALPHA, scorer=Choosy()))
    skips = [(skip.kind, skip.reason) for skip in scored(tmp_path, DIVERGENCE).skipped]
    assert (SkipKind.accuracy, "framework alpha has no scorer for kl-divergence, which it never learned") in skips


class Referring(Fake):
    """Of which another writes down what its unquantized models expect."""

    def reference(self, release: Release) -> tuple[Framework, Release]:
        other: Framework = FRAMEWORKS.get(ALPHA.kind)
        return other, other.releases()["2024-02-27"]


GAMMA = {"gamma": {"release": "2024-02-27"}}


@pytest.fixture
def referring(monkeypatch: pytest.MonkeyPatch) -> None:
    gamma = Referring("gamma", ALPHA.variants, {"q4_0": 4.5}, scorer=LogitsScorer())
    monkeypatch.setitem(FRAMEWORKS.loaded, "gamma", gamma)


def compared(folder: Path, frameworks: Mapping[str, Any], against: str = "f16") -> Plan:
    models = {"m": {"quantizations": ["q4_0"]}}
    document = merged(BASE, {"models": models, "workloads": None})
    document |= {"frameworks": dict(frameworks), "workloads": {"w": DIVERGENCE | {"against": against}}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(document))
    return make_plan(load_manifest(folder / "spec.yaml"), {"host": HOST})


@pytest.mark.usefixtures("referring")
def test_another_framework_may_write_down_what_is_expected(tmp_path: Path) -> None:
    """Its programs and its model, with quantizations that it alone has."""
    made = compared(tmp_path, {**GAMMA, "alpha": {"release": "2024-02-27"}})
    (node,) = made.logits
    assert node.id == "m/f16/alpha/logits/w", "the manifest's own, where it is as it usually is"
    assert {cell.logits_id for cell in made.cells} == {node.id}

    made = compared(tmp_path, GAMMA)
    (node,) = made.logits
    assert node.id == "m/f16/alpha-2024-02-27/logits/w"
    assert [(model.id, model.kind) for model in made.models] == [
        ("m/q4_0/gamma", "gamma"),
        ("m/f16/alpha-2024-02-27", "alpha"),
    ]
    others = ["alpha-2024-02-27/run/new", "alpha-2024-02-27/quantize/new"]
    assert [bundle.id for bundle in made.bundles] == ["gamma/run/new", "gamma/quantize/new", *others]
    assert made.options(node.model) == ALPHA.options()
    assert made.options(made.models[0]) == made.manifest.frameworks["gamma"].options


@pytest.mark.usefixtures("referring")
def test_a_framework_of_that_name_stays_what_it_is(tmp_path: Path) -> None:
    taken = {"alpha-2024-02-27": {"kind": "beta", "release": "2024-02-27"}}
    made = compared(tmp_path, {**GAMMA, **taken})
    assert [node.id for node in made.logits] == ["m/f16/alpha-2024-02-27-reference/logits/w"]


@pytest.mark.usefixtures("referring")
def test_only_what_the_other_framework_has_can_be_compared_with(tmp_path: Path) -> None:
    made = compared(tmp_path, {**GAMMA, "beta": {"release": "2024-02-27"}}, "int4")
    reason = "framework alpha-2024-02-27 does not offer quantization int4 to compare with"
    assert reason in [skip.reason for skip in made.skipped]


def test_a_slip_in_what_to_compare_with_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ManifestError, match=r"workloads\.w\.against: unknown quantization 'f61' \(did you mean 'f16'\?\)"
    ):
        scored(tmp_path, DIVERGENCE | {"against": "f61"})
