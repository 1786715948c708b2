"""What a device behind a link must come to with the bundle's own scorer: the scores of this machine, from a tiny model."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from meltrepro.accuracy.questions import Question
from meltrepro.accuracy.scores import Score, scores_in
from meltrepro.build.model import Artifact, Input
from meltrepro.campaign.trial import CellRun, run_trial
from meltrepro.frameworks.base import DATA, scorer_of
from meltrepro.frameworks.llamacpp.synthetic import pieces
from meltrepro.manifest.protocol import Measure
from meltrepro.manifest.shapes import SHAPES
from meltrepro.record.layout import Trial, TrialKind
from meltrepro.record.trial import STDOUT, Outcome, ScoringRequest, TrialState, parse_request
from meltrepro.targets.base import Target
from meltrepro.targets.host.options import HostOptions
from meltrepro.targets.host.target import HostTarget
from tests.integration.bundles import Bundle

SCORER = scorer_of("llama.cpp")
QUESTIONS = 6
CONTEXT, TOO_SHORT = 512, 32
WORDS = ("tea", "milk", "water", "bread", "salt")


def scores_there_as_here(target: Target, bundle: Path, folder: Path) -> None:
    """Score questions through the link and on this machine by the same program; then ask one that is too long."""
    digest = hashlib.sha256(bundle.name.encode()).hexdigest()
    program = Artifact("b", "bundle", digest, digest, bundle, bundle, 1)
    run = _run(target, program, _model(folder / "model"), folder / "sheet", CONTEXT)
    here = replace(run, target=HostTarget(HostOptions(sandbox="bare"), disk=folder, owner=str(folder)))
    outcome, found = _trial(run, folder / "over-there")
    assert (outcome.state, outcome.exit_code, outcome.reason) == (TrialState.ok, 0, None)
    assert found[0].n == QUESTIONS
    assert found == _trial(here, folder / "over-here")[1]
    assert (folder / "over-there" / STDOUT).read_bytes() == (folder / "over-here" / STDOUT).read_bytes()
    assert {"request.json", "stdout.log", "stderr.log"} <= set(outcome.files)
    asked = parse_request((folder / "over-there" / "request.json").read_bytes())
    assert isinstance(asked, ScoringRequest) and asked.model.endswith(run.model.digest)

    outcome, found = _trial(_run(target, program, run.model, folder / "sheet", TOO_SHORT), folder / "short")
    assert (outcome.state, outcome.exit_code, found) == (TrialState.failed, 0, ())
    assert str(outcome.failure).startswith("not-scored: the scorer gave up"), "it ends with status 0"


def _trial(run: CellRun, folder: Path) -> tuple[Outcome, tuple[Score, ...]]:
    ended = run_trial(run, Trial("cell", TrialKind.repetition, 0), 1, folder)
    assert isinstance(run.request, ScoringRequest)
    ok = ended.outcome.state is TrialState.ok
    return ended.outcome, scores_in(folder, run.request, SCORER.read) if ok else ()


def _model(path: Path) -> Artifact:
    """A model of a few megabytes with made-up weights."""
    with path.open("wb") as file:
        file.writelines(bytes(piece) for piece in pieces(SHAPES["tiny-llama"], 7))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Artifact("m", "model", digest, digest, path, path, path.stat().st_size)


def _run(target: Target, bundle: Artifact, model: Artifact, sheet: Path, context: int) -> CellRun:
    release = str(Bundle(bundle.path).facts["release"])
    questions = [
        Question(n + 1, f"Number {n} would like some" + " more" * 40, tuple(WORDS[: 2 + n % 4]), n % 2)
        for n in range(QUESTIONS)
    ]
    made = SCORER.sheet("multiple-choice", questions, release)
    sheet.write_bytes(made.content)
    data = Input(sheet, hashlib.sha256(made.content).hexdigest())
    request = ScoringRequest(
        task="piqa",
        mode="multiple-choice",
        model="",
        context=context,
        threads=1,
        batch=128,
        data=data.digest,
        inputs={DATA: data.digest},
        questions=made.questions,
        padding=made.padding,
        sequences=made.sequences,
    )
    return CellRun(
        bundle=bundle,
        model=model,
        runner_digest=bundle.digest,
        request=request,
        target=target,
        facts=target.identify(),
        timeout_s=60,
        measure=Measure(),
        scorer=SCORER,
        program=SCORER.program,
        arguments=SCORER.arguments(request, release),
        inputs={DATA: data},
    )
