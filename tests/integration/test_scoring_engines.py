"""The same questions and the same text by every engine that gives logits, held against llama.cpp's own scorer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from meltrepro.accuracy.scores import Score
from meltrepro.frameworks.base import framework
from meltrepro.frameworks.prebuilt.module import WheelFramework
from meltrepro.measure.records import CellRecord, read_campaign
from meltrepro.registry import FRAMEWORKS
from tests.integration.conftest import ROOT, meltrepro

pytestmark = [pytest.mark.machine, pytest.mark.usefixtures("engine")]
ENGINES = [kind for kind in FRAMEWORKS.kinds() if isinstance(framework(kind), WheelFramework)]
THINGS = ("kettle", "spoon", "window", "letter", "boat", "garden")
PLACES = ("kitchen", "drawer", "wall", "envelope", "harbour", "yard")
FLOATS = ("f16", "q0f16")
"""Names of the scheme of 16-bit floats."""


def questions(folder: Path) -> None:
    """Of our own, in the forms of ARC, HellaSwag and WinoGrande."""
    arc, hellaswag, winogrande = [], [], []
    for i, (thing, place) in enumerate(zip(THINGS, PLACES, strict=True)):
        others = [PLACES[(i + step) % len(PLACES)] for step in (0, 2, 3, 5)]
        choices = [{"label": "ABCD"[n], "text": f"In the {other}"} for n, other in enumerate(others)]
        arc.append({"question": {"stem": f"Where is the {thing}?", "choices": choices}, "answerKey": "A"})
        endings = [f"finds the {thing} in the {other}." for other in others]
        hellaswag.append(
            {"activity_label": "Searching", "ctx": "Somebody looks around and", "endings": endings, "label": 0}
        )
        sentence = f"The {thing} is not in the {place}, because the _ was taken away yesterday."
        winogrande.append({"sentence": sentence, "option1": thing, "option2": place, "answer": "1"})
    for name, rows in (("arc", arc), ("hellaswag", hellaswag), ("winogrande", winogrande)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], CellRecord]:
    """By framework and workload; floats of 16 bits, with which no engine rounds what it multiplies."""
    folder = tmp_path_factory.mktemp("scoring")
    questions(folder)
    model = yaml.safe_load((ROOT / "specs" / "common" / "models.yaml").read_text())["models"]["smollm2-135m"]
    text = {"file": str(ROOT / "specs" / "texts" / "harbour.txt")}
    document = {
        "meltrepro": 1,
        "name": "scoring",
        "models": {"m": {**model, "quantizations": [*FLOATS], "redistributable": False}},
        "frameworks": {"llama.cpp": {"release": "2026-10-01"}, **{kind: latest(kind) for kind in ENGINES}},
        "targets": {"host": {"threads": 1}},
        "workloads": {
            "arc": {"task": "arc-easy", "data": {"file": "arc.jsonl"}, "context": 128},
            "hellaswag": {"task": "hellaswag", "data": {"file": "hellaswag.jsonl"}, "context": 128},
            "winogrande": {"task": "winogrande", "data": {"file": "winogrande.jsonl"}, "context": 128},
            "text": {"task": "perplexity", "text": text, "context": 64, "chunks": 2},
        },
        "protocol": {"order": "as-written"},
    }
    (folder / "spec.yaml").write_text(yaml.safe_dump(document))
    done = meltrepro("run", folder / "spec.yaml", "--no-track", home=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = (folder / "records").iterdir()
    return {(cell.entry.framework, cell.entry.workload): cell for cell in read_campaign(record).cells}


def latest(kind: str) -> dict[str, str]:
    return {"release": [*framework(kind).releases()][-1]}


def score(cell: CellRecord) -> Score:
    """By the rule that all scorers know."""
    (repetition,) = cell.repetitions
    return repetition.scores[0]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workload", ["arc", "hellaswag", "winogrande"])
def test_the_same_answers_on_the_same_questions(
    cells: dict[tuple[str, str], CellRecord], engine: str, workload: str
) -> None:
    ours, theirs = score(cells[engine, workload]), score(cells["llama.cpp", workload])
    assert (ours.n, ours.k) == (theirs.n, theirs.k)
    assert ours.k not in (0, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_text_is_as_probable(cells: dict[tuple[str, str], CellRecord], engine: str) -> None:
    ours, theirs = score(cells[engine, "text"]), score(cells["llama.cpp", "text"])
    assert ours.n == theirs.n
    assert ours.value == pytest.approx(theirs.value, rel=0.01)
    assert ours.stderr == pytest.approx(theirs.stderr, rel=0.05)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_an_engine_was_told_stands_in_the_request(cells: dict[tuple[str, str], CellRecord], engine: str) -> None:
    ours, theirs = (cells[name, "arc"].repetitions[0].scoring for name in (engine, "llama.cpp"))
    assert ours is not None and ours.options
    assert theirs is not None and theirs.options is None, "its scorer takes none"
