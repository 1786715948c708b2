"""The runner contract and its faults, kept by every engine from wheels: the very tests that llama.cpp's runners pass."""

from __future__ import annotations

import resource
import signal
import time
from pathlib import Path

import pytest

from meltrepro.frameworks.base import framework
from meltrepro.frameworks.prebuilt.module import WheelFramework
from meltrepro.registry import FRAMEWORKS
from tests.integration import prebuilt
from tests.integration.prebuilt import Engines
from tests.integration.runner.contract import STORY, Runner
from tests.integration.runner.test_context_uses import (
    test_a_depth_that_the_context_does_not_hold_is_refused,
    test_a_filled_context_is_charged_to_no_turn,
    test_a_wrong_length_is_refused,
    test_lengths_are_read_and_written,
    test_loads_are_cold_or_warm_as_asked,
)
from tests.integration.runner.test_profile import (
    test_a_sync_mark_before_and_after,
    test_pauses_lie_between_turns_and_between_conversations,
)
from tests.integration.runner.test_requests import (
    test_being_stopped,
    test_context_that_cannot_be_had,
    test_events_that_cannot_be_written,
    test_request_that_is_not_there,
    test_wrong_command_line,
)
from tests.integration.runner.test_turns import (
    test_drawn_tokens_follow_the_seed,
    test_ignore_eos_gives_exactly_max_tokens,
    test_prompt_that_does_not_fit_gets_no_answer,
    test_prompt_that_just_fits_gets_one_token,
    test_repeat_penalty_keeps_recent_tokens_away,
    test_stop_by_context_ends_the_conversation,
    test_stop_by_length,
)

__all__ = [
    "test_a_depth_that_the_context_does_not_hold_is_refused",
    "test_a_filled_context_is_charged_to_no_turn",
    "test_a_sync_mark_before_and_after",
    "test_a_wrong_length_is_refused",
    "test_being_stopped",
    "test_context_that_cannot_be_had",
    "test_drawn_tokens_follow_the_seed",
    "test_events_that_cannot_be_written",
    "test_ignore_eos_gives_exactly_max_tokens",
    "test_lengths_are_read_and_written",
    "test_loads_are_cold_or_warm_as_asked",
    "test_pauses_lie_between_turns_and_between_conversations",
    "test_prompt_that_does_not_fit_gets_no_answer",
    "test_prompt_that_just_fits_gets_one_token",
    "test_repeat_penalty_keeps_recent_tokens_away",
    "test_request_that_is_not_there",
    "test_stop_by_context_ends_the_conversation",
    "test_stop_by_length",
    "test_wrong_command_line",
]
pytestmark = pytest.mark.integration
ENGINES = [kind for kind in FRAMEWORKS.kinds() if isinstance(framework(kind), WheelFramework)]


@pytest.fixture(scope="module")
def engines(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return prebuilt.build(tmp_path_factory.mktemp("specs"))


@pytest.fixture(params=ENGINES)
def runner(engines: Engines, request: pytest.FixtureRequest, tmp_path: Path) -> Runner:
    return engines.runner(request.param, tmp_path)


def test_one_that_is_killed_leaves_no_end(runner: Runner) -> None:
    process, events = runner.start(runner.request(conversations=[[STORY]] * 200, ignore_eos=True, max_tokens=32))
    try:
        deadline = time.monotonic() + 60
        while not (events.is_file() and "turn_end" in events.read_text()):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert '"done"' not in events.read_text()


def test_its_threads_sleep_when_nothing_is_to_be_done(runner: Runner) -> None:
    """A pause of three seconds costs no CPU: nobody waits busily for longer than a moment."""

    def used_s(pause_ms: int) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        two = [[STORY], [STORY]]
        assert runner(conversations=two, threads=2, max_tokens=2, conversation_pause_ms=pause_ms).status == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime

    assert used_s(3000) - used_s(0) < 1.5


@pytest.mark.parametrize(
    ("field", "value"),
    [("speculate", {"tokens": 4, "ngram": 2}), ("sequences", 2), ("restore", True)],
)
def test_what_an_engine_cannot_do_with_a_context_is_refused(runner: Runner, field: str, value: object) -> None:
    run = runner.run({**runner.request(ignore_eos=True), field: value})
    assert run.status == 2 and field in run.error["message"]
