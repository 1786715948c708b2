"""Commits by name: branches, tags, HEAD and a checkout as it lies there; what the lock makes of them, and what moves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from meltrepro import errors
from meltrepro.cli.app import main
from meltrepro.manifest.lock import LockedName, load_lock
from meltrepro.measure.records import read_campaign
from meltrepro.record.reader import campaign_folders
from tests.fault.project import Project, Refuse, small


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(equipped: Project) -> Path:
    folder = equipped.spec.parent / "framework"
    folder.mkdir()
    git(folder, "init", "--quiet", "-b", "main")
    (folder / ".gitignore").write_text("build/\n")
    (folder / "engine.c").write_text("int speed = 1;\r\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def manifest(project: Project, address: str = "framework", **commits: str) -> Path:
    document = small("named", {"chat": "pace-on-paper 10"})
    document["frameworks"] = {
        name: {"kind": "llama.cpp", "source": {"git": address, "commit": commit}} for name, commit in commits.items()
    }
    project.spec.write_text(yaml.safe_dump(document, sort_keys=False))
    return project.spec


def names(project: Project) -> dict[str, LockedName]:
    lock = load_lock(project.lock)
    assert lock is not None
    return {key.rpartition("@")[2]: name for key, name in lock.names.items()}


def test_a_change_beside_the_commit_below_it(equipped: Project, checkout: Path) -> None:
    """What somebody changed is built and measured beside HEAD, and nothing of the repository is touched."""
    spec = manifest(equipped, before="HEAD", after="worktree")
    head = git(checkout, "rev-parse", "HEAD")
    assert main(["lock", str(spec)]) == 0
    assert names(equipped) == {"HEAD": LockedName(revision=head), "worktree": LockedName(revision=head)}
    (checkout / "engine.c").write_text("int speed = 2;\n")
    (checkout / "new.c").write_text("int more;\n")
    (checkout / "build").mkdir()
    (checkout / "build" / "engine.o").write_text("ignored")
    before = git(checkout, "status", "--porcelain"), git(checkout, "count-objects"), git(checkout, "for-each-ref")
    assert main(["run", str(spec), "--no-track", "--quiet"]) == 0
    changed = names(equipped)["worktree"]
    assert changed.below == head != changed.revision
    assert before == (
        git(checkout, "status", "--porcelain"),
        git(checkout, "count-objects"),
        git(checkout, "for-each-ref"),
    )
    campaign = read_campaign(campaign_folders(equipped.folder / "home" / "records")[0])
    assert [cell.entry.commit for cell in campaign.cells] == [head, changed.revision]
    (checkout / "build" / "engine.o").write_text("still ignored")
    assert main(["lock", str(spec), "--check"]) == 0
    assert names(equipped)["worktree"] == changed, "the same changes are the same commit"
    (checkout / "new.c").unlink()
    assert main(["run", str(spec), "--no-track", "--quiet", "--locked"]) == 0
    assert names(equipped)["worktree"] == changed, "a lock that may not change says what is measured"
    assert main(["build", str(spec)]) == 0
    assert names(equipped)["worktree"].revision not in (changed.revision, head)


def test_no_setting_of_the_checkout_has_a_say(equipped: Project, checkout: Path) -> None:
    spec = manifest(equipped, mine="worktree")
    touched = equipped.folder / "touched"
    (checkout / ".gitattributes").write_text("* filter=own text\n")
    (checkout / "engine.c").write_text("int speed = 3;\r\n")
    assert main(["lock", str(spec)]) == 0
    plain = names(equipped)["worktree"]
    git(checkout, "config", "filter.own.clean", f"touch {touched}; cat")
    git(checkout, "config", "core.fsmonitor", f"touch {touched}")
    git(checkout, "config", "core.autocrlf", "true")
    assert main(["lock", str(spec)]) == 0
    assert names(equipped)["worktree"] == plain and not touched.exists()


def test_names_of_a_folder_follow_it_and_those_of_a_server_stay(equipped: Project, checkout: Path) -> None:
    first = git(checkout, "rev-parse", "HEAD")
    git(checkout, "tag", "-a", "v1", "-m", "annotated")
    (checkout / "engine.c").write_text("int speed = 2;\n")
    git(checkout, "commit", "--quiet", "--all", "-m", "second")
    second = git(checkout, "rev-parse", "HEAD")
    spec = manifest(equipped, tagged="v1", short=second[:9], back="HEAD~1", branch="main")
    assert main(["lock", str(spec)]) == 0
    found = {name: each.revision for name, each in names(equipped).items()}
    assert found == {"v1": first, second[:9]: second, "HEAD~1": first, "main": second}
    spec = manifest(equipped, checkout.as_uri(), tagged="v1", branch="main")
    assert main(["lock", str(spec)]) == 0
    assert {name: each.revision for name, each in names(equipped).items()} == {"v1": first, "main": second}
    git(checkout, "commit", "--quiet", "--allow-empty", "-m", "third")
    third = git(checkout, "rev-parse", "HEAD")
    assert main(["build", str(spec)]) == 0
    assert names(equipped)["main"].revision == second
    assert main(["lock", str(spec), "--upgrade", "branch"]) == 0
    assert names(equipped)["main"].revision == third


@pytest.mark.parametrize(
    ("address", "commit", "said"),
    [
        ("framework", "nonesuch", "no commit is called nonesuch"),
        ("file://", "nonesuch", "the repository has no branch or tag nonesuch"),
        ("file://", "worktree", "only a folder on this machine is a checkout"),
        ("nowhere", "HEAD", "is not a repository that may be fetched"),
    ],
)
def test_names_that_stand_for_nothing(
    equipped: Project, checkout: Path, refuse: Refuse, address: str, commit: str, said: str
) -> None:
    spec = manifest(equipped, checkout.as_uri() if address == "file://" else address, mine=commit)
    assert said in refuse(errors.SourceError, "lock", spec).message


@pytest.mark.parametrize("commit", ["--help", "a..b", "", "x:y"])
def test_what_is_no_name(equipped: Project, commit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(manifest(equipped, mine=commit))]) == errors.ManifestError.exit_code
    assert "expected a commit id, a branch, a tag, HEAD or worktree" in capsys.readouterr().err
