"""Campaigns to trends, and how these are shown."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from meltrepro.cli.app import main
from meltrepro.errors import NothingToCompare, UsageError
from meltrepro.history.page import drawing, html
from meltrepro.history.text import text
from meltrepro.history.trends import History, build_history, in_order
from meltrepro.measure.records import read_campaign
from meltrepro.record.calibrations import Calibration, CalibrationSession
from meltrepro.record.campaign import CALIBRATIONS, CAMPAIGN
from tests.support.campaigns import Cell, build_campaign
from tests.support.json_output import checked

OLD = tuple(f"0.3.{number}" for number in (9, 20, 21, 22))


def campaign(
    home: Path,
    releases: Mapping[str, float],
    number: int = 0,
    *,
    params: Mapping[str, str] | None = None,
    quantization: str = "q4_0",
    virtual: bool = False,
) -> Path:
    """A campaign of one cell a release, each an entry of one framework, with its tokens per second."""
    cells = [
        Cell(quantization, framework=f"entry{place}", release=release, tokens_per_second=speed)
        for place, (release, speed) in enumerate(releases.items())
    ]
    folder = build_campaign(home, cells, repetitions=5, number=number, virtual=virtual)
    document = json.loads((folder / CAMPAIGN).read_bytes())
    for entry in document["cells"]:
        entry["params"] |= {"kind": "llama.cpp", **(params or {})}
    (folder / CAMPAIGN).write_text(json.dumps(document))
    return folder


def made(folders: Sequence[Path], *arguments: str, by: str = "release") -> History:
    return build_history([read_campaign(folder) for folder in folders], by, arguments)  # type: ignore[arg-type]


def test_releases_are_in_the_order_of_their_numbers() -> None:
    assert order("0.3.20", "0.3.9", "0.3.36", "0.3.10") == ("0.3.9", "0.3.10", "0.3.20", "0.3.36")
    assert order("b4000", "b999", kind="nobody's") == ("b999", "b4000")
    mixed = order("2026-10-01", "0.3.30", "2024-02-27", "0.3.99", "0.2.50")
    assert mixed == ("0.2.50", "2024-02-27", "0.3.30", "2026-10-01", "0.3.99")


def order(*releases: str, kind: str = "llama.cpp") -> Sequence[str]:
    return in_order(dict.fromkeys(releases, kind))


def test_cells_of_several_entries_and_campaigns_make_one_course(tmp_path: Path) -> None:
    first = campaign(tmp_path, dict.fromkeys(OLD, 55.0))
    second = campaign(tmp_path, {"0.3.22": 55.0, "0.3.23": 40.0, "0.3.24": 40.0}, 1)
    history = made([second, first], "generation_tps")
    assert history.axis == (*OLD, "0.3.23", "0.3.24")
    assert history.campaigns == (first.name, second.name)
    (course,) = history.courses
    assert course.name == "smollm2-135m/q4_0/llama.cpp/host/chat"
    (trend,) = course.trends
    assert [(each.at, each.campaign) for each in trend.reached][3:5] == [
        ("0.3.22", first.name),
        ("0.3.22", second.name),
    ]
    assert all(each.summary.low <= each.summary.median <= each.summary.high for each in trend.reached)
    (change,) = trend.changes
    assert (change.before, change.after, change.better, change.border) == ("0.3.22", "0.3.23", False, False)
    assert change.low < 40 / 55 < change.high


def test_a_change_that_nobody_measured_both_sides_of_says_so(tmp_path: Path) -> None:
    folders = [campaign(tmp_path, {release: 55.0}, place) for place, release in enumerate(OLD)]
    folders += [campaign(tmp_path, {release: 70.0}, place) for place, release in enumerate(("0.3.30", "0.3.31"), 4)]
    (change,) = made(folders, "generation_tps").courses[0].trends[0].changes
    assert (change.before, change.after, change.better, change.border) == ("0.3.22", "0.3.30", True, True)


def calibrate(folder: Path, between: float) -> None:
    """Give a campaign a calibration whose sessions vary by so much, as a share."""
    levels = [100 * math.exp(between * z) for z in (-1.2, 1.2, -0.7, 0.7, 1.0, -1.0)]
    sessions = [
        CalibrationSession(
            campaign="c",
            started_wall_ns=1,
            sampled=True,
            values={"generation_tps": [level * share for share in (0.999, 1.0, 1.001)]},
            times_s=[0.0, 1.0, 2.0],
        )
        for level in levels
    ]
    content = Calibration(device="d", work="0" * 64, cell="x", sessions=sessions).model_dump_json().encode()
    (folder / CALIBRATIONS).mkdir()
    (folder / CALIBRATIONS / "host.json").write_bytes(content)
    document = json.loads((folder / CAMPAIGN).read_bytes())
    document["files"] = {f"{CALIBRATIONS}/host.json": hashlib.sha256(content).hexdigest()}
    (folder / CAMPAIGN).write_text(json.dumps(document))


def test_a_device_whose_sessions_differ_shows_no_change_between_two_days(tmp_path: Path) -> None:
    """The same speeds: of a device of which nobody knows better they are a change, of a restless one they are none."""
    folders = [campaign(tmp_path, {OLD[place]: speed}, place) for place, speed in enumerate((100, 101, 112, 111))]
    (trend,) = made(folders, "generation_tps").courses[0].trends
    assert (trend.calibrated, trend.session_cv) == (False, 0.01) and len(trend.changes) == 1
    calibrate(folders[-1], 0.06)
    found = made(folders, "generation_tps")
    (trend,) = found.courses[0].trends
    assert trend.calibrated and 0.05 < trend.session_cv < 0.12 and not trend.changes
    assert f"calibrated: sessions differ by {trend.session_cv:.1%}" in text(found)
    assert "was calibrated" in text(found) and "replay.session_cv" not in text(found)


def test_days_are_an_axis_too(tmp_path: Path) -> None:
    folders = [campaign(tmp_path, {"0.3.9": 55.0, "0.3.20": 50.0}, place) for place in range(3)]
    history = made(folders, "generation_tps", by="date")
    assert history.axis == ("2026-11-23 04:01:02", "2026-11-23 05:01:02", "2026-11-23 06:01:02")
    assert [course.name for course in history.courses] == [
        f"smollm2-135m/q4_0/llama.cpp {release}/host/chat" for release in ("0.3.9", "0.3.20")
    ]
    assert all(not trend.changes for course in history.courses for trend in course.trends)


@pytest.mark.parametrize(
    "other", [{"request_digest": "b"}, {"device.id": "another"}, {"settings.governor": "powersave"}]
)
def test_what_was_asked_or_done_otherwise_is_another_course(tmp_path: Path, other: Mapping[str, str]) -> None:
    usual = {"request_digest": "a", "device.id": "one", "settings.governor": "performance"}
    folders = [
        campaign(tmp_path, {"0.3.9": 55.0, "0.3.20": 55.0}, 0, params=usual),
        campaign(tmp_path, {"0.3.21": 40.0, "0.3.22": 40.0}, 1, params={**usual, **other}),
    ]
    history = made(folders, "generation_tps")
    names = ["smollm2-135m/q4_0/llama.cpp/host/chat #1", "smollm2-135m/q4_0/llama.cpp/host/chat #2"]
    assert [course.name for course in history.courses] == names
    assert [[each.at for each in course.trends[0].reached] for course in history.courses] == [
        ["0.3.9", "0.3.20"],
        ["0.3.21", "0.3.22"],
    ]


def test_virtual_devices_stand_beside_no_real_ones(tmp_path: Path) -> None:
    folders = [campaign(tmp_path, {"0.3.9": 55.0}), campaign(tmp_path, {"0.3.20": 55.0}, 1, virtual=True)]
    with pytest.raises(NothingToCompare, match="one release alone"):
        made(folders)
    folders.append(campaign(tmp_path, {"0.3.21": 55.0}, 2, virtual=True))
    history = made(folders, "generation_tps")
    assert [course.virtual for course in history.courses] == [True]
    assert "[virtual]" in text(history) and "Some devices are virtual" in html(history)


def test_cells_without_a_believed_figure_are_left_out_with_the_reason(tmp_path: Path) -> None:
    folder = build_campaign(
        tmp_path,
        [
            Cell("q4_0", 55, framework="llama.cpp", release="0.3.9"),
            Cell("q8_0", 40, failing={0: "out of memory", 1: "out of memory", 2: "out of memory"}),
        ],
    )
    other = build_campaign(tmp_path, [Cell("q4_0", 55, release="0.3.20"), Cell("q8_0", 40, release="0.3.20")], number=1)
    history = made([folder, other])
    assert history.left_out == {
        f"smollm2-135m/q8_0/llama.cpp/host/chat of {folder.name}": "no repetition ended well",
        f"smollm2-135m/q8_0/llama.cpp/host/chat of {other.name}": "measured at one release alone",
    }


def test_another_file_of_the_model_at_the_same_release_is_remarked(tmp_path: Path) -> None:
    folders = [campaign(tmp_path, {"0.3.9": 55.0}), campaign(tmp_path, {"0.3.9": 55.0, "0.3.20": 55.0}, 1)]
    document = json.loads((folders[1] / CAMPAIGN).read_bytes())
    document["cells"][0]["model_digest"] = "f" * 64
    (folders[1] / CAMPAIGN).write_text(json.dumps(document))
    (remark,) = made(folders).courses[0].remarks
    assert remark.startswith("2 files of the model at release 0.3.9")


def test_a_page_holds_figures_changes_and_campaigns(tmp_path: Path) -> None:
    folders = [
        campaign(tmp_path, dict.fromkeys(OLD, 55.0)),
        campaign(tmp_path, {"0.3.22": 55.0, "0.3.23": 40.0, "0.3.24": 40.0}, 1),
    ]
    history = made(folders, "generation_tps", "prefill_tps")
    page = html(history)
    assert page == html(history)
    assert page.count("<figure") == 2 and 'class="rule"' not in page  # both campaigns have 0.3.22: no border
    assert "0.3.23" in page and folders[1].name in page and "-27" in page
    with pytest.raises(UsageError, match="one metric"):
        drawing(history)
    alone = drawing(made([folders[0], campaign(tmp_path, {"0.3.30": 55.0}, 2)], "generation_tps"))
    assert alone.startswith(b"<svg") and b'class="rule"' in alone  # and here is one


def test_the_command_finds_what_goes_with_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    folders = [campaign(tmp_path, {release: 55.0}, place) for place, release in enumerate(OLD)]
    campaign(tmp_path, {"0.3.25": 55.0}, 5, quantization="q8_0")
    newest = campaign(tmp_path, {"0.3.23": 40.0}, 6)
    document = checked(capsys)("history", "history", "--metric", "generation_tps")
    assert document["campaigns"] == [folder.name for folder in (*folders, newest)]
    assert document["courses"][0]["trends"][0]["changes"][0]["after"] == "0.3.23"
    assert main(["history", "--metric", "generation_tps"]) == 0
    shown = capsys.readouterr().out
    assert "change from 0.3.22 to 0.3.23: -2" in shown and "another cause" in shown
    assert main(["history", "-o", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert "written, with" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--metric", "generation"], 2, "did you mean 'generation_tps'?"),
        (["--only", "nothing/*"], 2, "nothing/*"),
        (["last"], None, "measured at one release alone"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    code: int | None,
    said: str,
) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    for place, release in enumerate(OLD[:2]):
        campaign(tmp_path, {release: 55.0}, place)
    assert main(["history", *arguments]) == (code if code is not None else NothingToCompare.exit_code)
    assert said in capsys.readouterr().err


def test_without_campaigns_it_says_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    assert main(["history"]) == UsageError.exit_code
    assert "meltrepro run SPEC" in capsys.readouterr().err


def test_one_repetition_each_is_shown_and_not_judged(tmp_path: Path) -> None:
    cells = [Cell("q4_0", 55, repetitions=1), Cell("q4_0", 20, repetitions=1, release="2026-10-01")]
    folders = [build_campaign(tmp_path, [cell], number=place) for place, cell in enumerate(cells)]
    (trend,) = made(folders, "generation_tps").courses[0].trends
    assert trend.changes == () and trend.unjudged is not None and "too few" in trend.unjudged
