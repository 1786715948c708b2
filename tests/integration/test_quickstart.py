"""The main job, as a user does it: a real engine, a real framework, a real model, real records, real replication."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meltrepro.measure.records import read_campaign
from tests.integration.conftest import ROOT, meltrepro

pytestmark = pytest.mark.machine

SPEC = ROOT / "specs" / "quickstart.yaml"
FEWER = (
    "--set=measure.limits.cpu_pressure=1",  # a machine that runs tests is busy
    *("--set", "protocol.repetitions=3"),
    *("--set", "workloads.chat.max_tokens=24"),
    # Two spinning threads on two busy cores wait for each other; tests need not be fast, but they must end.
    *("--set", "targets.host.threads=1"),
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart with its lock and prompts, in a folder where it may be changed."""
    folder = tmp_path_factory.mktemp("specs")
    shutil.copytree(ROOT / "specs", folder, dirs_exist_ok=True)
    return folder / "quickstart.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def campaign(engine: None, spec: Path, home: Path) -> Path:
    """One campaign of the quickstart."""
    done = meltrepro("run", spec, *FEWER, home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (home / "records").iterdir()
    return folder


def test_every_trial_has_a_complete_record(campaign: Path) -> None:
    document = json.loads((campaign / "campaign.json").read_text())
    assert [cell["quantization"] for cell in document["cells"]] == ["q8_0", "q4_0"]
    assert document["finished_wall_ns"] is not None
    for cell in document["cells"]:
        folder = campaign / "cells" / cell["id"]
        assert sorted(path.name for path in folder.iterdir()) == ["r000", "r001", "r002", "w000"]
        for trial in folder.iterdir():
            assert json.loads((trial / "outcome.json").read_text())["state"] == "ok"
            events = [json.loads(line) for line in (trial / "events.jsonl").read_text().splitlines()]
            assert events[0]["e"] == "hello"
            assert events[-1]["e"] == "done"
            assert {"process", "effective"} <= {event["e"] for event in events}
            assert any(event["e"] == "turn_end" and event["text"].strip() for event in events)


def test_prefill_generation_and_declared_gaps_are_the_whole_of_a_turn(campaign: Path) -> None:
    for cell in read_campaign(campaign).cells:
        assert cell.summaries["turn_accounted_share"].median >= 0.99


def test_greedy_repetitions_give_the_same_tokens(campaign: Path) -> None:
    document = json.loads((campaign / "campaign.json").read_text())
    for cell in document["cells"]:
        outputs = set()
        for trial in (campaign / "cells" / cell["id"]).iterdir():
            events = map(json.loads, (trial / "events.jsonl").read_text().splitlines())
            outputs.add(tuple(event["id"] for event in events if event["e"] == "token"))
        assert len(outputs) == 1
        assert len(outputs.pop()) > 10


def test_the_recorded_build_says_what_was_built(campaign: Path) -> None:
    """The script that ran; and the Dockerfile, where it was an engine with one that made what the store has."""
    scripts = sorted((campaign / "builds").rglob("build.sh"))
    assert scripts
    for script in scripts:
        assert (script.parent / "build.log").is_file()
        made_by = json.loads((script.parent / "provenance.json").read_text())["predicate"]["runDetails"]["builder"]
        dockerfile = script.parent / "Dockerfile"
        assert dockerfile.exists() is ("docker" in json.dumps(made_by).lower()), made_by
        assert not dockerfile.exists() or "FROM meltrepro/builder:" in dockerfile.read_text()
    lock = (campaign / "lock.yaml").read_text()
    assert "f7ff8eda538ca6c80521a8bbf80d3ef4527ecb28f6d08fa9b3bb1f0cfc3b684e" in lock
    assert "http" not in lock


def test_a_second_build_touches_no_engine(campaign: Path, spec: Path, home: Path) -> None:
    done = meltrepro("build", spec, "--json", home=home, DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows
    assert all(row["reused"] for row in rows)


def test_without_an_engine_the_message_says_what_to_do(spec: Path, tmp_path: Path) -> None:
    done = meltrepro("run", spec, home=tmp_path / "home", DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert done.returncode == 20
    assert "no Docker engine answers" in done.stderr
    assert "DOCKER_HOST names this engine: start it, or unset the variable" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bundle_replays_without_any_network(campaign: Path, spec: Path, home: Path, tmp_path: Path) -> None:
    """Export, check, import into an empty store in a namespace without interfaces, replay there."""
    if shutil.which("bwrap") is None or os.geteuid() != 0:
        pytest.fail("this test needs bubblewrap and root: meltrepro doctor --fix --tests")
    bundle = tmp_path / "quickstart.melt"
    done = meltrepro("bundle", "export", campaign, "-o", bundle, home=home)
    assert done.returncode == 0, done.stderr
    done = meltrepro("bundle", "verify", bundle)
    assert done.returncode == 0, done.stderr
    assert "built here: the same bytes  llama.cpp/run/" in done.stdout
    elsewhere = {"MELTREPRO_HOME": str(tmp_path / "home"), "MELTREPRO_CACHE": str(tmp_path / "cache")}
    command = [
        "replay",
        str(bundle),
        "--engine",
        "process",
        "--margin",
        "0.9",
        "--maximum",
        "5",
        "--all-cells",  # noise can make one INVALID, and this test is not about noise
        "--no-track",
        "--json",
    ]
    replayed = subprocess.run(
        ["unshare", "--net", sys.executable, "-m", "meltrepro", *command],
        cwd=tmp_path,
        env={**os.environ, **elsewhere},
        capture_output=True,
        text=True,
        check=False,
    )
    assert replayed.returncode in (0, 60, 61), replayed.stderr
    assert "runs programs that came with this record and were not built here: llama.cpp/run/" in replayed.stderr
    answer = json.loads(replayed.stdout)
    assert answer["verdict"] in ("REPRODUCED", "DIFFERS", "INCONCLUSIVE")
    assert not (tmp_path / "cache" / "store" / "refs" / "artifacts").exists(), "nothing was built here"
    assert [cell["tokens"]["turns"][0]["diverges_at"] for cell in answer["cells"]] == [None, None]


def test_a_flipped_byte_in_a_bundle_is_named(campaign: Path, home: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "a.melt"
    assert meltrepro("bundle", "export", campaign, "-o", bundle, home=home).returncode == 0
    raw = bytearray(bundle.read_bytes())
    at = raw.rindex(b'"e":"done"')
    raw[at + 6] ^= 1
    bundle.write_bytes(raw)
    done = meltrepro("bundle", "import", bundle, home=tmp_path / "home")
    assert done.returncode == 50
    assert "events.jsonl is damaged" in done.stderr
    assert not (tmp_path / "home" / "records").exists()


def test_compare_lists_both_sides(campaign: Path, home: Path) -> None:
    done = meltrepro("compare", campaign, campaign, "--no-track", home=home)
    assert done.returncode == 0, done.stderr
    assert "the same tokens in all" in done.stdout
    assert "generation_tps" in done.stdout
