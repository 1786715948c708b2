"""What a program leaves in its record, and what a stranger's campaign holds: no link is followed, no pipe waited for."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from meltrepro import errors
from meltrepro.cli.app import main
from meltrepro.measure.records import read_campaign
from meltrepro.record import layout
from meltrepro.record import trial as record
from meltrepro.record.reader import read_outcome
from tests.fault import rig
from tests.fault.project import TRIAL, Project, Refuse
from tests.support.forks import Fork

pytestmark = pytest.mark.timeout(60)
ONCE = {"repetitions": 1, "warmups": 0, "timeout_s": 20, "retries": 2}
ROOT = Path(__file__).parents[2]
_KINDS = {
    "link": "a symbolic link",
    "hard-link": "a hard link",
    "pipe": "a pipe",
    "socket": "a socket",
    "device": "a device",
    "folder": "a folder",
    "endless": "larger than",
    "closed": "closed to its owner",
    "set-uid": "a program with its owner's rights",
}
_LATER = ("clocks.json", "device.json", "meter.jsonl", "outcome.json")
"""What is written when the runner has ended."""


def victim_of(folder: Path) -> Path:
    """A file that is none of the runner's business."""
    victim = folder / "bundle/bin/melt-runner.victim"
    victim.parent.mkdir(parents=True, exist_ok=True)
    victim.write_text("precious")
    victim.chmod(0o640)
    return victim


def tampered(folder: Path, order: str) -> tuple[Path, str]:
    """The record of a trial whose runner obeys `order`, and why it failed; nothing else may have come of it."""
    victim = victim_of(folder)
    result = rig.run(folder, rig.Spec({"bad": order, "good": "sleep 0"}, ONCE))
    ((trial, failure),) = result.tally.failed
    reason = str(failure)
    assert reason.startswith("tampered: "), reason
    assert result.tally.ok == 1, "the other cell goes on"
    assert victim.read_text() == "precious"
    assert victim.stat().st_mode & 0o7777 == 0o640
    there = layout.trial_folder(result.campaign.folder, trial)
    outcome = read_outcome(there)
    assert outcome is not None
    assert (outcome.exit_code, outcome.attempt, outcome.transient) == (0, 1, False)
    assert [path.name for path in there.parent.iterdir()] == ["r000"], "nor is anything tried again"
    for path in there.iterdir():
        assert path.name in (*record.SEALED, record.OUTCOME)
        assert path.is_file()
        assert not path.is_symlink()
        assert path.stat().st_size < 1 << 20
        assert b"precious" not in path.read_bytes()
    read_campaign(result.campaign.folder).verify()
    return there, reason


@pytest.mark.parametrize("name", ["events.jsonl", "x"])
@pytest.mark.parametrize("what", _KINDS)
def test_what_a_runner_leaves_is_an_outcome(tmp_path: Path, what: str, name: str) -> None:
    if what == "device" and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    _, reason = tampered(tmp_path, f"plant {what} {name}")
    ours = name == "x" and what in ("hard-link", "endless", "closed", "set-uid")
    assert f"{name} is {'no file of a trial' if ours else _KINDS[what]}" in reason


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
@pytest.mark.parametrize("name", ["request.json", "stdout.log", "stderr.log", "samples.jsonl", "sampler.log", *_LATER])
def test_no_file_of_the_record_is_read_or_written_through_another(tmp_path: Path, name: str, what: str) -> None:
    _, reason = tampered(tmp_path, f"plant {what} {name}")
    assert f"{name} is {_KINDS[what]}" in reason


@pytest.mark.parametrize("name", _LATER)
def test_a_runner_writes_no_file_that_is_not_its_own(tmp_path: Path, name: str) -> None:
    _, reason = tampered(tmp_path, f"plant file {name}")
    assert f"{name} is no file of a trial" in reason


def test_a_crowd_of_files(tmp_path: Path) -> None:
    _, reason = tampered(tmp_path, "plant crowd x")
    assert reason.endswith("and 2995 more")


@pytest.mark.parametrize(("name", "shown"), [("a%0ab", r"'a\nb'"), ("%1b[31m", r"'\x1b[31m'"), ("%ff", r"'\udcff'")])
def test_names_that_act_on_a_terminal(tmp_path: Path, name: str, shown: str) -> None:
    _, reason = tampered(tmp_path, f"plant file {name}")
    assert f"{shown} is no file of a trial" in reason


@pytest.mark.parametrize("name", ["core", "core.123", "llama.log"])
def test_litter_of_honest_programs_is_no_reason_to_fail(tmp_path: Path, name: str) -> None:
    result = rig.run(tmp_path, rig.Spec({"good": f"plant file {name}"}, ONCE))
    assert result.tally.ok == 1
    assert not list(result.campaign.folder.rglob(name))


@pytest.mark.parametrize(("number", "kinds"), [(0, []), (9, ["killed"]), (11, ["crashed"])])
def test_a_programs_scratch_folder_is_removed_and_damages_no_record(
    tmp_path: Path, number: int, kinds: list[str]
) -> None:
    result = rig.run(tmp_path, rig.Spec({"any": f"scratch {number}"}, {**ONCE, "retries": 0}))
    assert [str(failure).partition(":")[0] for _, failure in result.tally.failed] == kinds
    assert not list(result.campaign.folder.rglob("scratch"))
    read_campaign(result.campaign.folder).verify()


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_what_is_called_scratch_and_is_no_folder_is_tampering(tmp_path: Path, what: str) -> None:
    _, reason = tampered(tmp_path, f"plant {what} scratch")
    assert f"scratch is {_KINDS[what]}" in reason


