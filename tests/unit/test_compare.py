"""What differs around two campaigns, and what of it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltrepro.cli import app
from meltrepro.errors import NothingToCompare, RecordError, UsageError
from meltrepro.measure.metric import generation_ns
from meltrepro.measure.records import CampaignRecord, read_campaign
from meltrepro.record import trial as record
from meltrepro.record.campaign import CAMPAIGN, MANIFEST
from meltrepro.replay.compare import compare, overall, require_common
from meltrepro.replay.context import Difference
from meltrepro.replay.maps import mapped
from meltrepro.replay.replay import judge
from meltrepro.replay.show import text, why
from meltrepro.report.comparison import html
from meltrepro.stats.equivalence import Design, ReplayVerdict, trials_to_show_sameness
from tests.support.campaigns import Cell, Trial, build_campaign

Make = Callable[..., CampaignRecord]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Campaigns of one cell; `before` is the state of its device before each trial."""

    def campaign(number: int, before: dict[str, Any], **changes: str) -> CampaignRecord:
        folder = build_campaign(tmp_path, [Cell("q4_0")], number=number, repetitions=3)
        document = json.loads((folder / CAMPAIGN).read_text())
        (folder / CAMPAIGN).write_text(json.dumps(document | changes))
        for trial in read_campaign(folder).cells[0].repetitions:
            (trial.folder / record.DEVICE).write_text(json.dumps({"before": before}))
        return read_campaign(folder)

    return campaign


def context(first: CampaignRecord, second: CampaignRecord) -> set[Difference]:
    (cell,) = compare(first, second, Design()).cells
    return set(cell.context)


def test_the_same_surroundings_are_not_mentioned(make: Make) -> None:
    state = {"temperatures_c": {"cpu": 50.0}, "load_1min": 0.2, "governors": {"cpu0": "performance"}}
    parked = {"zone3:PMIC-Die": 100.0, "zone4:mtkts": 125.0, "zone5:vbat": 4200.0}
    almost = {"temperatures_c": {"cpu": 51.5, **parked}, "load_1min": 0.4, "governors": {"cpu0": "performance"}}
    assert context(make(0, state), make(1, almost)) == set()


def test_engine_version_governor_and_readings_that_matter(make: Make) -> None:
    first = make(
        0, {"temperatures_c": {"cpu": 50.0, "board": 40.0}, "governors": {"cpu0": "performance"}}, engine="a 1"
    )
    second = make(
        1,
        {"temperatures_c": {"cpu": 60.0}, "governors": {"cpu0": "powersave", "cpu1": "powersave"}, "load_1min": 3.0},
        engine="b 2",
        meltrepro_version="9.9",
    )
    assert context(first, second) >= {
        Difference("engine", "a 1", "b 2"),
        Difference("governor", "performance", "powersave"),
        Difference("temperature at start", "50 C", "60 C"),
    }
    assert {difference.name for difference in context(first, second)} == {
        *("engine", "meltrepro", "governor", "temperature at start"),
    }, "a reading that one side lacks is no difference"
    shown = text(compare(first, second, Design()))
    assert "context governor: performance -> powersave" in shown
    assert ">governor</td>" in html([compare(first, second, Design())])


def test_a_damaged_state_is_named(make: Make) -> None:
    first, second = make(0, {}), make(1, {})
    path = second.cells[0].repetitions[1].folder / record.DEVICE
    path.write_text("[]")
    with pytest.raises(RecordError, match=f"{record.DEVICE} is damaged"):
        compare(first, second, Design())


def of_speeds(tmp_path: Path, repetitions: int, first: float, second: float) -> tuple[CampaignRecord, CampaignRecord]:
    one, other = (
        read_campaign(
            build_campaign(tmp_path, [Cell("q4_0", speed, runner=name)], number=number, repetitions=repetitions)
        )
        for number, (speed, name) in enumerate(((first, "runner"), (second, "another")))
    )
    return one, other


