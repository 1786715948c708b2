"""The runner contract (docs/runner.md), kept by the real runners of every release on a real model."""

from __future__ import annotations

import subprocess

import pytest

from meltrepro.frameworks.llamacpp.module import RELEASES
from tests.integration.runner.contract import (
    END_OF_TURN,
    FIRST,
    SECOND,
    STORY,
    MakeRunner,
    Runner,
    assert_contract,
    changed,
)

pytestmark = pytest.mark.integration


def test_every_event_of_a_complete_run(runner: Runner) -> None:
    run = runner(conversations=[[FIRST, SECOND], [FIRST]])
    assert_contract(run, runner)
    first, second, again = run.trace.turns
    assert first.text == "The capital of France is Paris."
    assert first.n_prompt == 16 and first.stop == "eog" and first.token_ids[-1] == END_OF_TURN
    # The second conversation begins from nothing: same prompt, same answer.
    assert (again.token_ids, again.n_past) == (first.token_ids, first.n_past)
    assert second.n_past == first.n_past + second.n_prompt + second.n_gen - 1


def test_warm_up_is_marked_and_can_be_left_out(runner: Runner) -> None:
    (begin,) = [event for event in runner(warmup_tokens=9).events if event["e"] == "warmup_begin"]
    assert begin["n"] == 9
    without = runner(warmup_tokens=0)
    assert without.status == 0 and without.trace.warmup is None


@pytest.mark.parametrize("option", [{"threads": 2}, {"batch": 5}, {"warmup_tokens": 0}])
def test_greedy_tokens_depend_on_the_prompt_alone(runner: Runner, option: dict[str, int]) -> None:
    assert runner(**option).turn.token_ids == runner().turn.token_ids


def test_greedy_text_is_what_upstreams_own_program_says(runner: Runner) -> None:
    answer = runner(conversations=[[STORY]], max_tokens=40, batch=512).turn
    command = [*runner.bundle.command("main"), "-m", str(runner.model), "-p", STORY, "-n", "40", "-c", "512"]
    command += ["-t", "1", "-b", "512", "--temp", "0", "--repeat-penalty", "1.0"]
    if runner.bundle.facts["release"] < "2025":
        command += ["--log-disable"]
    else:
        command += ["-no-cnv", "--no-display-prompt", "--no-warmup"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=runner.folder).stdout
    # The older program prints the prompt too, with the markers as nothing.
    said = said.rpartition("assistant\n")[2].removesuffix("[end of text]").strip()
    assert answer.n_gen == 40
    assert said == answer.text.strip()


@pytest.mark.parametrize("release", sorted(RELEASES))
def test_contract_on_aarch64(make_runner: MakeRunner, release: str) -> None:
    runner = make_runner(release, "aarch64")
    run = runner(conversations=[[FIRST], [FIRST]], max_tokens=12)
    assert_contract(run, runner)
    assert [turn.text for turn in run.trace.turns] == ["The capital of France is Paris."] * 2
    bad = runner.run(changed(threads=0)(runner.request()))
    assert bad.status == 2
    assert "threads: expected" in bad.error["message"]
