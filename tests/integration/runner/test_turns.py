"""How turns of real runners end, and how their tokens are drawn."""

from __future__ import annotations

from collections import Counter

import pytest

from meltrepro.record.trial import RequestThinking
from tests.integration.runner.contract import DRAWN, END_OF_TURN, END_OF_TURN_MARK, FIRST, SECOND, STORY, Runner

pytestmark = pytest.mark.integration


def test_stop_by_length(runner: Runner) -> None:
    turn = runner(conversations=[[STORY]], max_tokens=7).turn
    assert (turn.stop, turn.n_gen) == ("length", 7)
    assert turn.n_past == turn.n_prompt + 6


def test_ignore_eos_gives_exactly_max_tokens(runner: Runner) -> None:
    turn = runner(ignore_eos=True, max_tokens=60).turn
    assert (turn.stop, turn.n_gen) == ("length", 60)
    assert len(turn.text) > 60, "the cap counts tokens; MELT's iPhones counted characters"
    assert END_OF_TURN not in turn.token_ids and 0 not in turn.token_ids


def test_stop_by_context_ends_the_conversation(runner: Runner) -> None:
    run = runner(conversations=[[STORY, SECOND], [FIRST]], context=48, max_tokens=1000, ignore_eos=True)
    cut, other = run.trace.turns
    assert (cut.stop, cut.n_past) == ("context", 48)
    # Every position is used, and one more token is sampled after the last.
    assert cut.n_gen == 48 - cut.n_prompt + 1
    assert other.n_past == 48


def test_prompt_that_does_not_fit_gets_no_answer(runner: Runner) -> None:
    run = runner(conversations=[[STORY * 4, SECOND], [FIRST]], context=40, max_tokens=4)
    refused, other = run.trace.turns
    assert (refused.stop, refused.n_gen, refused.n_past, refused.text) == ("context", 0, 0, "")
    assert refused.n_prompt > 40 and refused.prefill is None
    assert (other.stop, other.n_gen) == ("length", 4)


def test_prompt_that_just_fits_gets_one_token(runner: Runner) -> None:
    turn = runner(context=16, max_tokens=5).turn
    assert (turn.n_prompt, turn.n_gen, turn.stop, turn.n_past) == (16, 1, "context", 16)


def test_an_answer_that_was_cut_off_stays_in_the_conversation(runner: Runner) -> None:
    both = runner(conversations=[[STORY, SECOND]], max_tokens=7).trace
    cut, next_turn = both.turns
    assert next_turn.n_past == cut.n_past + 1 + next_turn.n_prompt + next_turn.n_gen - 1
    # The same conversation told at once: what the model has seen is the same.
    told = runner(conversations=[[STORY + cut.text + SECOND]], max_tokens=7).turn
    assert told.n_prompt == cut.n_prompt + cut.n_gen + next_turn.n_prompt
    assert told.token_ids == next_turn.token_ids


def test_answer_with_broken_characters_is_still_valid_json(runner: Runner) -> None:
    # So hot that every token is about as likely: a piece of a character comes in one of many answers, on any CPU.
    wild = DRAWN.model_copy(update={"temperature": 1000.0, "top_k": 0, "top_p": 1.0, "seed": 22})
    turns = runner(sampling=wild, conversations=[["a"]] * 12, max_tokens=32, ignore_eos=True).trace.turns
    assert [turn.n_gen for turn in turns] == [32] * 12
    assert any("\N{REPLACEMENT CHARACTER}" in turn.text for turn in turns)


def test_thinking_is_ended_by_its_budget(runner: Runner) -> None:
    """The mark is a text of several tokens for this model; and as a control token it has no text at all."""
    thinking = RequestThinking(begin="<think>", end="</think>", max_tokens=5)
    turn = runner(conversations=[[STORY + "<think>"]], thinking=thinking, ignore_eos=True, max_tokens=24).turn
    (thought,) = turn.thinking
    assert (thought.begin, thought.cut, turn.n_gen) == (0, True, 24)
    assert "</think>" in turn.text and turn.answer is not None and turn.text.endswith(turn.answer)
    assert [margin is None for margin in turn.margins] == [5 <= i < thought.end for i in range(24)]
    control = RequestThinking(begin="<think>", end=END_OF_TURN_MARK, max_tokens=5)
    turn = runner(conversations=[[STORY + "<think>"]], thinking=control, ignore_eos=True, max_tokens=24).turn
    assert (turn.thinking[0].end, turn.token_ids[5], turn.stop) == (6, END_OF_TURN, "length")


def test_drawn_tokens_follow_the_seed(runner: Runner) -> None:
    def tokens(seed: int, conversations: int = 1) -> list[tuple[int, ...]]:
        sampling = DRAWN.model_copy(update={"seed": seed})
        run = runner(sampling=sampling, conversations=[[STORY]] * conversations)
        return [turn.token_ids for turn in run.trace.turns]

    first, second = tokens(7, conversations=2)
    assert [first] == tokens(7)
    assert first != second
    # Each conversation has the seed of the first plus its number.
    assert [second] == tokens(8)


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-6}])
def test_sampling_without_choice_is_greedy(runner: Runner, narrow: dict[str, float]) -> None:
    assert runner(sampling=DRAWN.model_copy(update=narrow)).turn.token_ids == runner().turn.token_ids


def test_repeat_penalty_keeps_recent_tokens_away(runner: Runner) -> None:
    harsh = DRAWN.model_copy(update={"repeat_penalty": 1000.0, "repeat_last_n": 512, "top_k": 1})
    turn = runner(sampling=harsh, conversations=[[STORY]], max_tokens=60, ignore_eos=True).turn
    assert max(Counter(turn.token_ids).values()) == 1
