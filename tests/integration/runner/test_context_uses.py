"""What real runners do with a context besides filling it with texts."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from meltrepro.measure.metrics import compute
from meltrepro.record.trial import RequestSpeculation, RequestTokens
from tests.integration.runner.contract import BOS, DRAWN, FIRST, GREEDY, N_VOCAB, SECOND, STORY, Runner, changed

pytestmark = pytest.mark.integration

READ, WRITE = RequestTokens(tokens=48, max_tokens=1), RequestTokens(tokens=1, max_tokens=9)
LISTED = "<|im_start|>user\nSay this five times: one two three four five six.<|im_end|>\n<|im_start|>assistant\n"


def test_lengths_are_read_and_written(runner: Runner) -> None:
    trace = runner(conversations=[[READ], [WRITE]], ignore_eos=True, max_tokens=5).trace
    read, write = trace.turns
    assert [(turn.n_prompt, turn.n_gen, turn.n_past) for turn in (read, write)] == [(48, 1, 48), (1, 9, 9)]
    values = compute(trace).values
    assert read.prefill is not None and write.prefill is not None
    assert values["prefill_tps"] == pytest.approx(48e9 / (read.prefill.end_ns - read.prefill.begin_ns))
    assert values["generation_tps"] == pytest.approx(8e9 / (write.token_ns[-1] - write.token_ns[0]))
    assert values["ttft_ms"] == pytest.approx((read.token_ns[0] - read.begin_ns) / 1e6)


def test_a_filled_context_is_charged_to_no_turn(runner: Runner) -> None:
    trace = runner(conversations=[[READ], [WRITE]], depth=100, ignore_eos=True, max_tokens=5).trace
    assert [turn.n_past for turn in trace.turns] == [148, 109]
    for conversation in trace.conversations:
        assert conversation.fill is not None and conversation.fill.n == 100
        assert conversation.fill.span.end_ns <= conversation.turns[0].begin_ns
    # What fills it is what a prompt of that length would be, so the same follows.
    (whole,) = runner(conversations=[[RequestTokens(tokens=148)]], ignore_eos=True, max_tokens=1).trace.turns
    again, _ = runner(conversations=[[READ], [WRITE]], depth=100, ignore_eos=True, max_tokens=5).trace.turns
    assert again.token_ids == trace.turns[0].token_ids
    assert whole.n_past == again.n_past


def test_a_depth_that_the_context_does_not_hold_is_refused(runner: Runner) -> None:
    run = runner(conversations=[[READ]], depth=600)
    assert run.status == 5 and "600" in run.error["message"]


@pytest.mark.parametrize(
    ("turn", "field"),
    [
        ({"tokens": 0}, "tokens"),
        ({"tokens": 4, "max_tokens": 0}, "max_tokens"),
        ({"token": 4}, "token"),
        ({}, "tokens"),
    ],
)
def test_a_wrong_length_is_refused(runner: Runner, turn: dict[str, int], field: str) -> None:
    run = runner.run(changed(conversations=[[turn]])(runner.request()))
    assert run.status == 2 and f"conversations[0][0].{field}" in run.error["message"]


def test_a_context_from_a_file_is_that_which_was_kept(runner: Runner) -> None:
    asked: dict[str, Any] = {"conversations": [[READ], [WRITE]], "depth": 60, "ignore_eos": True, "max_tokens": 5}
    kept, restored = (runner(**asked, restore=restore).trace for restore in (None, True))
    assert [turn.token_ids for turn in restored.turns] == [turn.token_ids for turn in kept.turns]
    assert [turn.n_past for turn in restored.turns] == [turn.n_past for turn in kept.turns]
    values = compute(restored).values
    assert values["context_file_bytes"] > 60 * 30 * 3 * 64 * 2 * 2
    assert 0 < values["restore_ms"] < values["ttft_ms"]
    assert [path.name for path in runner.folder.iterdir() if path.name.endswith(".context")] == []


def test_answers_abreast_are_those_of_one(runner: Runner) -> None:
    asked: dict[str, Any] = {"conversations": [[FIRST], [STORY]], "ignore_eos": True, "max_tokens": 12}
    alone, abreast = (runner(**asked, sequences=count).trace for count in (None, 3))
    assert [turn.sequences for turn in abreast.turns] == [3, 3]
    assert [turn.token_ids[:4] for turn in abreast.turns] == [turn.token_ids[:4] for turn in alone.turns]
    assert abreast.context.n_ctx == alone.context.n_ctx
    one, three = compute(alone).values, compute(abreast).values
    assert three["generated_tokens"] == 3 * one["generated_tokens"]
    turn = abreast.turns[0]
    assert compute(runner(**{**asked, "conversations": [[FIRST]]}, sequences=3).trace).values["generation_tps"] > 0
    assert turn.n_written == 3 * 11


@pytest.mark.parametrize("depth", [None, 50])
def test_each_of_several_may_read_the_prompt(runner: Runner, depth: int | None) -> None:
    """In steps that hold as much of each; what follows is what followed one that was read once."""
    asked: dict[str, Any] = {"conversations": [[FIRST, SECOND], [STORY]], "ignore_eos": True, "max_tokens": 12}
    asked |= {"sequences": 3, "batch": 32, "depth": depth}
    shared, each = (runner(**asked, shared_prompt=said).trace for said in (None, False))
    assert [turn.readers for turn in shared.turns] == [1, 1, 1]
    assert [turn.readers for turn in each.turns] == [3, 3, 3]
    assert [turn.n_past for turn in each.turns] == [turn.n_past for turn in shared.turns]
    assert [turn.token_ids[:4] for turn in each.turns] == [turn.token_ids[:4] for turn in shared.turns]
    prompts = sum(turn.n_prompt for turn in each.turns)
    values = compute(each).values
    assert values["prompt_tokens"] == 3 * prompts and compute(shared).values["prompt_tokens"] == prompts
    took = sum(turn.prefill.end_ns - turn.prefill.begin_ns for turn in each.turns if turn.prefill is not None)
    assert values["prefill_tps"] == pytest.approx(3 * prompts * 1e9 / took)


def test_a_step_holds_one_token_of_each(runner: Runner) -> None:
    run = runner(sequences=4, batch=3, ignore_eos=True)
    assert run.status == 2 and "does not hold one of each" in run.error["message"]


def test_answers_abreast_need_one_length(runner: Runner) -> None:
    run = runner(sequences=2)
    assert run.status == 2 and "sequences" in run.error["message"]


# -- speculation ------------------------------------------------------------------------------------------------------


def test_a_model_that_drafts_for_itself_is_always_right(runner: Runner) -> None:
    itself = RequestSpeculation(tokens=4, model=str(runner.model))
    asked: dict[str, Any] = {"conversations": [[STORY, SECOND], [FIRST]], "max_tokens": 30}
    plain, drafted = runner(**asked).trace, runner(**asked, speculate=itself).trace
    assert [turn.token_ids for turn in drafted.turns] == [turn.token_ids for turn in plain.turns]
    assert [turn.n_past for turn in drafted.turns] == [turn.n_past for turn in plain.turns]
    assert drafted.draft is not None and drafted.draft.n_params == drafted.load.n_params
    for turn in drafted.turns:
        assert turn.drafted is not None
        # Whatever an end of the answer cut off was right, too, but nobody asked for it.
        assert turn.drafted.accepted >= turn.drafted.tokens - 4
        assert turn.steps <= -(-(turn.n_gen - 1) // 5) + 1
    told = compute(drafted).values
    assert told["accepted_share"] > 0.9 and told["step_tokens"] > 4
    assert "itl_p1_ms" not in told and "itl_p50_ms" in told  # several tokens come at once


def made_up(count: int, seed: int) -> list[int]:
    """The tokens of a length: BOS, then Knuth's MMIX generator; none of these few ends an answer."""
    tokens, state = [BOS], seed
    while len(tokens) < count:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        tokens.append((state >> 33) % N_VOCAB)
    return tokens


