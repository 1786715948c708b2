"""What every kind of target, and every target, promises (`meltrepro.targets.base`)."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, get_args

import pytest

from meltrepro.build.model import MODEL, Artifact, Input, PathOf
from meltrepro.errors import StoreError
from meltrepro.manifest.targets import TargetOptions
from meltrepro.plan.identity import canonical
from meltrepro.record.trial import Request, RequestSampling, ScoringRequest, parse_request
from meltrepro.settings import Settings
from meltrepro.targets.base import AGENT, LIBRARIES, RUNNER, Target, TargetKind, TrialJob

SCRIPT = """#!/bin/sh
# Stands in for a runner: the request and the events file are its only arguments.
echo said; echo complained >&2
grep -q '"model"' "$1" || exit 2
model=$(sed -n 's/.*"model": "\\(.*\\)".*/\\1/p' "$1")
[ ! -d "$model" ] || model=$model/part/weights
test "$(cat "$model")" = weights || exit 3
order=$(sed -n 's/.*"ORDER \\(.*\\)".*/\\1/p' "$1")
echo '{"e":"done"}' > "$2"
eval "$order"
"""


@dataclass(frozen=True)
class Bench:
    """A target and what a trial on it needs."""

    target: Target
    folder: Path
    agent: Path | None = None
    """The agent for the device's CPU, where trials on it need one."""

    @property
    def model(self) -> Artifact:
        """Not much of a model."""
        path = self.folder / "model"
        path.write_text("weights\n")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return Artifact("m", "model", digest, digest, path, path, path.stat().st_size)

    @property
    def folder_model(self) -> Artifact:
        """A model that is a folder."""
        path, packed = self.folder / "unpacked", self.folder / "packed"
        (path / "part").mkdir(parents=True)
        (path / "part/weights").write_text("weights\n")
        (path / "config.json").write_text("{}")
        packed.write_text("both")
        digest = hashlib.sha256(packed.read_bytes()).hexdigest()
        return Artifact("f", "model", digest, digest, packed, path, 4)

    def job(self, order: str, timeout_s: float = 30) -> TrialJob:
        bundle = self.folder / "bundle"
        runner = bundle / RUNNER
        if not runner.exists():
            runner.parent.mkdir(parents=True)
            runner.write_text(SCRIPT)
            runner.chmod(0o755)
            if self.agent is not None:
                shutil.copy(self.agent, bundle / AGENT)
        record = self.folder / "record"
        record.mkdir(exist_ok=True)
        digest = hashlib.sha256(b"bundle").hexdigest()
        artifact = Artifact("b", "bundle", digest, digest, bundle, bundle, 1)
        self.target.deploy(artifact, self.model)
        return TrialJob(
            artifact,
            self.model,
            request(f"ORDER {order}"),
            record,
            timeout_s,
        )


def request(prompt: str) -> Request:
    """What a runner is asked for."""
    return Request(
        model="",
        context=64,
        threads=1,
        batch=8,
        max_tokens=4,
        ignore_eos=False,
        sampling=RequestSampling(
            greedy=True, temperature=1, top_k=0, top_p=1, repeat_penalty=1, repeat_last_n=0, seed=1
        ),
        conversations=[[prompt]],
    )


SCORER = "bin/scorer"
SCORER_SCRIPT = """#!/bin/sh
# Stands in for a scorer: options, a file that it reads besides the model, and no events.
test "$1" = -m && test "$3" = --data && test "$5" = "a b" || exit 2
cat "$2" "$4"
echo "$0" >&2
"""


def scoring(bench: Bench) -> TrialJob:
    """A job that runs another program of the bundle, with a file of its own."""
    job = bench.job("exit 0")
    scorer, data = job.bundle.path / SCORER, bench.folder / "questions"
    if not scorer.exists():
        scorer.write_text(SCORER_SCRIPT)
        scorer.chmod(0o755)
    data.write_bytes(b"questions\\n\n")
    given = {"data": Input(data, hashlib.sha256(data.read_bytes()).hexdigest())}
    bench.target.deploy(job.bundle, job.model, program=SCORER, inputs=tuple(given.values()))
    arguments = ("-m", PathOf(MODEL), "--data", PathOf("data"), "a b")
    asked = ScoringRequest(
        task="piqa", mode="multiple-choice", model="", context=64, threads=1, batch=8, data="0" * 64, inputs={}
    )
    return replace(job, request=asked, program=SCORER, arguments=arguments, inputs=given)


class TargetKindContract:
    """What every kind of target is; inherit from it, and name the object."""

    kind: ClassVar[TargetKind]

    def test_what_a_kind_is(self, tmp_path: Path) -> None:
        settings = Settings(tmp_path / "cache", tmp_path / "home", offline=True, mirrors=None, jobs=1)
        assert self.kind.family in ("host", "phone", "board")
        assert issubclass(self.kind.options, TargetOptions)
        assert get_args(self.kind.options.model_fields["kind"].annotation) == (self.kind.kind,)
        assert self.kind.absent() is None or isinstance(self.kind.absent(), str)
        assert 0 < self.kind.most_w(1) <= self.kind.most_w(64) < 1e6
        assert all(callable(maker) for maker in self.kind.makers.values())
        assert self.kind.named("nobody's:device", settings) is None, "names of other kinds are left to them"
        found = self.kind.named(f"{self.kind.kind}:00008110-001A2B3C4D5E6F70", settings)
        assert found is None or found.kind == self.kind.kind