def test_the_same_bytes_never_differ_by_their_session(tmp_path: Path) -> None:
    """Half as fast on another day: what differs is not what was built; a change that somebody made is another matter."""
    first, second = (
        read_campaign(build_campaign(tmp_path, [Cell("q4_0", speed)], number=number, repetitions=6))
        for number, speed in enumerate((40, 80))
    )
    found = compare(first, second, Design(), once=True)
    assert found.cells[0].unchanged and found.cells[0].same_artifacts and not found.cells[0].proven
    (speed,) = [each for each in found.cells[0].metrics if each.metric == "generation_tps"]
    assert speed.decision is not None and speed.decision.verdict is ReplayVerdict.inconclusive
    assert "the same bytes did the same work on the same device" in why(speed)
    assert "by an unknown amount" in why(speed) and "--reference control" in why(speed)
    assert overall(found) is judge(found)[0] is ReplayVerdict.inconclusive
    for params in ({"threads": 1}, {"device.id": "another"}, {"device.kernel": "6.2"}):
        (entry,) = second.document.cells
        changed = entry.model_copy(update={"params": {**entry.params, **params}})
        other = replace(second, document=second.document.model_copy(update={"cells": [changed]}))
        assert overall(compare(first, other, Design(), once=True)) is ReplayVerdict.differs, params


def test_inconclusive_says_why_and_what_would_decide(tmp_path: Path) -> None:
    found = compare(*of_speeds(tmp_path, 6, 40, 41.5), Design(), once=True)
    (speed,) = [metric for metric in found.cells[0].metrics if metric.metric == "generation_tps"]
    assert speed.decision is not None
    assert speed.decision.verdict is ReplayVerdict.inconclusive
    assert speed.needed is not None
    said = f"if they are the same, about {speed.needed} repetitions on each side would show it"
    assert why(speed).endswith(said)
    assert "crosses 1.050" in why(speed)
    shown = text(found)
    assert "the same: second / first from 0.952 to 1.050 (a margin of 5%)" in shown
    assert said in " ".join(shown.split())
    assert said in html([found])
    assert max(len(line) for line in shown.splitlines() if "_digest" not in line) <= 100


def test_too_few_repetitions_are_counted_against_what_one_look_needs(tmp_path: Path) -> None:
    found = compare(*of_speeds(tmp_path, 2, 40, 40), Design(), once=True)
    shown = text(found)
    assert "too few to judge: 2 values were recorded, 3 are needed" in " ".join(shown.split())
    assert "inf" not in shown


def test_the_number_of_repetitions_that_show_sameness() -> None:
    spread = [100.0, 104.0, 96.0, 101.0, 99.0, 103.0]
    wide = [100 + 3 * (value - 100) for value in spread]
    few, many = (trials_to_show_sameness(values, values, Design()) for values in (spread, wide))
    assert few is not None
    assert many is not None
    assert 5 <= few < many / 5, "nine times the variance"
    assert trials_to_show_sameness(spread, spread, Design(margin=0.2)) == 3
    assert trials_to_show_sameness(spread, spread, Design(session_cv=0.1)) is None
    assert trials_to_show_sameness([1.0], spread, Design()) is None


def test_a_campaign_compared_with_itself_is_the_same(tmp_path: Path) -> None:
    for number, repetitions in ((0, 1), (1, 2), (2, 5)):
        folder = build_campaign(tmp_path, number=number, repetitions=repetitions)
        found = compare(read_campaign(folder), read_campaign(folder), Design(), once=True)
        decisions = [metric.decision for cell in found.cells for metric in cell.metrics if metric.decision is not None]
        assert decisions and {(each.verdict, each.low, each.high) for each in decisions} == {("REPRODUCED", 1, 1)}
        assert overall(found) is ReplayVerdict.reproduced
        for shown in (text(found), html([found])):
            assert "the same campaign" in shown and "INCONCLUSIVE" not in shown


def test_what_was_measured_twice_is_not_the_same_trials(tmp_path: Path) -> None:
    first, second = (read_campaign(build_campaign(tmp_path, number=number, repetitions=2)) for number in range(2))
    found = compare(first, second, Design(), once=True)
    assert not found.same and "the same campaign" not in text(found)
    assert "first: 2 repetitions: too few to judge" in text(found)
    assert "too few to judge: 2 values were recorded, 3 are needed" in " ".join(text(found).split())


