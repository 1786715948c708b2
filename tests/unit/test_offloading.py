"""Workloads whose engine is another device's: from the manifest to the plan, the request and the record's facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro.campaign.request import make_requests
from meltrepro.chat.template import BUILT_IN
from meltrepro.errors import ManifestError, RecordError
from meltrepro.frameworks.llamacpp.variants import LEVELS
from meltrepro.plan.identity import plan_document
from meltrepro.plan.model import Plan
from meltrepro.plan.planner import make_plan
from meltrepro.record.events import parse_trace
from meltrepro.targets.base import DeviceFacts
from tests.support.manifests import GOOD, load, problems

HOST = DeviceFacts("host-1", "host", "CPU", "x86_64", LEVELS["x86_64_v2"].requires, 6, 10**10, 10**10, here=True)
BOARD = DeviceFacts("board-2", "linux", "CPU", "aarch64", LEVELS["armv8_2"].requires, 2, 10**10, 10**10)
DEVICES = {"host": HOST, "board": BOARD}
TARGETS = """\
targets:
  host: {kind: host, threads: 4}
  board: {kind: linux, host: board}
"""
LOCAL = "  chat:\n    conversations: [[Hello, Again], [Bye]]\n"
AWAY = "  away: {conversations: [[Hello]], offload: {to: board}}\n"


def manifest(away: str = AWAY, targets: str = TARGETS) -> str:
    return GOOD.replace("workloads:\n", f"{targets}workloads:\n").replace("2024-02-27", "2026-10-01") + away


def planned(folder: Path, text: str, devices: dict[str, DeviceFacts] | None = None) -> Plan:
    return make_plan(load(folder, text), DEVICES if devices is None else devices)


def test_the_engine_is_made_for_the_other_device(tmp_path: Path) -> None:
    plan = planned(tmp_path, manifest())
    cells = {(cell.target_name, cell.workload_name): cell for cell in plan.cells}
    assert set(cells) == {("host", "chat"), ("board", "chat"), ("host", "away")}
    away = cells["host", "away"]
    assert away.variant == cells["board", "chat"].variant and away.bundle_id == cells["board", "chat"].bundle_id
    assert away.asker_id == cells["host", "chat"].bundle_id
    assert (away.engine_name, away.target_names) == ("board", ("host", "board"))
    assert cells["host", "chat"].asker_id is None
    (entry,) = (each for each in plan_document(plan)["cells"] if each["id"] == away.id)
    assert entry["engine"] == "board" and entry["asker"] == cells["host", "chat"].variant.name


def test_both_programs_are_built_where_nothing_else_needs_them(tmp_path: Path) -> None:
    plan = planned(tmp_path, manifest().replace(LOCAL, ""))
    (quantizations,) = ([cell.id for cell in plan.cells],)
    assert len(quantizations) == 2
    assert {bundle.variant.machine for bundle in plan.bundles if bundle.purpose == "run"} == {"x86_64", "aarch64"}


def test_threads_are_the_engines(tmp_path: Path) -> None:
    loaded = load(tmp_path, manifest())
    plan = make_plan(loaded, DEVICES)
    requests = make_requests(loaded, plan, {"chat": [["Hi"]], "away": [["Hi"]]}, DEVICES, {"m": BUILT_IN["chatml"]})
    threads = {(cell.target_name, cell.workload_name): requests[cell.id].threads for cell in plan.cells}
    assert threads == {("host", "chat"): 4, ("board", "chat"): 2, ("host", "away"): 2}


def test_memory_is_the_engines(tmp_path: Path) -> None:
    small = {**DEVICES, "host": replace(HOST, memory_bytes=1)}
    plan = planned(tmp_path, manifest(), small)
    assert {(cell.target_name, cell.workload_name) for cell in plan.cells} >= {("host", "away")}


@pytest.mark.parametrize(
    ("text", "devices", "reason"),
    [
        (manifest(), DEVICES, "target board is the one that others are to ask"),
        (manifest(), {**DEVICES, "board": replace(BOARD, id=HOST.id)}, "targets host and board are the same device"),
        (manifest(), {"host": HOST}, "target board could not be reached"),
        (manifest(), {"board": BOARD}, "target host could not be reached"),
        (manifest() + "measure: {operators: true}\n", DEVICES, "measure it by itself"),
    ],
)
def test_what_cannot_be_offloaded_is_skipped(
    text: str, devices: dict[str, DeviceFacts], reason: str, tmp_path: Path
) -> None:
    skipped = [skip.reason for skip in planned(tmp_path, text, devices).skipped if skip.cell_id.endswith("/away")]
    assert any(reason in each for each in skipped), skipped


def test_an_unknown_target_is_a_mistake(tmp_path: Path) -> None:
    loaded = load(tmp_path, manifest(AWAY.replace("to: board", "to: bored")))
    with pytest.raises(ManifestError) as raised:
        make_plan(loaded, DEVICES)
    (problem,) = raised.value.problems
    assert problem.field == "workloads.away.offload.to" and "unknown target 'bored'" in problem.message
    assert problem.line is not None and "board" in str(problem)


@pytest.mark.parametrize(
    "workload",
    [
        "{conversations: pp64/tg8, offload: {to: board}}",
        "{conversations: [[Hello]], ignore_eos: true, sequences: 2, offload: {to: board}}",
    ],
)
def test_what_is_sent_is_a_text(workload: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, manifest(f"  away: {workload}\n"))
    assert "'offload' needs conversations of texts" in problem.message


@pytest.mark.parametrize("port", ["80", "70000", "http"])
def test_ports_are_those_of_ordinary_users(port: str, tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, manifest(AWAY.replace("to: board", f"to: board, port: {port}")))
    assert problem.field == "workloads.away.offload.port"


# -- events -----------------------------------------------------------------------------------------------------------

BEGIN = """\
{"e":"hello","t":1,"v":1,"runner":"r","framework":"f","commit":"c","isa":"i","wall":1,"pid":1,"system":"s"}
{"e":"load_begin","t":2}
{"e":"load_end","t":3,"model_bytes":1,"n_params":1,"n_vocab":1,"n_ctx_train":1}
{"e":"context","t":4,"n_ctx":8,"n_batch":8,"threads":1,"kv_bytes":null}
{"e":"conversation_begin","t":5,"c":0}
{"e":"turn_begin","t":10,"c":0,"i":0}
"""
ASKED = '{"e":"asked","t":11}\n'
TOKENS = '{"e":"token","t":20,"i":0,"id":7}\n{"e":"token","t":30,"i":1,"id":8}\n'
END = (
    '{"e":"turn_end","t":40,"c":0,"i":0,"n_prompt":3,"n_gen":2,"n_past":4,"stop":"length","text":"ab",'
    '"served_ns":25,"first_ns":5,"sent_bytes":9,"received_bytes":90}\n'
)
DONE = '{"e":"conversation_end","t":41,"c":0}\n{"e":"done","t":42}\n'


def lines(text: str) -> list[bytes]:
    return text.encode().splitlines(keepends=True)


def test_a_turn_that_another_device_answers() -> None:
    (turn,) = parse_trace(lines(BEGIN + ASKED + TOKENS + END + DONE)).turns
    assert turn.was_read and turn.prefill is None and turn.token_ns == (20, 30) and turn.n_prompt == 3
    assert turn.served is not None
    assert (turn.served.ns, turn.served.first_ns, turn.served.sent_bytes, turn.served.received_bytes) == (25, 5, 9, 90)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BEGIN + TOKENS, "before `prefill_end` or `asked`"),
        (BEGIN + ASKED + ASKED, "`asked` must come once in a turn"),
        (BEGIN + ASKED + '{"e":"prefill_begin","t":12,"n":3}\n', "or one after `asked`"),
        (BEGIN + '{"e":"prefill_begin","t":11,"n":3}\n' + ASKED, "no `prefill_begin` with it"),
        (BEGIN + ASKED + TOKENS + END.replace("25", "31"), "took 31 ns for a turn of 30 ns"),
        (BEGIN + ASKED + TOKENS + END.replace('"first_ns":5', '"first_ns":26'), "took 25 ns"),
        (BEGIN + ASKED + TOKENS + END.replace('"sent_bytes":9', '"sent_bytes":-1'), "sent_bytes"),
    ],
)
def test_what_contradicts_itself_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        parse_trace(lines(text + DONE))