class TargetContract:
    """What every target promises; inherit from it where there is a fixture `bench`, and run pytest."""

    def test_its_identity_stays(self, bench: Bench) -> None:
        one, other = bench.target.identify(), bench.target.identify()
        assert one.id == other.id
        assert one.id
        assert one.cores >= 1
        assert one.memory_bytes > 0
        assert one.disk_free_bytes > 0
        assert canonical(one), "facts go into records"

    def test_its_clocks_run(self, bench: Bench) -> None:
        bench.job("exit 0")
        before = bench.target.state()
        time.sleep(0.05)
        after = bench.target.state()
        assert 0.05e9 <= after.monotonic_ns - before.monotonic_ns < 30e9
        assert abs((after.wall_ns - before.wall_ns) - (after.monotonic_ns - before.monotonic_ns)) < 1e9
        assert canonical(after)

    def test_the_quick_clock_is_the_same_one(self, bench: Bench) -> None:
        bench.job("exit 0")
        quick = [bench.target.clock_ns() for _ in range(5)]
        assert quick == sorted(quick)
        assert 0 <= bench.target.state().monotonic_ns - quick[-1] < 30e9

    def test_what_can_be_sampled_has_names_of_its_own(self, bench: Bench) -> None:
        names = [source.name for source in bench.target.sources()]
        assert names
        assert len(set(names)) == len(names)

    def test_a_model_may_be_a_folder(self, bench: Bench) -> None:
        job = replace(bench.job("exit 0"), model=bench.folder_model)
        bench.target.deploy(job.bundle, job.model)
        assert bench.target.run_trial(job).exit_code == 0

    def test_a_trial_that_ends_well(self, bench: Bench) -> None:
        job = bench.job("exit 0")
        result = bench.target.run_trial(job)
        assert (result.exit_code, result.timed_out, result.out_of_memory) == (0, False, False)
        assert 0 < result.duration_s < 30
        assert (job.folder / "events.jsonl").read_text() == '{"e":"done"}\n'
        assert (job.folder / "stdout.log").read_text() == "said\n"
        assert (job.folder / "stderr.log").read_text() == "complained\n"
        request = json.loads((job.folder / "request.json").read_text())
        assert request["model"]
        assert Request.model_validate(request).model_copy(update={"model": ""}) == job.request

    @pytest.mark.parametrize("status", [1, 6, 126])
    def test_a_trial_that_fails(self, bench: Bench, status: int) -> None:
        result = bench.target.run_trial(bench.job(f"exit {status}"))
        assert (result.exit_code, result.timed_out) == (status, False)

    def test_a_trial_that_dies_of_a_signal(self, bench: Bench) -> None:
        assert bench.target.run_trial(bench.job("kill -SEGV $$")).exit_code == 128 + 11

    def test_a_trial_that_hangs_is_stopped_with_its_children(self, bench: Bench) -> None:
        result = bench.target.run_trial(bench.job("sleep 1000 & sleep 1000", timeout_s=0.5))
        assert result.timed_out
        assert result.exit_code != 0
        assert bench.target.stop_strays() == 0, "nothing is left for a later sweep"

    def test_a_runner_that_is_none(self, bench: Bench) -> None:
        runner = bench.job("exit 0").bundle.path / RUNNER
        runner.write_bytes(b"\x7fELF but not really")
        job = bench.job("exit 0")
        assert bench.target.run_trial(job).exit_code == 126
        first, colon, _ = (job.folder / "stderr.log").read_text().partition(":")
        assert colon
        assert first.endswith("melt-runner")

    def test_a_second_trial_finds_nothing_of_the_first(self, bench: Bench) -> None:
        bench.target.run_trial(bench.job("exit 1"))
        job = bench.job("exit 0")
        (job.folder / "events.jsonl").unlink()
        assert bench.target.run_trial(job).exit_code == 0
        assert (job.folder / "events.jsonl").exists()

    def test_a_record_that_cannot_be_written(self, bench: Bench) -> None:
        job = bench.job("exit 0")
        job.folder.rmdir()
        with pytest.raises(StoreError, match="record"):
            bench.target.run_trial(job)


class AnyProgramContract(TargetContract):
    """The same of targets on which any program of a bundle can run, and not its runner alone."""

    def test_another_program_of_the_bundle(self, bench: Bench) -> None:
        job = scoring(bench)
        result = bench.target.run_trial(job)
        assert (result.exit_code, result.timed_out, result.out_of_memory) == (0, False, False)
        assert (job.folder / "stdout.log").read_bytes() == b"weights\nquestions\\n\n"
        assert (job.folder / "stderr.log").read_text().strip().endswith("scorer")
        written = parse_request((job.folder / "request.json").read_bytes())
        assert isinstance(written, ScoringRequest)
        assert written.model
        assert written.model_copy(update={"model": ""}) == job.request

    def test_a_runner_finds_the_libraries_of_its_bundle(self, bench: Bench) -> None:
        order = "for lib in ${0%/*}/lib ${0%/*}/../lib; do test -f $lib/deep/note && exit 7; done"
        job = bench.job(order)
        assert bench.target.run_trial(job).exit_code != 7
        note = job.bundle.path / LIBRARIES / "deep" / "note"
        note.parent.mkdir(parents=True)
        note.write_text("a library")
        assert bench.target.run_trial(bench.job(order)).exit_code == 7

    def test_another_program_that_is_killed(self, bench: Bench) -> None:
        job = scoring(bench)
        (job.bundle.path / SCORER).write_text("#!/bin/sh\nkill -KILL $$\n")
        bench.target.deploy(job.bundle, job.model, program=SCORER, inputs=tuple(job.inputs.values()))
        assert bench.target.run_trial(job).exit_code == 128 + 9