def test_a_killed_campaign_believes_no_outcome_that_a_runner_wrote(tmp_path: Path) -> None:
    spec = rig.Spec({"bad": "plant-once file outcome.json"}, {**ONCE, "timeout_s": 60})
    campaign = Fork(rig.main, tmp_path, spec.text())
    while not any("outcome.json" in names for _, _, names in os.walk(tmp_path)):
        time.sleep(0.05)
        assert campaign.poll() is None
    campaign.send_signal(signal.SIGKILL)
    campaign.communicate()
    (folder,) = (tmp_path / "home/records").iterdir()
    (cell,) = read_campaign(folder).cells
    assert cell.trials == ()
    result = rig.run(tmp_path, spec)
    assert result.campaign.resumed
    ((_, failure),) = result.tally.failed
    reason = str(failure)
    assert reason.startswith("runner-error: exit status 3")


# -- campaigns of strangers -------------------------------------------------------------------------------------------


def plant(path: Path, what: str, victim: Path) -> None:
    """Put something in the place of a file or folder."""
    if path.exists():
        path.rename(victim.with_name(f"{path.name}.moved"))
    if what == "link":
        path.symlink_to(victim)
    elif what == "link to the same":
        path.symlink_to(victim.with_name(f"{path.name}.moved"))
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)


def commands(project: Project) -> dict[str, tuple[object, ...]]:
    """Every command that reads a campaign's folder."""
    new, folder = project.folder / "new", project.campaign
    return {
        "show": ("show", folder),
        "report": ("report", folder, "-o", new, "--no-track"),
        "replay": ("replay", folder, "--no-track"),
        "compare": ("compare", folder, folder, "--no-track"),
        "trace": ("trace", folder, "-o", new),
        "findings": ("findings", folder, "--study", "melt"),
        "sync": ("sync", folder),
        "export": ("bundle", "export", folder, "-o", new),
    }


COMMANDS = ("show", "report", "replay", "compare", "trace", "findings", "sync", "export")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("campaign.json", "link to the same"),
        ("campaign.json", "pipe"),
        ("manifest.yaml", "pipe"),
        ("journal.jsonl", "link"),
        ("tracking.json", "pipe"),
        ("notes", "socket"),
        ("cells", "link to the same"),
        (TRIAL, "link to the same"),
        (f"{TRIAL}/events.jsonl", "link to the same"),
        (f"{TRIAL}/outcome.json", "pipe"),
        (f"{TRIAL}/x", "link"),
    ],
)
def test_a_campaign_of_a_stranger(project: Project, refuse: Refuse, command: str, place: str, what: str) -> None:
    victim = project.folder / "victim"
    victim.write_text("precious")
    plant(project.campaign / place, what, victim)
    refusal = refuse(errors.RecordError, *commands(project)[command])
    assert place in refusal.message
    assert ("a symbolic link" if "link" in what else f"a {what}") in refusal.message
    assert victim.read_text() == "precious"
    assert not list(project.folder.glob("new*"))


@pytest.mark.parametrize("command", ["report", "replay", "compare", "trace", "export"])
def test_a_file_that_claims_a_terabyte(project: Project, refuse: Refuse, command: str) -> None:
    os.truncate(project.campaign / TRIAL / "events.jsonl", 1 << 40)
    refusal = refuse(errors.RecordError, *commands(project)[command])
    assert f"{TRIAL}/events.jsonl" in refusal.message
    assert "1,099,511,627,776 bytes" in refusal.message


@pytest.mark.parametrize("command", ["sync", "export"])
def test_a_file_without_a_digest_that_claims_a_terabyte(project: Project, refuse: Refuse, command: str) -> None:
    os.truncate(project.campaign / "journal.jsonl", 1 << 40)
    assert "journal.jsonl" in refuse(errors.RecordError, *commands(project)[command]).message


@pytest.mark.parametrize("name", [b"a\nb", b"\x1b[31m", b"\xff"])
def test_a_name_that_cannot_be_shown(project: Project, refuse: Refuse, name: bytes) -> None:
    (project.campaign / os.fsdecode(name)).touch()
    refusal = refuse(errors.RecordError, *commands(project)["export"])
    assert "a name that cannot be shown" in refusal.message
    assert "\x1b" not in refusal.message


def test_what_is_still_being_made_is_in_no_bundle(project: Project) -> None:
    """A trial that was killed in the middle; its program could write whatever it liked."""
    there = layout.unfinished_folder(project.campaign / TRIAL)
    there.mkdir()
    (there / "x").symlink_to("/etc/passwd")
    out = project.folder / "new"
    assert main(["bundle", "export", str(project.campaign), "-o", str(out)]) == 0
    assert there.name.encode() not in out.read_bytes()


def test_a_campaign_does_not_name_files_of_what_was_not_looked_at(project: Project, refuse: Refuse) -> None:
    path = project.campaign / "campaign.json"
    document = json.loads(path.read_bytes())
    document["files"][".x.tmp/passwd"] = "0" * 64
    document.pop("seal")
    path.write_text(json.dumps(document))
    (project.campaign / ".x.tmp").symlink_to("/etc")
    assert "names a file outside" in refuse(errors.RecordError, *commands(project)["replay"]).message
