"""`--json` of the commands that build and measure, on a small project that is really built and measured."""

from __future__ import annotations

import pytest
import yaml

from tests.fault.project import Project, sha256, small
from tests.support.json_output import checked


def test_from_the_lock_to_the_replay(equipped: Project, capsys: pytest.CaptureFixture[str]) -> None:
    said, spec, bundle = checked(capsys), equipped.spec, equipped.folder / "it.melt"
    spec.write_text(yaml.safe_dump(small("small", {"chat": "pace 5"})))
    assert said("plan", "plan", spec)["cells"]
    assert said("lock", "lock", spec)["changed"] is True
    assert {artifact["reused"] for artifact in said("build", "build", spec)} == {False}
    assert {found["status"] for found in said("verify", "verify", spec, "--no-rebuild")} == {"same"}
    ran = said("run", "run", spec, "--no-track")
    assert (ran["failed"], ran["logged"]) == ([], None)
    shown = said("show", "show", ran["campaign"])
    assert shown["finished"]
    exported = said("bundle-export", "bundle", "export", "last", "-o", bundle)
    whole = {"path": str(bundle), "size": bundle.stat().st_size, "sha256": sha256(bundle.read_bytes())}
    assert exported.items() >= whole.items()
    assert said("bundle-verify", "bundle", "verify", bundle).items() >= whole.items()
    assert said("bundle-import", "bundle", "import", bundle)["objects"] == 0
    assert said("study", "study", spec, "--no-track")["entries"][0]["campaign"] == ran["campaign"]
    replayed = said("replay", "replay", ran["campaign"], "--no-track", "--maximum", "5", code=None)
    assert replayed["verdict"] in ("REPRODUCED", "DIFFERS", "INCONCLUSIVE")
    assert replayed["first"] == ran["campaign"]
