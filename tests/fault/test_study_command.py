"""`meltrepro study` from its arguments to its report; only building is left out, the runner is the rig's script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from meltrepro import workflow
from meltrepro.cli.app import main
from meltrepro.errors import DeviceBusy, UsageError
from meltrepro.manifest.lock import load_lock
from meltrepro.record.reader import campaign_folders
from meltrepro.record.study import read_study
from meltrepro.steps import Step
from meltrepro.store.cas import Store
from meltrepro.targets.device_lock import hold
from meltrepro.targets.host.target import host_id
from tests.fault.project import Project, small
from tests.support.json_output import schema

ELSEWHERE: dict[str, object] = {"targets": {"phone": {"kind": "android", "lab": "phone"}}}
MODEL: dict[str, object] = {"source": {"file": "local.gguf"}, "chat_template": "plain", "quantizations": ["as-is"]}
TOO_LARGE: dict[str, object] = {"models": {"m": {**MODEL, "context": 16}}}


def write(specs: Path, file: str, **changes: object) -> Path:
    """A manifest of one workload."""
    path = specs / file
    path.write_text(yaml.safe_dump(small(path.stem[2:], {"one": "sleep 0"}, **changes)))
    return path


@pytest.fixture
def specs(equipped: Project) -> Path:
    """A folder of three manifests, of which this machine can run one."""
    specs = equipped.folder / "specs"
    equipped.spec.parent.rename(specs)
    write(specs, "1-here.yaml", study="melt")
    write(specs, "2-phone.yaml", **ELSEWHERE)
    write(specs, "3-large.yaml", **TOO_LARGE)
    return specs


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
    assert large[:2] == ("3-large.yaml", False) and large[2] and "context of 64" in large[2]
    report = tmp_path / "home/studies/specs/report"
    assert "Left out" in (report / "index.html").read_text()
    assert "3-large.yaml" in (report / "tables/left-out.csv").read_text()
    assert json.loads((report / "report.json").read_bytes())["study"] == "specs"
    assert "findings of melt: " in out and "meltrepro findings specs" in out


def test_what_a_study_would_run(specs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(specs, "--dry-run") == 0
    out = capsys.readouterr().out
    names = [line.split("/")[-1] for line in out.splitlines() if line.startswith("== ")]
    assert names == ["1-here.yaml", "2-phone.yaml", "3-large.yaml"]
    assert "no virtual device" in out or "skipped" in out
    assert out.splitlines()[-1] == "3 manifests: 1 cell, 2 trials"
    assert study(specs, "--dry-run", "--json") == 0
    plans = json.loads(capsys.readouterr().out)
    schema("study-plans").validate(plans)
    assert [len(each["cells"]) for each in plans] == [1, 0, 0]
    assert not (specs.parent / "home/studies").exists()


def test_the_report_of_a_study_can_be_made_again_from_records_alone(
    specs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(specs, "-o", tmp_path / "report") == 0
    assert main(["report", "--from-records", "-o", str(tmp_path / "report")]) == 0
    assert "the same bytes" in capsys.readouterr().out
    assert main(["findings", "specs", "--json"]) == 0


def test_another_campaign_on_the_device_is_no_reason_to_leave_anything_out(specs: Path, tmp_path: Path) -> None:
    with hold(host_id(), "another"):
        assert study(specs) == DeviceBusy.exit_code
    assert not (tmp_path / "home/studies/specs/study.json").exists()
    assert study(specs) == 0


def test_models_are_dropped_when_they_are_measured(
    specs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write(specs, "1-here.yaml", models={"m": {**MODEL, "quantizations": ["q4_0"]}})
    store = Store(tmp_path / "cache/store")

    assert study(spec, "--name", "kept") == 0
    lock = load_lock(spec.with_name("1-here.lock.yaml"))
    assert lock is not None
    (digest,) = [each.digest for name, each in lock.artifacts.items() if name == "m/q4_0/llama.cpp"]
    assert store.has(digest), "nobody asked for that"
    store.release()
    assert study(spec, "--name", "dropped", "--drop-models") == 0
    assert not store.has(digest)
    assert "dropped models that are measured: " in capsys.readouterr().err
    assert study(spec, "--name", "dropped", "--drop-models") == 0, "what is gone already is no mistake"


def test_what_was_measured_before_is_no_part_of_the_time_left(specs: Path) -> None:
    """Else a study that is gone on with would announce hours."""
    before = write(specs, "5-before.yaml")
    workflow.study([before], track=False)

    def left_s(*, new: bool) -> list[float | None]:
        steps: list[Step] = []
        workflow.study([specs / "1-here.yaml", before], track=False, new=new, sink=steps.append)
        begun = [step for step in steps if (step.name, step.phase) == ("manifest", "begin")]
        return [step.detail["left_s"] for step in begun]

    assert left_s(new=False) == [None, 0]
    first, left = left_s(new=True)
    assert first is None and left is not None and left > 0


def test_every_manifest_is_checked_before_any_is_run(specs: Path, tmp_path: Path) -> None:
    (specs / "4-wrong.yaml").write_text("meltrepro: 1\nname: wrong\n")
    assert study(specs) == 3
    assert campaign_folders(tmp_path / "home/records") == []


def test_a_name_that_is_none(specs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(specs, "--name", "../out") == UsageError.exit_code
    assert "--name: '../out' is no name" in capsys.readouterr().err
