"""`meltrepro study` from its arguments to its report; only building is left out, the runner is the rig's script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.campaign.setup import Setup
from meltrepro.cli import study as study_module
from meltrepro.cli.app import main
from meltrepro.cli.study import Clock
from meltrepro.errors import DeviceBusy, UsageError
from meltrepro.manifest.lock import Lock, LockedArtifact, dump_lock
from meltrepro.measure.records import campaign_folders
from meltrepro.record.study import read_study
from meltrepro.store.cas import Store
from meltrepro.targets.device_lock import hold, lock_path
from meltrepro.targets.host.target import host_id
from meltrepro.workflow import campaigns
from tests.fault import rig

MANIFEST: dict[str, Any] = {
    "meltrepro": 1,
    "models": {"m": {"source": {"file": "m.gguf"}, "chat_template": "plain", "quantizations": ["as-is"]}},
    "frameworks": {"llama.cpp": {"release": "2024-02-27"}},
    "workloads": {"chat": {"conversations": [["Hi"]]}},
}
ELSEWHERE: dict[str, Any] = {"name": "phone", "targets": {"phone": {"kind": "android", "lab": "phone"}}}
TOO_LARGE: dict[str, Any] = {"name": "large", "models": {"m": {**MANIFEST["models"]["m"], "context": 16}}}


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three manifests, of which this machine can run one; the rig's campaign stands for that."""
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")
    folder = tmp_path / "specs"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF")
    for name, changes in {"1-here": {"name": "here"}, "2-phone": ELSEWHERE, "3-large": TOO_LARGE}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**MANIFEST, **changes}))
    protocol = {"repetitions": 2, "warmups": 0, "timeout_s": 30, "order": "as-written"}

    def prepared(*_: object, **__: object) -> Setup:
        return rig.make_setup(tmp_path, rig.Spec({"one": "sleep 0"}, protocol, study="melt"))

    monkeypatch.setattr(campaigns, "prepare", prepared)
    return folder


def study(*arguments: str | Path) -> int:
    return main(["study", "--no-track", *map(str, arguments)])


def entries(folder: Path) -> Sequence[tuple[str, bool, str | None]]:
    found = read_study(folder / "home/studies/specs/study.json").entries
    return [(each.manifest, each.campaign is not None, each.reason) for each in found]


def test_what_cannot_be_run_here_is_left_out_with_its_reason(
    specs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(specs) == 0
    out, err = capsys.readouterr()
    assert "study specs: 1 of 3, 1-here.yaml" in err
    assert "study specs: 3 of 3, 3-large.yaml" in err
    here, phone, large = entries(tmp_path)
    assert here == ("1-here.yaml", True, None)
    assert phone[:2] == ("2-phone.yaml", False) and phone[2] and "lab" in phone[2]
    assert large[:2] == ("3-large.yaml", False) and large[2] and "context of 2048" in large[2]
    report = tmp_path / "home/studies/specs/report"
    assert "Left out" in (report / "index.html").read_text()
    assert "3-large.yaml" in (report / "tables/left-out.csv").read_text()
    assert json.loads((report / "report.json").read_bytes())["study"] == "specs"
    assert "findings of melt: " in out and "meltrepro findings specs" in out


def test_the_report_of_a_study_can_be_made_again_from_records_alone(
    specs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(specs, "-o", tmp_path / "report") == 0
    assert main(["report", "--from-records", "-o", str(tmp_path / "report")]) == 0
    assert "the same bytes" in capsys.readouterr().out
    assert main(["findings", "specs", "--json"]) == 0


def test_another_campaign_on_the_device_is_no_reason_to_leave_anything_out(specs: Path, tmp_path: Path) -> None:
    with hold(lock_path(rig.settings(tmp_path).run, host_id()), "another"):
        assert study(specs) == DeviceBusy.exit_code
    assert not (tmp_path / "home/studies/specs/study.json").exists()
    assert study(specs) == 0


def test_models_are_dropped_when_they_are_measured(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {**MANIFEST["models"]["m"], "quantizations": ["q4_0"]}
    (specs / "1-here.yaml").write_text(yaml.safe_dump({**MANIFEST, "name": "here", "models": {"m": model}}))
    store = Store(tmp_path / "cache/store")
    digest = store.put_bytes(b"a model that was made")
    store.release()
    artifacts = {"m/q4_0/llama.cpp": LockedArtifact(key="0" * 64, digest=digest)}
    lock = dump_lock(Lock(lock=1, manifest="0" * 64, artifacts=artifacts))

    def prepared(*_: object, **__: object) -> Setup:
        made = rig.make_setup(tmp_path, rig.Spec({"one": "sleep 0"}, {"repetitions": 1, "warmups": 0}))
        return replace(made, lock_text=lock)

    monkeypatch.setattr(campaigns, "prepare", prepared)
    assert study(specs / "1-here.yaml", "--name", "kept") == 0
    assert store.has(digest), "nobody asked for that"
    assert study(specs / "1-here.yaml", "--name", "dropped", "--new", "--drop-models") == 0
    assert not store.has(digest)
    assert "dropped models that are measured: 21 B" in capsys.readouterr().err
    assert study(specs / "1-here.yaml", "--name", "dropped", "--drop-models") == 0, "what is gone already is no mistake"


def test_what_was_measured_before_is_no_part_of_the_time_left(
    specs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a study that is gone on with would announce hours."""
    assert study(specs / "1-here.yaml", "--name", "first") == 0
    (measured,) = campaign_folders(tmp_path / "home/records")
    clocks: list[Sequence[float]] = []

    def clock(efforts: Sequence[float]) -> Clock:
        clocks.append(efforts)
        return Clock(efforts)

    monkeypatch.setattr(study_module, "Clock", clock)
    # The rig's campaign is of a manifest of its own.
    monkeypatch.setattr(study_module, "_finished", lambda manifest, _: measured if "1-" in manifest.path.name else None)
    assert study(specs) == 0
    assert study(specs, "--new") == 0
    assert [[effort > 0 for effort in efforts] for efforts in clocks] == [[False, True, True], [True, True, True]]


def test_every_manifest_is_checked_before_any_is_run(specs: Path, tmp_path: Path) -> None:
    (specs / "4-wrong.yaml").write_text("meltrepro: 1\nname: wrong\n")
    assert study(specs) == 3
    assert campaign_folders(tmp_path / "home/records") == []


def test_a_name_that_is_none(specs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(specs, "--name", "../out") == UsageError.exit_code
    assert "--name: '../out' is no name" in capsys.readouterr().err