def limited(campaign: CampaignRecord, **limits: float) -> CampaignRecord:
    """The same record where its manifest had declared these limits."""
    place = campaign.folder / MANIFEST
    place.write_text(json.dumps({**json.loads(place.read_text()), "measure": {"limits": limits}}))
    return read_campaign(campaign.folder)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("limits", "said"), [({"noise": 1e-6}, "INVALID(noisy: "), ({"min_tokens": 10**6}, "INVALID(too-few-tokens: ")]
)
def test_nothing_is_concluded_from_a_cell_that_is_invalid_as_a_whole(
    tmp_path: Path, side: int, limits: dict[str, float], said: str
) -> None:
    both = list(of_speeds(tmp_path, 6, 40, 80))
    assert judge(compare(both[0], both[1], Design(), once=True))[0] is ReplayVerdict.differs
    both[side] = limited(both[side], **limits)
    found = compare(both[0], both[1], Design(), once=True)
    verdict, reasons = judge(found)
    assert verdict is overall(found) is ReplayVerdict.inconclusive
    (cell,) = found.cells
    assert all(each.decision is None or each.decision.verdict is ReplayVerdict.inconclusive for each in cell.metrics)
    assert {each.name for each in cell.params} >= {f"measure.limits.{name}" for name in limits}
    (reason,) = reasons
    start = f"{cell.cell}: INCONCLUSIVE, for its figures are not believed: {('first', 'second')[side]}: {said}"
    assert reason.startswith(start)
    for shown in (text(found), html([found])):
        assert "figures are not believed" in shown and "DIFFERS" not in shown and "REPRODUCED" not in shown


def test_noise_is_no_doubt_about_trials_in_pairs(tmp_path: Path) -> None:
    """A figure by itself is not believed then, but what disturbs both sides of a pair cancels; other reasons still count."""
    noisy, fast = (limited(each, noise=1e-6) for each in of_speeds(tmp_path, 6, 40, 80))
    controls = {noisy.cells[0].id: noisy.cells[0]}
    assert judge(compare(noisy, fast, Design(), once=True))[0] is ReplayVerdict.inconclusive
    assert judge(compare(noisy, fast, Design(), controls, once=True))[0] is ReplayVerdict.differs
    short = limited(fast, min_tokens=10**6)
    assert judge(compare(noisy, short, Design(), controls, once=True))[0] is ReplayVerdict.inconclusive


def test_figures_of_invalid_cells_are_listed_without_a_verdict(tmp_path: Path) -> None:
    """Also of a campaign and itself, and where INVALID repetitions are counted."""
    one, other = (limited(each, noise=1e-6) for each in of_speeds(tmp_path, 6, 40, 40))
    for second in (one, other):
        found = compare(one, second, Design(), once=True)
        (reason,) = judge(found)[1]
        assert "first: INVALID(noisy" in reason and "; second: INVALID(noisy" in reason
        (speed,) = [each for each in found.cells[0].metrics if each.metric == "generation_tps"]
        assert speed.first > 30 and speed.decision is not None and speed.decision.ratio > 0.5
        assert why(speed).startswith("INVALID as a whole: first and second; ")
    counted = [read_campaign(limited(each, min_tokens=10**6).folder, with_invalid=True) for each in (one, other)]
    found = compare(counted[0], counted[1], Design(), once=True)
    assert found.cells[0].metrics and overall(found) is ReplayVerdict.inconclusive


def test_a_repetition_that_is_invalid_leaves_the_others_to_judge(tmp_path: Path) -> None:
    first, second = of_speeds(tmp_path, 6, 40, 80)
    least_s = min(sum(map(generation_ns, trial.trace().turns)) for trial in first.cells[0].repetitions) / 1e9
    first = limited(first, min_generation_s=least_s + 1e-6, noise=1.0)
    assert len(first.cells[0].believed) == 5
    assert judge(compare(first, second, Design(), once=True))[0] is ReplayVerdict.differs


ENGINE = {"flash_attention": "off", "weights": "CPU 93.8 MiB"}


def test_what_the_engine_made_of_the_request_is_compared(tmp_path: Path) -> None:
    def campaign(number: int, trial: Trial) -> CampaignRecord:
        return read_campaign(build_campaign(tmp_path, [Cell("q4_0", trial=trial)], number=number))

    first = campaign(0, Trial(process={"nice": 0}, effective=ENGINE))
    second = campaign(1, Trial(process={"nice": 5}, effective={**ENGINE, "flash_attention": "on", "mmap": True}))
    before = campaign(2, Trial())
    (cell,) = compare(first, second, Design()).cells
    assert Difference("effective.flash_attention", "off", "on") in cell.params
    assert Difference("effective.mmap", "-", "true") in cell.params
    assert Difference("process.nice", "0", "5") in cell.context
    (cell,) = compare(before, second, Design()).cells
    assert not [each for each in (*cell.params, *cell.context) if "effective" in each.name or "process" in each.name]


