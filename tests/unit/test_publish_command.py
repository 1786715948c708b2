"""`meltrepro publish` and `meltrepro gallery` as they are typed."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from meltrepro.cli.app import main
from meltrepro.errors import EntryError, PrivateText, UsageError
from meltrepro.publish.entry import parse_entry
from meltrepro.record.campaign import IMPORTED
from meltrepro.workflow.replays import COMPARISON
from tests.support.campaigns import Cell, Trial, build_campaign
from tests.support.entries import allow, entry, make_key, put
from tests.support.json_output import Said, checked


@pytest.fixture
def campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MELTREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MELTREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return build_campaign(tmp_path / "home")


@pytest.fixture
def said(campaign: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    return checked(capsys)


def test_nothing_is_written_that_nobody_agreed_to(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "model: smollm2-135m" in out
    assert "not in it: prompts" in out
    assert main(["publish"]) == UsageError.exit_code
    assert "--yes" in capsys.readouterr().err
    assert not list(Path().glob("*.json"))


def test_it_is_written_and_says_that_nobody_signed_it(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "--yes"]) == 0
    said = capsys.readouterr()
    (path,) = Path().glob("*.json")
    made = parse_entry(path.read_bytes())
    assert path.name == f"{made.id}.json"
    assert f"{path.name}: written" in said.out
    assert "unsigned" in said.err


def test_a_signature_of_before_does_not_stay(campaign: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path)
    assert main(["publish", "-y", "-o", "e.json", "--sign", str(key)]) == 0
    assert Path("e.json.sig").exists()
    assert main(["publish", "-y", "-o", "e.json"]) == 0
    assert not Path("e.json.sig").exists()


@pytest.mark.parametrize(("answer", "written"), [(b"y\n", True), (b"\n", False), (b"n\n", False)])
def test_a_terminal_is_asked(campaign: Path, answer: bytes, written: bool) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "meltrepro", "publish", "-o", "e.json"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "dumb"})
    os.close(theirs)
    shown = b""
    while b"for everybody to read?" not in shown:
        shown += os.read(ours, 65536)
    os.write(ours, answer)
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:
        pass  # the other side is closed
    assert process.wait(timeout=60) == 0
    assert Path("e.json").exists() is written
    assert (b"nothing was written" in shown) is not written


def test_something_private_refuses_and_the_command_that_it_names_goes_on(
    tmp_path: Path, campaign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Trial(effective={"library": "/home/ann/lib.so"})
    build_campaign(tmp_path / "home", [Cell(trial=trial)], number=1)
    assert main(["publish", "--yes"]) == PrivateText.exit_code
    said = capsys.readouterr()
    assert "effective.effective.library: a path: '/home/ann/lib.so'" in said.err
    assert "--leave-out 'effective.effective.library'" in said.err
    assert not list(Path().glob("*.json"))
    assert main(["publish", "--yes", "--leave-out", "effective.effective.library"]) == 0
    (path,) = Path().glob("*.json")
    assert "lib.so" not in path.read_text()


def test_a_replay_is_told_to_say_of_what(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = build_campaign(campaign.parents[1], number=1)
    (again / COMPARISON).write_text("<p>the comparison</p>")
    assert main(["publish", "--dry-run"]) == 0
    assert "--replay-of" in capsys.readouterr().err
    assert main(["publish", "--dry-run", "--replay-of", campaign.name]) == 0
    said = capsys.readouterr()
    assert "--replay-of" not in said.err
    assert "verdict: " in said.out


def test_what_somebody_else_measured_is_told(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "--dry-run"]) == 0
    assert "somebody else" not in capsys.readouterr().err
    (campaign / IMPORTED).touch()
    assert main(["publish", "--dry-run", campaign.name]) == 0
    assert "somebody else measured it" in capsys.readouterr().err


def test_an_address_needs_the_bundle(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", "--url", "https://example.org/x.melt", "-y"]) == EntryError.exit_code
    assert "--bundle" in capsys.readouterr().err


def test_both_say_it_as_json(said: Said, tmp_path: Path) -> None:
    key = make_key(tmp_path)
    shown = said("publish", "publish", "--dry-run")
    assert shown["path"] is None
    made = said("publish", "publish", "--yes", "-o", "entries/e.json", "--sign", str(key), "--only", "*/q4_0/*")
    assert [cell["quantization"] for cell in made["entry"]["cells"]] == ["q4_0"]
    assert made["signature"] == "entries/e.json.sig"
    put(Path("entries"), "bad", b"{}")
    found = said("gallery", "gallery", "entries", "--signers", str(allow(tmp_path / "signers", ann=key)))
    assert found["entries"] == {"signed": 1}
    assert [(one["file"], one["kind"]) for one in found["refused"]] == [("bad.json", "damaged")]


def test_a_gallery_tells_what_it_did_not_take(campaign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(Path("entries"), "good", entry())
    put(Path("entries"), "bad", b"{}")
    assert main(["gallery", "entries", "-o", "site"]) == 0
    said = capsys.readouterr()
    assert "not taken: bad.json: damaged: " in said.err
    assert "1 entry (1 unsigned)" in said.out
    assert main(["gallery", "entries", "-o", "site", "--strict"]) == EntryError.exit_code
    assert Path("site/index.html").exists()


def test_an_entry_is_verified_with_openssh_alone(campaign: Path, tmp_path: Path) -> None:
    """As the page says it, which third parties follow."""
    key = make_key(tmp_path)
    signers = allow(tmp_path / "signers", ann=key)
    assert main(["publish", "-y", "-o", "e.json", "--sign", str(key)]) == 0
    command = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-n",
        "meltrepro-entry",
        "-f",
        str(signers),
        "-I",
        "ann@example.org",
        "-s",
        "e.json.sig",
    ]
    content = Path("e.json").read_bytes()
    assert subprocess.run(command, input=content, capture_output=True, check=False).returncode == 0
    assert subprocess.run(command, input=content[:-1], capture_output=True, check=False).returncode != 0
    assert json.loads(content)["entry"] == 1
