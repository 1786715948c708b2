"""The scorer of engines from wheels, with an engine that finds every token equally probable: what it scores and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from meltrepro import resources
from meltrepro.accuracy.questions import Question
from meltrepro.accuracy.scores import Score
from meltrepro.errors import RecordError
from meltrepro.frameworks.base import scorer_of
from meltrepro.record.trial import Mode, ScoringRequest

pytestmark = pytest.mark.machine
SCORER = scorer_of("onnxruntime")
Scored = Callable[[ScoringRequest, bytes], Sequence[Score]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    made = tmp_path_factory.mktemp("scorer") / "melt-scorer"
    runner, own = resources.runner(), resources.runner().parent / "prebuilt"
    sources = [own / "scorer.cpp", own / "expectations.cpp", Path(__file__).parent / "scorer_engine.cpp"]
    sources += [runner / f"{name}.cpp" for name in ("fields", "json", "signals")]
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-iquote", str(runner), "-iquote", str(own)]
    subprocess.run([compiler, *options, *map(str, sources), "-o", str(made)], check=True)
    return made


@pytest.fixture
def scored(program: Path, tmp_path: Path) -> Scored:
    """What comes of a request and its data; the scorer always ends well."""

    def score(request: ScoringRequest, data: bytes) -> Sequence[Score]:
        (tmp_path / "request.json").write_text(request.model_dump_json(exclude_none=True))
        (tmp_path / "data").write_bytes(data)
        command = [program, tmp_path / "request.json", tmp_path / "data"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return SCORER.read(request, done.stdout, done.stderr)

    return score


def request(mode: Mode, context: int, **more: int) -> ScoringRequest:
    task = "perplexity" if mode == "perplexity" else "piqa"
    return ScoringRequest(
        task=task,
        mode=mode,
        model="m",
        context=context,
        threads=1,
        batch=8,
        data="0" * 64,
        inputs={},
        options={},
        **more,
    )


def sheet(*lengths: int) -> bytes:
    """Questions with two answers, of so many characters and one more."""
    asked = [{"texts": ["a" * length, "a" * length + "b"], "gold": 0} for length in lengths]
    return json.dumps({"questions": asked}).encode()


def test_what_fits_is_scored(scored: Scored) -> None:
    (perplexity,) = scored(request("perplexity", 32), b"x" * 64)
    assert perplexity.value == pytest.approx(256)
    question = Question(1, "A kettle", ("boils", "flies"), 0)
    found = scored(request("answers", 64, questions=1), SCORER.sheet("answers", [question], "").content)
    assert [(score.metric, score.n) for score in found] == [("acc", 1), ("acc_sum", 1), ("acc_norm", 1)]


@pytest.mark.parametrize(
    ("asked", "data", "why"),
    [
        (
            request("perplexity", 65),
            b"x" * 200,
            "a context of 65 tokens is longer than the 64 that the model was trained for",
        ),
        (request("answers", 65, questions=1), sheet(8), "a context of 65 tokens is longer than the 64"),
        (request("answers", 16, questions=2), sheet(8, 20), "question 2 has 20 tokens, and 2 to 16 are expected"),
        (request("perplexity", 32), b"x" * 31, "the text has 31 tokens, which are 0 windows of 32"),
        (request("perplexity", 32, chunks=3), b"x" * 64, "the text has 64 tokens, which are 2 windows of 32"),
    ],
)
def test_what_does_not_fit_the_model_is_not_scored(
    scored: Scored, asked: ScoringRequest, data: bytes, why: str
) -> None:
    with pytest.raises(RecordError) as caught:
        scored(asked, data)
    assert caught.value.message.startswith(f"the scorer gave up: {why}")