def test_campaigns_without_a_common_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    one = build_campaign(tmp_path, [Cell("q4_0")], number=0)
    other = build_campaign(tmp_path, [Cell("q8_0")], number=1)
    for options in ([], ["--format", "json"], ["-o", str(tmp_path / "out")]):
        assert app.main(["compare", one.name, other.name, *options]) == NothingToCompare.exit_code
        shown = capsys.readouterr()
        assert shown.out == ""
        assert "no cell is in both" in shown.err
        assert "smollm2-135m/q4_0/llama.cpp/host/chat" in shown.err
        assert f"meltrepro report {one.name} {other.name}" in shown.err
    assert not (tmp_path / "out").exists()
    require_common(compare(read_campaign(one), read_campaign(one), Design()))


def test_cells_of_one_campaign_are_compared_in_pairs(tmp_path: Path) -> None:
    """Rounds are pairs, so that what drifts from round to round is no difference; and the same bytes may be compared."""
    cells = [Cell("q4_0", 40, framework="old"), Cell("q4_0", 40, framework="new"), Cell("q8_0", 30, framework="old")]
    campaign = read_campaign(build_campaign(tmp_path, cells, repetitions=8))
    renamed = mapped(["old=new"], *([cell.id for cell in campaign.cells],) * 2)
    assert renamed == {cells[0].id: cells[1].id}
    found = compare(campaign, campaign, Design(), once=True, renamed=renamed)
    (cell,) = found.cells
    assert cell.cell == f"{cells[0].id} -> {cells[1].id}" and not cell.same and not cell.controlled
    assert not (found.only_first or found.only_second)
    (speed,) = [each for each in cell.metrics if each.metric == "generation_tps"]
    assert speed.decision is not None and speed.decision.n_reference == speed.decision.n_replayed == 8
    assert speed.control is None and speed.session is None
    slower = [Cell("q4_0", 40, framework="old"), Cell("q4_0", 30, framework="new")]
    campaign = read_campaign(build_campaign(tmp_path, slower, repetitions=8, number=1))
    found = compare(campaign, campaign, Design(), once=True, renamed=renamed)
    assert overall(found) is ReplayVerdict.differs, "within one session the same bytes may differ"


@pytest.mark.parametrize(
    ("maps", "second", "said"),
    [
        (["old"], None, "expected BEFORE=AFTER"),
        (["old="], None, "expected BEFORE=AFTER"),
        (["odl=new"], None, "no cell has a part 'odl'"),
        (["old=nwe"], None, "no cell has a part 'nwe'"),
        (["old=q8_0"], None, "no cell has a counterpart"),
        (["old=new"], ["m/q8_0/new/host/chat", "m/q4_0/old/host/other"], "no cell has a counterpart"),
    ],
)
def test_a_map_that_names_nothing(maps: list[str], second: list[str] | None, said: str) -> None:
    first = ["m/q4_0/old/host/chat", "m/q4_0/new/host/chat", "m/q8_0/third/host/chat"]
    with pytest.raises(UsageError, match=said):
        mapped(maps, first, first if second is None else second)


def test_what_a_map_may_rename() -> None:
    ids = [
        f"m/q4_0/e+kv_type={kv}+threads={threads}/{target}/chat"
        for kv in ("f16", "q8_0")
        for threads in (1, 2)
        for target in ("host", "board")
    ]
    by_option = mapped(["kv_type=f16:kv_type=q8_0"], ids, ids)
    assert by_option == {each: each.replace("kv_type=f16", "kv_type=q8_0") for each in ids if "f16" in each}
    assert mapped(["host=board"], ids, ids) == {each: each.replace("host", "board") for each in ids if "host" in each}
    both = mapped(["host=board", "threads=1:threads=2"], ids, ids)
    assert both[ids[0]] == "m/q4_0/e+kv_type=f16+threads=2/board/chat" and len(both) == 6
    assert mapped(["q4_0=q8_0"], ["m/q4_0/a/t/w"], ["m/q8_0/a/t/w"]) == {"m/q4_0/a/t/w": "m/q8_0/a/t/w"}


def test_the_command_compares_cells_of_one_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    one = build_campaign(tmp_path, [Cell("q4_0", 40), Cell("q8_0", 30)])
    assert app.main(["compare", one.name, "--no-track"]) == UsageError.exit_code
    assert "--map before=after" in capsys.readouterr().err
    assert app.main(["compare", one.name, "--map", "q4_0=q8_0", "--no-track"]) == 0
    shown = capsys.readouterr().out
    assert "smollm2-135m/q4_0/llama.cpp/host/chat -> smollm2-135m/q8_0/llama.cpp/host/chat" in shown
    assert "DIFFERS" in shown
