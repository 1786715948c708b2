"""What `meltrepro replay` changes in a recorded manifest."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from meltrepro.cli.replay import _overrides
from meltrepro.errors import UsageError
from meltrepro.spec.manifest import Manifest
from tests.support.manifests import GOOD, load


@pytest.fixture
def recorded(tmp_path: Path) -> Manifest:
    targets = {"desk": {"kind": "host", "threads": 2}, "spare": {"kind": "host", "sandbox": "bare"}}
    return load(tmp_path, GOOD, f"targets={yaml.safe_dump(targets, default_flow_style=True)}".strip()).manifest


def values(overrides: list[str]) -> dict[str, object]:
    return {path: yaml.safe_load(text) for path, _, text in (override.partition("=") for override in overrides)}


def test_nothing_asked_nothing_changed(recorded: Manifest) -> None:
    assert _overrides(recorded, None, None, None) == []
    assert values(_overrides(recorded, 0.1, 7, None)) == {"replay.margin": 0.1, "replay.maximum": 7}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("spare", {"kind": "host", "sandbox": "bare"}),
        ("host", {"kind": "host"}),
        ("{kind: host, threads: 4}", {"kind": "host", "threads": 4}),
    ],
)
def test_another_target_stands_under_every_recorded_name(
    recorded: Manifest, target: str, expected: dict[str, object]
) -> None:
    (override,) = _overrides(recorded, None, None, target)
    assert "\n" not in override
    assert values([override]) == {"targets": {"desk": expected, "spare": expected}}


def test_a_target_that_is_no_yaml(recorded: Manifest) -> None:
    with pytest.raises(UsageError, match="neither a target of the manifest"):
        _overrides(recorded, None, None, "{kind: host")


def test_the_file_of_a_meter_is_not_taken_for_a_measurement_of_today(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meter = {"file": "power.csv", "time": "t", "columns": {"P": "W"}}
    targets = yaml.safe_dump({"desk": {"kind": "host", "meter": meter}}, default_flow_style=True, width=1000).strip()
    recorded = load(tmp_path, GOOD, f"targets={targets}", "measure.energy=required").manifest
    changed = values(_overrides(recorded, None, None, None))
    assert changed == {"targets": {"desk": {"kind": "host"}}, "measure.energy": "if-available"}
    assert "without the meter of desk" in capsys.readouterr().err
    again = values(_overrides(recorded, None, None, "{kind: host, meter: {file: here.csv, time: t, columns: {P: W}}}"))
    assert again["targets"]["desk"]["meter"]["file"] == str(Path.cwd() / "here.csv")  # type: ignore[index]
