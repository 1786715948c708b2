"""Workloads of lengths instead of texts, and what else is asked of a context: from the manifest to the request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.build.model import Artifact
from meltrepro.campaign.request import make_requests, with_files
from meltrepro.chat.template import BUILT_IN
from meltrepro.errors import ManifestError
from meltrepro.frameworks.llamacpp.variants import LEVELS
from meltrepro.manifest.lengths import Lengths, lengths_in
from meltrepro.manifest.schema import Workload
from meltrepro.plan.model import Plan
from meltrepro.plan.planner import make_plan
from meltrepro.record.trial import Request, RequestSpeculation, RequestTokens
from meltrepro.targets.base import DeviceFacts
from tests.support.manifests import GOOD, load, problems

HOST = DeviceFacts("host-1", "host", "CPU", "x86_64", LEVELS["x86_64_v2"].requires, 6, 10**10, 10**10)

CHAT = """\
  chat:
    conversations: [[Hello, Again], [Bye]]
"""


def artifact(node: str, digest: str, file: Path) -> Artifact:
    return Artifact(node, "model", digest, digest, file, file, 1)


def manifest(*workloads: str) -> str:
    return GOOD.replace(CHAT, "".join(f"  {each}\n" for each in workloads)).replace("2024-02-27", "2026-10-01")


def planned(folder: Path, *workloads: str) -> tuple[Plan, dict[str, Request]]:
    """The plan, and the requests of its first model by workload."""
    loaded = load(folder, manifest(*workloads))
    plan = make_plan(loaded, {"host": HOST})
    spoken = {name: [["Hi"]] for name in loaded.manifest.conversations}
    made = make_requests(loaded, plan, spoken, {"host": HOST}, {"m": BUILT_IN["chatml"]})
    return plan, {cell.workload_name: made[cell.id] for cell in plan.cells if cell.quantization == "q8_0"}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("pp512/tg128", Lengths(512, 128)),
        ("pp512", Lengths(512, None)),
        ("tg128", Lengths(None, 128)),
        ("pp512tg128", None),
        ("/tg128", None),
        ("pp0/tg1", None),
        ("pp512/", None),
        ("", None),
        ("prompts.yaml", None),
        (None, None),
        ([["pp512"]], None),
    ],
)
def test_lengths_are_told_from_files(written: object, expected: Lengths | None) -> None:
    assert lengths_in(written) == expected


def test_one_line_is_a_workload(tmp_path: Path) -> None:
    _, requests = planned(tmp_path, "bench: {conversations: pp512/tg128}")
    request = requests["bench"]
    assert request.conversations == [
        [RequestTokens(tokens=512, max_tokens=1)],
        [RequestTokens(tokens=1, max_tokens=129)],
    ]
    assert (request.context, request.ignore_eos, request.sampling.greedy) == (513, True, True)
    asked = (request.depth, request.restore, request.sequences, request.speculate, request.page_cache, request.thinking)
    assert asked == (None,) * 6


def test_each_depth_is_a_workload_with_room_for_it(tmp_path: Path) -> None:
    _, requests = planned(tmp_path, "bench: {conversations: pp32/tg64, depth: [0, 1024]}")
    assert {name: (each.depth, each.context) for name, each in requests.items()} == {
        "bench-depth0": (None, 65),
        "bench-depth1024": (1024, 1089),
    }


def test_a_prefix_that_was_kept_is_not_read_again(tmp_path: Path) -> None:
    _, requests = planned(tmp_path, "hits: {conversations: pp100, depth: 20, hit_rate: [0, 0.9]}")
    told = {name: (each.depth, each.conversations[0][0]) for name, each in requests.items()}
    assert told == {
        "hits-hit0": (20, RequestTokens(tokens=100, max_tokens=1)),
        "hits-hit0.9": (110, RequestTokens(tokens=10, max_tokens=1)),
    }


def test_lists_of_several_keys_give_every_combination(tmp_path: Path) -> None:
    _, requests = planned(tmp_path, "b: {conversations: tg8, depth: [0, 64], sequences: [1, 4]}")
    assert {name: (each.depth, each.sequences) for name, each in requests.items()} == {
        "b-depth0-seq1": (None, None),
        "b-depth0-seq4": (None, 4),
        "b-depth64-seq1": (64, None),
        "b-depth64-seq4": (64, 4),
    }


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ("{conversations: [[Hi]], depth: 4}", "'depth' needs lengths"),
        ("{conversations: [[Hi]], restore: true}", "'restore' needs lengths"),
        ("{conversations: [[Hi]], sequences: 2}", "'sequences' need 'ignore_eos'"),
        ("{conversations: pp8, max_tokens: 4}", "'max_tokens' does nothing with lengths"),
        ("{conversations: pp8, system: You}", "'system' does nothing with lengths"),
        ("{conversations: tg8, hit_rate: 0.5}", "'hit_rate' is of a prompt"),
        ("{conversations: pp8, restore: true}", "'restore' needs 'depth'"),
        ("{conversations: pp800, context: 512}", "does not hold the 801"),
        ("{conversations: pp8, hit_rate: 1}", "hit_rate"),
        ("{conversations: pp8, page_cache: hot}", "page_cache"),
        ("{conversations: pp8, depth: []}", "the list is empty"),
        ("{conversations: pp8, depth: [1, 1]}", "named twice"),
        ("{conversations: pp8, depth: [1.5]}", "expected a whole number"),
        ("{conversations: [[Hi]], speculate: {tokens: 4}}", "expected exactly one of the keys ngram, model"),
        ("{conversations: [[Hi]], speculate: {ngram: 2, quantization: q4_0}}", "does nothing without 'model'"),
        ("{conversations: tg8, sequences: 2, speculate: {ngram: 2}}", "'speculate' is of one sequence"),
        ("{conversations: tg8, sequences: [1, 8], batch: 4}", "a batch of 4 tokens does not hold one of each of 8"),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path: Path, workload: str, message: str) -> None:
    found = problems(tmp_path, manifest(f"w: {workload}"))
    assert any(message in each.message or message in each.field for each in found), found
    assert all(each.line > 1 for each in found)


# -- speculation ------------------------------------------------------------------------------------------------------


def test_a_draft_model_is_made_and_named_by_its_digest(tmp_path: Path) -> None:
    plan, requests = planned(tmp_path, "w: {conversations: [[Hi]], speculate: {model: m, quantization: q2_K}}")
    assert requests["w"].speculate == RequestSpeculation(tokens=8)
    assert [node.quantization for node in plan.models] == ["q8_0", "q4_0", "q2_K"]
    made = {node.id: artifact(node.id, f"{i:064}", tmp_path) for i, node in enumerate(plan.models)}
    cell = plan.cells[0]
    assert cell.draft_id == plan.models[2].id
    (request,) = with_files({cell.id: requests["w"]}, replace(plan, cells=(cell,)), made).values()
    assert isinstance(request, Request) and request.speculate is not None
    assert request.speculate.digest == f"{2:064}"


def test_a_model_may_draft_for_itself(tmp_path: Path) -> None:
    plain, _ = planned(tmp_path, "w: {conversations: [[Hi]]}")
    drafted, _ = planned(tmp_path, "w: {conversations: [[Hi]], speculate: {model: m}}")
    assert plain.cells[0].draft_key is None and drafted.cells[0].draft_key == drafted.cells[0].model_key
    assert drafted.models == plain.models


def test_unknown_drafts_are_told_with_what_was_meant(tmp_path: Path) -> None:
    text = manifest("w: {conversations: [[Hi]], speculate: {model: n, quantization: q9_0}}")
    loaded = load(tmp_path, text)
    with pytest.raises(ManifestError, match="unknown model 'n'"):
        make_plan(loaded, {"host": HOST})


@pytest.mark.parametrize("asked", ["speculate: {ngram: 2}", "restore: true, depth: 8", "sequences: 2"])
def test_an_engine_that_cannot_is_skipped(tmp_path: Path, asked: str) -> None:
    texts = "[[Hi]]" if "speculate" in asked else "tg8"
    text = manifest(f"w: {{conversations: {texts}, {asked}}}").replace(
        "llama.cpp: {release: 2026-10-01}", "openvino: {release: 2026.4.1}"
    )
    plan = make_plan(load(tmp_path, text), {"host": HOST})
    assert not plan.cells
    assert all("framework openvino has no" in skip.reason for skip in plan.skipped), plan.skipped


def test_each_of_several_sequences_reads_for_itself_where_asked(tmp_path: Path) -> None:
    _, requests = planned(tmp_path, "b: {conversations: pp64/tg8, sequences: [1, 4], shared_prompt: false}")
    assert {name: request.shared_prompt for name, request in requests.items()} == {"b-seq1": None, "b-seq4": False}


def test_older_manifests_say_what_they_said() -> None:
    assert (
        Workload(conversations=[["Hi"]])
        .model_dump(mode="json")
        .keys()
        .isdisjoint(("depth", "hit_rate", "restore", "sequences", "shared_prompt", "speculate", "page_cache"))
    )
