"""Records that version 0.1 wrote stay readable.

`tests/data/records-0.1` holds campaigns of commit 54cdba6 as they were left on disk, but for the folder in their journals:
`plain` has one cell with a warm-up, two repetitions and a profile; `trouble` has two cells that failed for want of energy,
one with a score, and six that were skipped.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from meltrepro.campaign.request import request_digest
from meltrepro.cli import app
from meltrepro.measure.records import read_campaign
from meltrepro.record.outcomes import FailureKind
from meltrepro.replay.bundle import export
from meltrepro.steps import silent
from meltrepro.store.cas import Store

DATA = Path(__file__).parents[1] / "data" / "records-0.1"
DOCS = Path(__file__).parents[2] / "docs"


class FullStore(Store):
    """Says that it holds everything: the objects of these campaigns were left where they were made."""

    def has(self, digest: str) -> bool:
        return True

    def verify(self, digest: str, *, full: bool = False) -> Path:
        path = self.root / digest
        path.write_text(digest)
        return path

    def scoped(self, root: Path | None = None) -> FullStore:
        return self


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    records = tmp_path / "records"
    for path in sorted(DATA.glob("*.tar.gz")):
        with tarfile.open(path) as tar:
            tar.extractall(records)
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path))
    return tmp_path


def _folder(home: Path, name: str) -> Path:
    (folder,) = (home / "records").glob(f"*-{name}-*")
    return folder


def test_the_example_of_the_documentation_is_this_trial(home: Path) -> None:
    """docs/metrics.md works out the figures of a trial whose events docs/runner.md shows."""
    trial = next(one for one in read_campaign(_folder(home, "plain")).cells[0].trials if one.name == "r000")
    found = trial.metrics.values
    page = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert f"| {found['prefill_tps']:.0f} tokens/s |" in page
    assert f"| {found['generation_tps']:.0f} tokens/s |" in page
    assert f"| {found['ttft_ms']:.2f} ms |" in page
    token = r'{"e":"token","t":%d,"i":0,"id":1784}'
    first = next(
        each
        for line in (trial.folder / "events.jsonl").read_text().splitlines()
        if (each := json.loads(line))["e"] == "token"
    )
    assert token % (first["t"] // 1000 % 10**6) in (DOCS / "runner.md").read_text(encoding="utf-8")


def test_a_campaign_is_read(home: Path) -> None:
    campaign = read_campaign(_folder(home, "plain"))
    campaign.verify()
    (cell,) = campaign.cells
    assert [trial.name for trial in cell.trials] == ["w000", "r000", "r001", "p000"]
    assert cell.summaries["generation_tps"].median == pytest.approx(5262.75, rel=1e-4)
    assert "prefill" in cell.profiles
    assert campaign.manifest.models["tiny"].synthetic


def test_what_failed_and_what_was_skipped_is_read(home: Path) -> None:
    campaign = read_campaign(_folder(home, "trouble"))
    campaign.verify()
    ended = {cell.id: [trial.outcome.state for trial in cell.trials] for cell in campaign.cells}
    assert ended == {
        "tiny/q4_0/llama.cpp/host/chat": ["failed"],
        "smollm2/as-is/llama.cpp/host/chat": ["failed"],
        "smollm2/as-is/llama.cpp/host/text": ["ok"],
    }
    (score,) = campaign.cells[2].scores
    assert score.value == pytest.approx(1.2826)
    assert [finding.reason for finding in campaign.cells[0].validity.findings] == [FailureKind.unmeasured]
    assert [skip.kind for skip in campaign.document.skipped] == [
        "context",
        "accuracy",
        "memory",
        "context",
        "accuracy",
        "context",
    ]


def test_what_was_asked_is_the_same_as_then(home: Path) -> None:
    for name, mmap in (("plain", True), ("trouble", False)):
        campaign = read_campaign(_folder(home, name))
        for trial in (trial for cell in campaign.cells for trial in cell.trials):
            assert request_digest(trial.request) == trial.outcome.identities.request
        assert campaign.manifest.frameworks["llama.cpp"].options.model_dump()["mmap"] is mmap, (
            "it was no key of options then"
        )


def test_a_report_of_them(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert app.main(["report", "plain", "trouble", "-o", str(out)]) == 0
    page = (out / "index.html").read_text()
    assert "needs 26.3 GB of memory" in page
    assert "energy is required" in page


def test_they_are_compared(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["compare", "plain", "trouble"]) in (0, 1)
    assert "tiny/q4_0/llama.cpp/host/chat" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["plain", "trouble"])
def test_they_are_packed(home: Path, tmp_path: Path, name: str) -> None:
    store = FullStore(tmp_path / "store")
    store.root.mkdir(exist_ok=True)
    folder = _folder(home, name)
    index = export(folder, store, tmp_path / "it.bundle", silent)
    assert f"records/{folder.name}/campaign.json" in index.members
