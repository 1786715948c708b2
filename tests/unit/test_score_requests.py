"""From accuracy cells to what a scorer is asked: questions chosen, padded, left out, and the files that it reads."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.accuracy.requests import Data, inputs_of, score_requests, with_inputs
from meltrepro.build.model import Artifact, Input
from meltrepro.errors import DataError, RecordError
from meltrepro.manifest.loader import load_manifest
from meltrepro.plan.model import Plan
from meltrepro.plan.planner import make_plan
from meltrepro.record.trial import ScoringRequest
from meltrepro.targets.base import DeviceFacts

FEATURES = frozenset({"ssse3", "sse4_1", "sse4_2", "popcnt"})
HOST = DeviceFacts("h", "host", "CPU", "x86_64", FEATURES, 6, 10**10, 10**10)
PIQA = {"question": "Which is a colour?", "options": "A. stone\nB. red\nC. loud", "answer": "B. red"}
WINOGRANDE = {"sentence": "The cup, as _ saw, was empty.", "option1": "Ann", "option2": "Eve", "answer": "2"}


def planned(folder: Path, workload: Mapping[str, Any], *, threads: int | None = None) -> Plan:
    """Both releases with one workload."""
    document = {
        "meltrepro": 1,
        "name": "scores",
        "models": {"m": {"source": {"file": "m.gguf"}, "chat_template": "chatml", "quantizations": ["q8_0"]}},
        "frameworks": {
            "old": {"kind": "llama.cpp", "release": "2024-02-27"},
            "new": {"kind": "llama.cpp", "release": "2026-10-01"},
        },
        "targets": {"host": {"kind": "host", **({"threads": threads} if threads else {})}},
        "workloads": {"w": dict(workload)},
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(document))
    return make_plan(load_manifest(path), {"host": HOST})


class Kept:
    """What was kept for scorers, by digest."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def __call__(self, content: bytes) -> Input:
        digest = hashlib.sha256(content).hexdigest()
        self.files[digest] = content
        return Input(Path(digest), digest)


def asked(plan: Plan, content: bytes) -> tuple[dict[str, ScoringRequest], Kept]:
    kept = Kept()
    data = {"w": Data(content, hashlib.sha256(content).hexdigest(), "workloads.w (file:x)")}
    requests, files = score_requests(plan, data, {"host": HOST}, kept)
    assert set(files) == set(kept.files)
    return {id.split("/")[2]: request for id, request in requests.items()}, kept


def lines(*rows: Mapping[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


QUESTIONS = {"task": "piqa", "data": {"file": "x"}, "questions": 3}


def test_only_the_old_release_gets_questions_that_do_not_count(tmp_path: Path) -> None:
    requests, kept = asked(planned(tmp_path, QUESTIONS), lines(*[PIQA] * 5))
    old, new = requests["old"], requests["new"]
    assert (old.questions, old.padding, new.questions, new.padding) == (3, 97, 3, 0)
    counts = {release: struct.unpack("<I", kept.files[r.inputs["data"]][:4])[0] for release, r in requests.items()}
    assert counts == {"old": 100, "new": 3}
    assert (old.task, old.mode, old.sequences, old.threads) == ("piqa", "multiple-choice", 3, 6), "all cores"
    assert old.data == new.data, "the digest of the data set, not of what was made of it"


def test_threads_are_those_of_the_target(tmp_path: Path) -> None:
    requests, _ = asked(planned(tmp_path, QUESTIONS, threads=2), lines(*[PIQA] * 5))
    assert requests["new"].threads == 2


def test_sentences_that_the_format_cannot_hold_are_left_out_and_named(tmp_path: Path) -> None:
    bad = {**WINOGRANDE, "sentence": '"So," said _, "it is, I hear."', "option1": "a, b"}
    workload = {"task": "winogrande", "data": {"file": "x"}}
    requests, kept = asked(planned(tmp_path, workload), lines(WINOGRANDE, bad, WINOGRANDE))
    assert (requests["new"].mode, requests["new"].questions, requests["new"].left_out) == ("winogrande", 2, [2])
    assert kept.files[requests["new"].inputs["data"]].decode().splitlines()[1].startswith("3,")


@pytest.mark.parametrize(
    ("workload", "content", "told"),
    [
        (QUESTIONS, lines(PIQA), "3 questions are asked for, the data set has 1"),
        (QUESTIONS, b"", "the data set has no questions"),
        (QUESTIONS, b"{\n", "line 1 of the data set is no JSON"),
        (QUESTIONS, b"\xff\xfe", "not text in UTF-8"),
        (QUESTIONS, lines(WINOGRANDE), "no data of piqa: expected the fields options, question, found sentence, "),
        (QUESTIONS, lines({**PIQA, "answer": "D. x"}), "question 1: its answer 'D. x' is none of its options"),
        ({"task": "perplexity", "text": {"file": "x"}}, b" \n", "it is empty"),
        ({"task": "perplexity", "text": {"file": "x"}}, b"a\xff", "it is not text in UTF-8 (byte 1)"),
    ],
)
def test_data_that_nothing_can_be_made_of(
    tmp_path: Path, workload: Mapping[str, Any], content: bytes, told: str
) -> None:
    with pytest.raises(DataError) as caught:
        asked(planned(tmp_path, workload), content)
    assert caught.value.message.startswith("workloads.w (file:x): ")
    assert told in caught.value.message


def test_what_cells_are_compared_with_joins_their_requests(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"task": "kl-divergence", "text": {"file": "x"}, "chunks": 2})
    kept = Kept()
    text = b"A harbour in the morning."
    data = {"w": Data(text, hashlib.sha256(text).hexdigest(), "x")}
    requests, _ = score_requests(plan, data, {"host": HOST}, kept)
    assert all(not request.inputs for request in requests.values()), "not known before they were made"
    made = {
        node.id: Artifact(node.id, "logits", "0", name * 64, Path("f"), Path(name), 1)
        for node, name in zip(plan.logits, "ab", strict=True)
    }
    done, inputs = with_inputs(requests, plan, made)
    assert set(inputs) == {"a" * 64, "b" * 64}
    for cell in plan.cells:
        request = done[cell.id]
        assert isinstance(request, ScoringRequest) and cell.logits_id is not None
        assert request.inputs == {"logits": made[cell.logits_id].digest}, "each release its own"
        assert inputs_of(request, inputs)["logits"].path == made[cell.logits_id].path
        with pytest.raises(RecordError, match="the record's logits of task kl-divergence"):
            inputs_of(request, {})
