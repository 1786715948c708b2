"""Tiny random checkpoints of today's architectures, made by `transformers`: converted, quantized and run, they answer as it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from meltrepro.build.tool_run import run_tool
from meltrepro.frameworks.llamacpp import convert as llamacpp_convert
from meltrepro.record.trace import Turn
from tests.integration.bundles import Bundle
from tests.integration.conftest import meltrepro
from tests.integration.converting import NEW, OLD, Converters, convert, tools
from tests.integration.runner.contract import Runner
from tests.support import known_architectures, pages, random_models
from tests.support.checkpoints import write_tokenizer

pytestmark = pytest.mark.integration
WHOLE = {
    "qwen3": "tiny-qwen3",
    "llama-3": "tiny-llama-3",
    "gemma-3": "tiny-gemma-3",
    "phi-4-mini": "tiny-phi-4",
    "smollm3": "tiny-smollm3",
}
"""Families that are measured from a name to a report: the checkpoint of each, and its shape with a real tokenizer and template."""
QUICKLY = (
    *("protocol.repetitions=1", "protocol.warmups=0", "workloads.chat.max_tokens=8", "targets.host.threads=1"),
    "measure.limits.cpu_pressure=1",  # a machine that runs tests is busy
)
TEXT, COUNT = "the old house by the water was large and white", 24


@pytest.fixture(scope="module")
def made(converters: Converters, smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints, each with the tokenizer that its vocabulary is of."""
    tokenizer, scratch = tmp_path_factory.mktemp("tokenizer"), tmp_path_factory.mktemp("made")
    write_tokenizer(tokenizer, smollm2)
    program = Path(random_models.__file__)
    command = (*llamacpp_convert.INTERPRETER, f"/source/{program.name}", TEXT, str(COUNT))
    files = {f"/source/{path.name}": path for path in [program, *tokenizer.iterdir()]}
    log = scratch / "log"
    made = run_tool(tools("process").engine(), converters[NEW][0], command, files, scratch, log, "it", "folder")
    for folder in made.iterdir():
        for path in tokenizer.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    return made


@pytest.mark.parametrize(("release", "name"), [*((NEW, name) for name in random_models.CONFIGURATIONS), (OLD, "qwen2")])
def test_the_greedy_tokens_are_those_of_transformers(
    converters: Converters, runner_bundles: Mapping[str, Path], made: Path, tmp_path: Path, release: str, name: str
) -> None:
    answer: dict[str, Any] = json.loads((made / name / "answer.json").read_bytes())
    model = convert(tools("process"), converters[release][0], made / name, tmp_path / "made", "f32")
    turn = run(runner_bundles, release, model)
    assert turn.n_prompt == len(answer["prompt"])
    assert len({*answer["tokens"]}) > COUNT // 3, "a model that repeats itself agrees by chance"
    assert [*turn.token_ids] == answer["tokens"], f"the least margin is {answer['margin']}"


def run(bundles: Mapping[str, Path], release: str, model: Path) -> Turn:
    found = map(Bundle, bundles.values())
    bundle = next(each for each in found if (each.facts["release"], each.machine) == (release, "x86_64"))
    runner = Runner(bundle, model, model.parent)
    return runner(max_tokens=COUNT, ignore_eos=True, context=128, conversations=[[TEXT]]).turn


@pytest.mark.machine
def test_from_a_name_to_mlflow_and_a_report(made: Path, tmp_path: Path) -> None:
    first, *others = [*(str(made / name) for name in WHOLE), *(f"synthetic:{shape}" for shape in WHOLE.values())]
    home, tracking = tmp_path / "home", {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}

    def tool(*arguments: str | Path) -> str:
        done = meltrepro(*arguments, home=home, **tracking)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tool("init", tmp_path, "--model", first)
    spec = tmp_path / f"{Path(first).name}.yaml"
    for source in others:
        name = source.rpartition("/")[2].removeprefix("synthetic:")
        tool("model", "add", name, source, spec, "--quantizations", "q8_0")
    tool("run", spec, "--engine", "process", *(word for each in QUICKLY for word in ("--set", each)))
    outcomes = [json.loads(path.read_bytes()) for path in home.rglob("outcome.json")]
    assert {outcome["cell"].partition("/")[0] for outcome in outcomes} == {*WHOLE, *WHOLE.values()}
    assert all(outcome["state"] == "ok" for outcome in outcomes), outcomes
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking["MLFLOW_TRACKING_URI"])
    (experiment,) = [each.experiment_id for each in client.search_experiments() if each.name != "Default"]
    speeds = {
        run.data.params.get("model"): run.data.metrics.get("generation_tps") for run in client.search_runs([experiment])
    }
    assert {model for model, speed in speeds.items() if model and speed} == {*WHOLE, *WHOLE.values()}
    tool("report", "last", "-o", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert all(model in page for model in (*WHOLE, *WHOLE.values()))


def test_the_page_lists_what_the_releases_know() -> None:
    assert pages.made(*known_architectures.PLACE) == known_architectures.table(), (
        "write it anew with: python -m tests.support.known_architectures"
    )
