"""Scores beside those of lm-evaluation-harness, whose log-probabilities come from numpy: the same items, the same weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.measure.records import read_campaign
from tests.integration import prebuilt
from tests.integration.conftest import ROOT, meltrepro
from tests.support.float_llama import FloatLlama

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
POINTS = 0.005
TASKS = {"piqa": "piqa/piqa.yaml", "arc-easy": "arc/arc_easy.yaml", "hellaswag": "hellaswag/hellaswag.yaml"}
"""Our names, and where lm-evaluation-harness has its own description."""
FACTS = (
    ("boil water", "heat it in a kettle on the stove", "put it into the fridge overnight"),
    ("dry wet hair", "use a hair dryer", "use a wet sponge and then a bucket of water"),
    ("open a tin", "use a tin opener", "blow on the lid"),
    ("keep bread fresh", "store it in a closed box", "leave it in the rain"),
    ("write a letter", "take a pen and paper", "take a spoon"),
    ("cross a river", "walk over the bridge", "run very fast"),
    ("see in the dark", "switch on a torch", "close your eyes and wait for the summer to come"),
    ("sharpen a pencil", "turn it in a sharpener", "dip it in milk"),
    ("clean a window", "wipe it with a damp cloth", "rub it with butter"),
    ("cut bread", "use a knife", "use a long piece of soft wool"),
    ("water a plant", "pour water on the soil", "pour sand over the leaves"),
    ("stay warm in winter", "wear a thick coat", "wear a swimsuit"),
    ("catch a fish", "use a rod and a hook", "use a newspaper of last week"),
    ("find north", "look at a compass", "look at a clock that has stopped"),
    ("mend a shirt", "sew it with needle and thread", "paint it"),
    ("make tea", "put the leaves into hot water", "put the leaves into the oven for three hours"),
)
"""A goal, a way to it, and none; of our own."""


def rows(task: str) -> tuple[list[Any], list[Any]]:
    """The items as we read them, and as lm-evaluation-harness does; the right one stands at another place each time."""
    ours: list[Any] = []
    theirs: list[Any] = []
    for i, (goal, right, wrong) in enumerate(FACTS):
        others = [FACTS[(i + step) % len(FACTS)][2] for step in (3, 7)]
        answers = [right, wrong] if task == "piqa" else [right, wrong, *others]
        gold = i % len(answers)
        answers = [*answers[1 : gold + 1], right, *answers[gold + 1 :]]
        if task == "piqa":
            options = "\n".join(f"{'AB'[n]}. {answer}" for n, answer in enumerate(answers))
            ours.append({"question": f"How to {goal}?", "options": options, "answer": f"{'AB'[gold]}. {right}"})
            theirs.append({"goal": f"How to {goal}?", "sol1": answers[0], "sol2": answers[1], "label": gold})
        elif task == "arc-easy":
            labels = list("ABCD")
            choices = [{"label": label, "text": text} for label, text in zip(labels, answers, strict=True)]
            stem = f"What is a good way to {goal}?"
            ours.append({"question": {"stem": stem, "choices": choices}, "answerKey": labels[gold]})
            theirs.append({"question": stem, "choices": {"text": answers, "label": labels}, "answerKey": labels[gold]})
        else:
            first, second = f"Somebody wants to {goal}.", "they"
            endings = [f"decide to {answer}." for answer in answers]
            both = {"activity_label": "At home", "ctx_a": first, "ctx_b": second, "endings": endings, "label": gold}
            ours.append({**both, "ctx": f"{first} {second}"})
            theirs.append({**both, "label": str(gold)})
    return ours, theirs


def lines(found: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in found)


def by_harness(folder: Path, model: FloatLlama) -> Mapping[str, Mapping[str, float]]:
    """Its own tasks, prompts and rules, on our items."""
    import lm_eval
    from lm_eval.api.model import TemplateLM
    from lm_eval.tasks import TaskManager

    def scored(_: object, requests: Any, **__: Any) -> list[tuple[float, bool]]:
        return [
            (float(model.log_probabilities([*given, *rest], len(given)).sum()), False) for _, given, rest in requests
        ]

    def refuse(_: object, requests: Any, **__: Any) -> Any:
        raise AssertionError("answers alone are scored")

    methods = {
        "eot_token_id": 0,
        "tok_encode": lambda _, string, **__: model.tokens(string),
        "_loglikelihood_tokens": scored,
        "loglikelihood_rolling": refuse,
        "generate_until": refuse,
    }
    answering = type("Numpy", (TemplateLM,), methods)()
    described = Path(lm_eval.__file__).parent / "tasks"
    for task, place in TASKS.items():
        (folder / f"{task}.theirs.jsonl").write_text(lines(rows(task)[1]))
        own = {"include": str(described / place), "task": f"own-{task}", "dataset_path": "json", "dataset_name": None}
        files = {"dataset_kwargs": {"data_files": {"validation": str(folder / f"{task}.theirs.jsonl")}}}
        splits = {"training_split": None, "validation_split": "validation", "test_split": None}
        (folder / f"{task}.yaml").write_text(yaml.safe_dump({**own, **files, **splits, "tag": None}))
    tasks = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=answering, tasks=[f"own-{task}" for task in TASKS], task_manager=tasks, bootstrap_iters=0
    )
    assert "torch" not in sys.modules
    results = {task: found["results"][f"own-{task}"] for task in TASKS}
    return {
        task: {"acc_sum": values["acc,none"], "acc_norm": values["acc_norm,none"]} for task, values in results.items()
    }


@dataclass(frozen=True)
class Both:
    ours: Mapping[str, Mapping[str, float]]
    """By task and metric."""
    theirs: Mapping[str, Mapping[str, float]]

    def table(self) -> str:
        head = "| task | items | `acc_sum` | lm-eval `acc` | `acc_norm` | lm-eval `acc_norm` | our mean |\n"
        found = head + "| --- | --- | --- | --- | --- | --- | --- |\n"
        for task in TASKS:
            pairs = [each[task][metric] for metric in ("acc_sum", "acc_norm") for each in (self.ours, self.theirs)]
            values = [*pairs, self.ours[task]["acc"]]
            found += f"| `{task}` | {len(FACTS)} | {' | '.join(f'{value:.4f}' for value in values)} |\n"
        return found


@pytest.fixture(scope="module")
def both(engine: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch) -> Both:
    folder = tmp_path_factory.mktemp("specs")
    workloads = {}
    for task in TASKS:
        (folder / f"{task}.jsonl").write_text(lines(rows(task)[0]))
        workloads[task] = {"task": task, "data": {"file": f"{task}.jsonl"}, "context": 128}
    spec = yaml.safe_load(prebuilt.SPEC)
    del spec["frameworks"]["mlc"], spec["frameworks"]["openvino"], spec["measure"]
    spec |= {"workloads": workloads, "models": {"smollm2-135m": {"quantizations": ["f16"]}}}
    engines = prebuilt.build(folder, yaml.safe_dump(spec))
    chosen = ("--only", "*/onnxruntime/*", "--no-track")
    done = meltrepro("run", engines.spec, *chosen, home=folder, MELTREPRO_LOCKS=str(folder / "locks"))
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = (folder / "records").iterdir()
    ours = {
        cell.entry.workload: {score.metric: score.value for score in cell.repetitions[0].scores}
        for cell in read_campaign(record).cells
    }
    (folder / "harness").mkdir()
    monkeypatch_module.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch_module.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    model = FloatLlama(engines.artifacts["smollm2-135m/f16/llama.cpp"])
    return Both(ours, by_harness(folder / "harness", model))


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("metric", ["acc_sum", "acc_norm"])
@pytest.mark.parametrize("task", TASKS)
def test_the_harness_comes_to_the_same_score(both: Both, task: str, metric: str) -> None:
    assert both.ours[task][metric] == pytest.approx(both.theirs[task][metric], abs=POINTS)


def test_the_page_has_what_was_found(both: Both) -> None:
    assert both.table() in (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8"), both.table()
