"""`meltrepro tune` from its arguments to the manifest that it writes; only building is left out, the runner is the rig's script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro import errors, workflow
from meltrepro.campaign import runner
from meltrepro.campaign.trial import run_trial
from meltrepro.cli.app import main
from meltrepro.record.reader import campaign_folders
from tests.fault.project import Project, Refuse, small
from tests.support.json_output import checked

FLAGS = {"llama.cpp": {"release": "2026-10-01", "options": {"ubatch": [8, 16]}}}


def write(project: Project, order: str = "pace-on-paper 10", **changes: Any) -> Path:
    """A manifest of one cell, whose batch is to be found."""
    changes = {"targets": {"host": {"kind": "host", "sandbox": "bare", "threads": 1}}, **changes}
    whole = small("slow", {"one": order}, **changes)
    project.spec.write_text(yaml.safe_dump(whole))
    return project.spec


def tune(spec: Path, *arguments: str | Path) -> int:
    return main(["tune", str(spec), "--for", "generation_tps", "--no-track", *map(str, arguments)])


def records(project: Project) -> list[Path]:
    return campaign_folders(project.folder / "home" / "records")


def test_a_manifest_is_written_that_validates_and_runs(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped, frameworks=FLAGS)
    assert tune(spec, "--over", "workloads.one.batch=16,32", "--within", "memory=1GB", "-q") == 0
    said = capsys.readouterr()
    assert "at most" in said.err and "all combinations" in said.err
    assert "best for generation_tps: " in said.out
    written = spec.with_name("spec.tuned.yaml")
    tuned = yaml.safe_load(written.read_text())
    assert tuned["include"] == ["spec.yaml"]
    assert tuned["frameworks"]["llama.cpp"]["options"]["ubatch"] in (8, 16)
    assert tuned["workloads"]["one"]["batch"] in (16, 32, 512)
    assert main(["validate", str(written)]) == 0
    assert main(["run", str(written), "--no-track", "-q"]) == 0


def test_what_was_measured_is_not_measured_again(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped)
    document = checked(capsys)(
        "tune", "tune", spec, "--for", "generation_tps", "--no-track", "--over", "workloads.one.batch=16"
    )
    before = records(equipped)
    assert document["campaigns"] == [folder.name for folder in before]
    assert {each["n"] for each in document["settings"]} <= {3, 6}
    assert document["plan"]["keys"] == {"workloads.one.batch": [512, 16]}
    assert tune(spec, "--over", "workloads.one.batch=16", "--force") == 0
    assert "measured already" in capsys.readouterr().err
    assert records(equipped) == before


def test_a_search_that_was_stopped_goes_on(equipped: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, ended = write(equipped), 0
    usual = run_trial

    def stopped(*arguments: Any, **options: Any) -> Any:
        nonlocal ended
        ended += 1
        if ended == 4:
            raise KeyboardInterrupt
        return usual(*arguments, **options)

    monkeypatch.setattr(runner, "run_trial", stopped)
    assert tune(spec, "--over", "workloads.one.batch=16") == errors.Interrupted.exit_code
    assert not spec.with_name("spec.tuned.yaml").exists()
    (first,) = records(equipped)
    assert tune(spec, "--over", "workloads.one.batch=16") == 0
    assert records(equipped)[0] == first
    assert sum(len(cell.trials) for cell in workflow.load(first).cells) == 6


def test_where_every_setting_is_out_nothing_is_written(equipped: Project, refuse: Refuse) -> None:
    arguments = ("--for", "generation_tps", "--no-track", "--over", "workloads.one.batch=16")
    spec = write(equipped, measure={"limits": {"min_tokens": 100}})
    refusal = refuse(errors.TrialFailed, "tune", spec, *arguments)
    assert "workloads.one.batch=512: INVALID" in refusal.message
    refusal = refuse(errors.TrialFailed, "tune", write(equipped), *arguments, "--within", "memory=1")
    assert "peak_memory_bytes 2 above 1" in refusal.message
    refusal = refuse(errors.TrialFailed, "tune", write(equipped, "exit 3"), *arguments)
    assert "workloads.one.batch=16: failed" in refusal.message
    assert not spec.with_name("spec.tuned.yaml").exists()


def test_what_cannot_be_searched_is_said_before_anything_is_run(equipped: Project, refuse: Refuse) -> None:
    spec = write(equipped)
    named = ("tune", spec, "--for", "generation_tps")
    assert "did you mean 'generation_tps'" in refuse(errors.UsageError, "tune", spec, "--for", "generation_tp").hint
    assert "1GB" in refuse(errors.UsageError, *named, "--within", "memory=much").hint
    assert "--most 18" in refuse(errors.UsageError, *named, "--most", "3").hint
    assert "protocol" in refuse(errors.UsageError, *named, "--over", "protocol.seed=1,2").message
    assert main([*map(str, named), "--over", "workloads.one.batch=0"]) == errors.ManifestError.exit_code
    spec.with_name("spec.tuned.yaml").touch()
    assert "--force" in refuse(errors.UsageError, *named).hint
    spec.with_name("spec.tuned.yaml").unlink()
    several = write(equipped, workloads={name: {"conversations": [["x"]]} for name in ("one", "two")})
    assert "--only 'm/as-is/llama.cpp/host/one'" in refuse(errors.UsageError, "tune", several, *named[2:]).hint
    assert records(equipped) == []


def test_what_would_be_searched(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    spec = write(equipped, targets={"host": {"kind": "host", "sandbox": "bare"}})
    document = checked(capsys)("tune-plan", "tune", spec, "--for", "ttft_ms", "--dry-run", "--within", "memory=1GB")
    assert document["keys"]["workloads.one.batch"] == [512, 32]
    threads = document["keys"]["targets.host.threads"]
    assert threads[0] == max(threads) and document["within"] == {"peak_memory_bytes": 1e9}
    assert tune(spec, "--dry-run") == 0
    assert "targets.host.threads: " in capsys.readouterr().out
    lengths = {"long": {"conversations": "pp64/tg4", "depth": [8, 16]}}
    spec = write(equipped, workloads=lengths, targets={"host": {"kind": "host", "sandbox": "bare"}})
    document = checked(capsys)(
        *("tune-plan", "tune", spec, "--for", "ttft_ms", "--dry-run", "--only", "*-depth8"),
        *("--over", "targets.host.threads=1000"),
    )
    assert document["keys"] == {"targets.host.threads": [max(threads), 1000]}, (
        "a workload of a list is no key of the file"
    )
    assert records(equipped) == []