def foreseen(written: Sequence[int], ngram: int, most: int) -> Sequence[int]:
    """What followed the last tokens where they stood before."""
    places = [at for at in range(len(written) - ngram) if written[at : at + ngram] == written[-ngram:]]
    return written[places[-1] + ngram :][:most] if places else []


def rate(prompt: Sequence[int], answer: Sequence[int], ngram: int, most: int) -> tuple[int, int]:
    """How many tokens of an answer are drafted, and how many of them rightly."""
    drafted = accepted = 0
    i = 1  # tokens that are written
    while i < len(answer):
        draft = foreseen([*prompt, *answer[:i]], ngram, min(most, len(answer) - i - 1))
        right = next((n for n, each in enumerate(draft) if each != answer[i + n]), len(draft))
        drafted, accepted = drafted + len(draft), accepted + right
        i += right + 1
    return drafted, accepted


@pytest.mark.parametrize("ngram", [1, 3])
def test_the_rate_is_that_of_the_text(runner: Runner, ngram: int) -> None:
    """Nothing but the tokens that were written decides what is foreseen, and what of it is right."""
    speculate = RequestSpeculation(tokens=5, ngram=ngram)
    prompt = RequestTokens(tokens=8)
    turn = runner(conversations=[[prompt]], max_tokens=120, ignore_eos=True, speculate=speculate).turn
    assert turn.drafted is not None
    told = (turn.drafted.tokens, turn.drafted.accepted)
    assert told == rate(made_up(8, GREEDY.seed), turn.token_ids, ngram, 5)
    assert told[1] > 0, "nothing is repeated, so that nothing is tested"


