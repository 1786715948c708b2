"""Outcomes are sealed: written and read back the same, and no later change of a value goes unnoticed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.record.trial import Identities, Outcome, TrialState, outcome_bytes, parse_outcome

DIGEST = st.text("0123456789abcdef", min_size=64, max_size=64)
OUTCOME = st.builds(
    Outcome,
    format=st.just(1),
    cell=st.text(max_size=20),
    reason=st.none() | st.text(max_size=20),
    state=st.sampled_from(TrialState),
    duration_s=st.floats(0, 1e9),
    repetition=st.integers(0, 10_000),
    attempt=st.integers(1, 10),
    started_wall_ns=st.integers(0, 2**62),
    exit_code=st.none() | st.integers(0, 255),
    identities=st.builds(Identities, model=DIGEST, bundle=DIGEST, runner=DIGEST, request=DIGEST),
    files=st.dictionaries(st.sampled_from(["events.jsonl", "request.json", "stderr.log"]), DIGEST),
    seal=st.none(),
)
WHOLE = Outcome(
    cell="c",
    repetition=0,
    warmup=False,
    attempt=1,
    state=TrialState.ok,
    started_wall_ns=1,
    duration_s=1.5,
    identities=Identities(model="0" * 64, bundle="0" * 64, runner="0" * 64, request="0" * 64),
)


@given(OUTCOME)
def test_what_is_written_is_read_back(outcome: Outcome) -> None:
    read = parse_outcome(outcome_bytes(outcome))
    assert read.seal is not None
    assert read.model_copy(update={"seal": None}) == outcome
    assert parse_outcome(outcome_bytes(read)) == read, "a seal is not sealed again"


@given(OUTCOME, st.data())
def test_no_changed_value_goes_unnoticed(outcome: Outcome, data: st.DataObject) -> None:
    document = json.loads(outcome_bytes(outcome))
    name = data.draw(st.sampled_from(["repetition", "attempt", "started_wall_ns", "exit_code"]))
    document[name] = (document[name] or 0) + 1
    with pytest.raises(ValueError, match="it was changed: its seal expects sha256"):
        parse_outcome(json.dumps(document).encode())


@given(OUTCOME)
def test_the_text_may_be_laid_out_anew(outcome: Outcome) -> None:
    raw = outcome_bytes(outcome)
    assert parse_outcome(json.dumps(json.loads(raw), sort_keys=True).encode()) == parse_outcome(raw)


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ""])
def test_a_file_name_leads_nowhere_else(name: str) -> None:
    document = json.loads(outcome_bytes(WHOLE))
    document["files"] = {name: "0" * 64}
    with pytest.raises(ValueError, match="files"):
        parse_outcome(json.dumps(document).encode())


def test_an_outcome_of_before_there_were_seals_is_read() -> None:
    assert parse_outcome(WHOLE.model_dump_json(exclude={"seal", "files"}).encode()) == WHOLE
