"""`meltrepro report`: from records to files, again to the same bytes, and what it says when it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meltrepro.cli import app
from meltrepro.errors import RecordError, ReportDiffers, TrackingError
from meltrepro.track import logged as tracked_runs
from tests.support.campaigns import Cell, build_campaign


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def campaign(home: Path) -> Path:
    cells = [
        Cell("q8_0", 40),
        Cell("q4_0", 55, operators={"ffn_up": (320, 9_000_000), "output": (10, 1_000_000)}),
        Cell("q3_K", failing=dict.fromkeys(range(3), "crashed: <b>signal 11</b>")),
    ]
    return build_campaign(home, cells)


def test_the_last_campaign_becomes_a_report(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["report"]) == 0
    said = capsys.readouterr()
    assert re.fullmatch(r"report/index.html: written, and \d\d tables beside it as CSV and LaTeX\n", said.out)
    assert "meltrepro sync" in said.err
    page = (tmp_path / "report/index.html").read_text()
    assert "crashed: &lt;b&gt;signal 11&lt;/b&gt;" in page
    assert campaign.name in page
    assert str(tmp_path) not in page
    assert len(list((tmp_path / "report/tables").glob("*.tex"))) == len(
        list((tmp_path / "report/tables").glob("*.csv"))
    )


def test_from_records_gives_the_same_bytes(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["report", "--no-track", "-o", "r"]) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*")}
    (campaign / "tracking.json").write_text("not for reports")
    assert app.main(["report", "--from-records", "-o", "r"]) == 0
    assert re.search(r"r: the same bytes, \d+ files, from the records of 1 campaign\n", capsys.readouterr().out)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*")} == before
    assert app.main(["report", "--from-records", "-o", "other"]) == 0
    for path in (tmp_path / "r").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "other" / path.relative_to(tmp_path / "r")).read_bytes()


def test_a_report_that_was_changed_is_found_and_left_alone(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["report", "--no-track", "-o", "r"]) == 0
    table = tmp_path / "r/tables/throughput.csv"
    table.write_bytes(table.read_bytes().replace(b"host", b"lost"))
    assert app.main(["report", "--from-records", "-o", "r"]) == ReportDiffers.exit_code
    assert "tables/throughput.csv differs from byte" in capsys.readouterr().err
    assert b"lost" in table.read_bytes()
    assert app.main(["report", "--no-track", "-o", "r"]) == 0
    assert app.main(["report", "--from-records", "-o", "r"]) == 0


def test_all_campaigns_have_a_report_and_one_page_leads_to_them(
    campaign: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later, damaged = build_campaign(home, number=2), build_campaign(home, number=3)
    (damaged / "campaign.json").write_text("{")
    assert app.main(["report", "--all", "-o", "all"]) == 0
    assert capsys.readouterr().out == "all/index.html: written, with the reports of 2 campaigns\n"
    page = (tmp_path / "all/index.html").read_text()
    links = re.findall(r'<a href="([^#"]+)">synthetic</a>', page)
    assert links == [f"{later.name}/index.html", f"{campaign.name}/index.html"], "the newest first"
    assert all((tmp_path / "all" / link).is_file() for link in links)
    assert "2 VALID, 1 failed" in page
    assert "all VALID" in page
    assert f"{damaged.name}/campaign.json is damaged" in page
    assert str(tmp_path) not in page
    assert app.main(["report", "--all", "last"]) == 2


def test_another_campaign_is_another_report(
    campaign: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["report", "--no-track", "-o", "r"]) == 0
    later = build_campaign(home, number=2)
    assert app.main(["report", "--from-records", "-o", "r"]) == 0, "the campaigns are those of the report"
    assert app.main(["report", "--from-records", "last", "-o", "r"]) == ReportDiffers.exit_code
    assert app.main(["report", "--no-track", campaign.name, later.name, "-o", "both"]) == 0
    page = (tmp_path / "both/index.html").read_text()
    assert campaign.name in page
    assert later.name in page
    assert "campaign 2" in page
    assert app.main(["report", "--from-records", "-o", "both"]) == 0
    assert "of 2 campaigns" in capsys.readouterr().out


def test_a_record_that_was_changed_makes_no_report(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = next(campaign.rglob("events.jsonl"))
    outcome = events.with_name("outcome.json")
    outcome.write_text(outcome.read_text().replace('"ok"', '"fine"'))
    assert app.main(["report", "--no-track"]) == RecordError.exit_code
    assert "outcome.json is damaged" in capsys.readouterr().err
    assert not Path("report").exists()


def test_without_a_campaign(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["report"]) == 2
    assert "there is no campaign" in capsys.readouterr().err


def test_a_folder_that_is_a_file(campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("")
    assert app.main(["report", "--no-track", "-o", "taken"]) == 14
    assert "taken" in capsys.readouterr().err


@pytest.mark.parametrize("runs", [0, 1, 2])
def test_files_are_handed_to_mlflow(
    runs: int, campaign: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handed: list[tuple[list[Path], list[str]]] = []

    def take(folders: list[Path], files: dict[str, str], place: object) -> int:
        handed.append((list(folders), sorted(files)))
        return runs

    monkeypatch.setattr(tracked_runs, "attach", take)
    assert app.main(["report"]) == 0
    ((folders, names),) = handed
    assert folders == [campaign]
    assert "report/index.html" in names
    assert "report/tables/throughput.csv" in names
    said = capsys.readouterr()
    expected = {0: "not logged to MLflow", 1: "logged to 1 MLflow run, below report/", 2: "logged to 2 MLflow runs"}[
        runs
    ]
    assert expected in said.out + said.err
    assert app.main(["report", "--no-track"]) == 0
    assert len(handed) == 1


def test_a_server_that_is_away_costs_the_copy_only(
    campaign: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> int:
        raise TrackingError("the server at tracking.example does not answer")

    monkeypatch.setattr(tracked_runs, "attach", refuse)
    assert app.main(["report"]) == 0
    assert "not logged to MLflow: the server at tracking.example does not answer" in capsys.readouterr().err
    assert Path("report/index.html").is_file()


def test_the_page_names_the_commands_that_repeat_it(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["report", "--no-track", "-o", "r"]) == 0
    page = Path("r/index.html").read_text()
    (line,) = re.findall(r"meltrepro (report --from-records .*) -o FOLDER", page)
    assert app.main([*line.split(), "-o", "r"]) == 0
    assert "the same bytes" in capsys.readouterr().out
    assert f"meltrepro replay {campaign.name}" in page