@pytest.mark.parametrize("sampling", [None, DRAWN], ids=["greedy", "drawn"])
def test_what_was_said_before_is_foreseen(runner: Runner, sampling: object) -> None:
    asked: dict[str, Any] = {"conversations": [[LISTED]], "max_tokens": 80, "ignore_eos": True}
    asked |= {"sampling": sampling} if sampling else {}
    plain = runner(**asked).turn
    drafted = runner(**asked, speculate=RequestSpeculation(tokens=5, ngram=2)).turn
    assert drafted.drafted is not None
    assert drafted.token_ids == plain.token_ids
    if sampling is None:
        assert drafted.drafted.accepted > 0, "nothing is repeated, so that nothing is tested"


def test_speculation_leaves_the_context_as_it_was(runner: Runner) -> None:
    """The second turn sees what it would have seen."""
    asked: dict[str, Any] = {"conversations": [[LISTED, SECOND]], "max_tokens": 40}
    plain = runner(**asked).trace.turns
    drafted = runner(**asked, speculate=RequestSpeculation(tokens=8, ngram=1)).trace.turns
    assert [turn.token_ids for turn in drafted] == [turn.token_ids for turn in plain]


@pytest.mark.parametrize(
    ("speculate", "named"),
    [
        ({"tokens": 4}, "speculate.model"),
        ({"tokens": 0, "ngram": 2}, "speculate.tokens"),
        ({"tokens": 4, "ngram": 2, "model": "/m"}, "speculate.model"),
        ({"tokens": 4, "model": "/nowhere"}, "/nowhere"),
    ],
)
def test_wrong_speculation_is_refused(runner: Runner, speculate: dict[str, object], named: str) -> None:
    run = runner.run(changed(speculate=speculate)(runner.request()))
    assert run.status in (2, 3) and named in run.error["message"]


# -- the page cache ---------------------------------------------------------------------------------------------------


def test_loads_are_cold_or_warm_as_asked(runner: Runner) -> None:
    # A file of its own: what another process has mapped stays in the page cache.
    own = runner.folder / "own"
    shutil.copytree(runner.model, own) if runner.model.is_dir() else shutil.copyfile(runner.model, own)
    runner = replace(runner, model=own)
    warm, cold, again = (runner(page_cache=asked, max_tokens=1).trace.load for asked in ("warm", "cold", "warm"))
    assert (warm.asked, cold.asked) == ("warm", "cold")
    for load in (warm, again):
        assert load.cached_share == 1
    assert cold.cached_share is not None and cold.cached_share < 0.01
    assert runner(max_tokens=1).trace.load.asked is None
