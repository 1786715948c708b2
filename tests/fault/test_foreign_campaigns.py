"""Campaigns of strangers among one's own: neither merged nor replaced, gone on with or counted, kept until they are removed."""

from __future__ import annotations

import shutil

import pytest

from meltrepro import errors
from meltrepro.cli.app import main
from meltrepro.record.campaign import campaign_bytes, parse_campaign
from meltrepro.record.reader import campaign_folders, find_campaign, own_folders
from tests.fault.project import SDIST, TRIAL, Project, Refuse, sha256
from tests.fault.test_bundle_tampering import contents
from tests.fault.test_strangers import forger

# -- a campaign that is here already ------------------------------------------------------------------------------


def test_the_same_campaign_once_more_changes_nothing(made: Project, project: Project) -> None:
    shutil.copy(made.bundle, project.bundle)
    (project.campaign / "tracking.json").write_text("{}")
    left = project.campaign / TRIAL
    shutil.copytree(left, left.with_name(".r009.tmp"))  # of a trial that was killed
    before = project.snapshot()
    assert main(["bundle", "import", str(project.bundle)]) == 0
    assert project.snapshot() == before


@pytest.mark.parametrize(
    "name",
    ["lock.yaml", "manifest.yaml", "plan.json", "campaign.json", f"{TRIAL}/new", "builds/x/new"],
)
@pytest.mark.parametrize("side", ["here", "bundle"])
def test_a_campaign_of_the_same_id_is_neither_merged_nor_replaced(
    made: Project, project: Project, refuse: Refuse, name: str, side: str
) -> None:
    """Whichever side has another file, or one more."""
    path = project.campaign / name
    if side == "here":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.read_bytes() + b"\n" if path.exists() else b"new")
    else:
        forged = forger(made)
        member = f"records/{forged.campaign}/{name}"
        if name == "lock.yaml":
            recipes = {**forged.lock.recipes, "mine": "0" * 64}
            forged.lock = forged.lock.model_copy(update={"recipes": recipes})
            forged.record()
        elif name == "campaign.json":
            forged.record(workload="chat", commit="0" * 40)
        elif name in ("manifest.yaml", "plan.json"):
            document = parse_campaign(forged.files[f"records/{forged.campaign}/campaign.json"])
            content = forged.files[member] + b"\n"
            files = {**document.files, name: sha256(content)}
            forged.files[member] = content
            if name == "manifest.yaml":
                forged.files[name] = content
            forged.files[f"records/{forged.campaign}/campaign.json"] = campaign_bytes(
                document.model_copy(update={"files": files})
            )
        else:
            forged.files[member] = b"new"
        forged.write(project.bundle)
    before = project.snapshot()
    refuse(errors.RecordError, "bundle", "import", project.bundle)
    assert project.snapshot() == before


def test_a_strangers_campaign_is_not_gone_on_with(made: Project, project: Project) -> None:
    forged = forger(made)
    member = f"records/{forged.campaign}/campaign.json"
    document = parse_campaign(forged.files[member])
    forged.files[member] = campaign_bytes(document.model_copy(update={"finished_wall_ns": None}))
    forged.write(project.bundle)
    records = project.folder / "home" / "records"
    shutil.rmtree(records)
    assert main(["bundle", "import", str(project.bundle)]) == 0
    assert own_folders(records) == []
    assert main(["run", str(project.spec), "--no-track", "--quiet"]) == 0
    (mine,) = own_folders(records)
    assert mine.name != forged.campaign
    assert find_campaign(records, "last") == mine
    assert main(["bundle", "export", forged.campaign, "-o", str(project.folder / "again.melt")]) == 0
    assert contents(project.folder / "again.melt").keys() == forged.files.keys(), (
        "a note of this machine is no part of it"
    )


# -- for how long it stays -------------------------------------------------------------------------------------------


def test_an_imported_campaign_keeps_its_objects_until_it_is_removed(made: Project, project: Project) -> None:
    shutil.copy(made.bundle, project.bundle)
    shutil.rmtree(project.folder / "home")
    shutil.rmtree(project.store)
    project.lock.unlink()
    assert main(["bundle", "import", str(project.bundle)]) == 0
    lock = made.read_lock()
    named = {*(each.digest for each in lock.artifacts.values()), lock.sources[SDIST].digest}
    for _ in range(2):
        assert main(["gc"]) == 0
        assert all(project.object(digest).exists() for digest in named)
    (folder,) = campaign_folders(project.folder / "home" / "records")
    shutil.rmtree(folder)
    assert main(["gc"]) == 0
    assert not any(project.object(digest).exists() for digest in named)
    assert not list((project.store / "scopes").glob("*"))
