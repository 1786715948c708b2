"""Repositories of the hub by name alone: what the lock makes of them, what moves, what every command says where it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from meltrepro import errors
from meltrepro.cli.app import main
from meltrepro.manifest.lock import LockedName, load_lock
from meltrepro.record.reader import campaign_folders
from meltrepro.workflow import sizes
from tests.fault.project import Project, Refuse, gguf, small
from tests.support.ggufs import STRING, TIED, part
from tests.support.ggufs import gguf as file_of
from tests.support.hub import MEMBER, STRANGER, Hub, serve

OLD, NEW = "c0ffee0000" * 4, "0dd0000000" * 4
NAME = "huggingface:org/tiny"
FILE = "sub/tiny-q8.gguf"


@pytest.fixture
def hub(equipped: Project, tmp_path: Path) -> Iterator[Hub]:
    with (
        pytest.MonkeyPatch.context() as patch,
        serve(Hub("org/tiny", OLD, {FILE: gguf("first"), "README.md": b"words"})) as running,
    ):
        for name in ("HF_TOKEN", "http_proxy", "HTTP_PROXY", "MELTREPRO_OFFLINE"):
            patch.delenv(name, raising=False)
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        patch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
        patch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def spec(equipped: Project, hub: Hub) -> Path:
    return manifest(equipped, f"hf:org/tiny/{FILE}")


def manifest(project: Project, source: object) -> Path:
    document = small("named", {"chat": "sleep 0"})
    document["models"] = {"m": {"source": source, "chat_template": "plain", "quantizations": ["as-is"]}}
    project.spec.write_text(yaml.safe_dump(document, sort_keys=False))
    return project.spec


def run(spec: Path, *options: str) -> int:
    return main(["run", str(spec), "--no-track", "--quiet", *options])


def names(project: Project) -> dict[str, LockedName]:
    lock = load_lock(project.lock)
    assert lock is not None
    return lock.names


def test_a_name_becomes_a_commit_that_moves_by_upgrade_alone(
    equipped: Project, hub: Hub, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lock", str(spec)]) == 0
    assert f"{NAME} is at {OLD}, licence apache-2.0" in capsys.readouterr().out
    assert names(equipped) == {NAME: LockedName(revision=OLD, licence="apache-2.0")}
    assert f"{NAME}@{OLD}:{FILE}" in equipped.read_lock().sources
    assert hub.gets(FILE) == [], "its digest is in the hub's answer"
    hub.commits(NEW, {FILE: gguf("second")})
    written = equipped.lock.read_bytes()
    assert main(["lock", str(spec), "--check"]) == main(["build", str(spec)]) == run(spec, "--locked") == 0
    assert equipped.read_lock().names[NAME].revision == OLD
    equipped.lock.write_bytes(written)  # also where nothing is remembered but what the lock says
    assert main(["plan", str(spec)]) == 0
    capsys.readouterr()
    assert main(["lock", str(spec), "--upgrade", "m", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["names"] == {NAME: {"revision": NEW, "licence": "apache-2.0"}}
    assert any(OLD in line for line in said["difference"]) and any(NEW in line for line in said["difference"])
    assert [key for key in equipped.read_lock().sources if key.startswith(NAME)] == [f"{NAME}@{NEW}:{FILE}"]
    assert run(spec, "--new") == 0
    one, other = (yaml.safe_load((folder / "manifest.yaml").read_text()) for folder in campaigns(equipped))
    assert (one["models"]["m"]["source"]["revision"], other["models"]["m"]["source"]["revision"]) == (OLD, NEW)


def campaigns(project: Project) -> list[Path]:
    return campaign_folders(project.folder / "home" / "records")


def test_a_repository_is_upgraded_by_its_own_name(equipped: Project, hub: Hub, spec: Path) -> None:
    assert main(["lock", str(spec)]) == 0
    hub.commits(NEW, {FILE: gguf("second")})
    assert main(["lock", str(spec), "--upgrade", NAME]) == 0
    assert names(equipped)[NAME].revision == NEW
    assert [key for key in equipped.read_lock().sources if key.startswith(NAME)] == [f"{NAME}@{NEW}:{FILE}"]


def test_record_bundle_and_replay_have_the_commit_and_ask_nobody(
    equipped: Project, hub: Hub, spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(spec) == 0
    (campaign,) = campaigns(equipped)
    kept = yaml.safe_load((campaign / "manifest.yaml").read_text())["models"]["m"]
    assert kept["source"]["revision"] == OLD and kept["licence"] == "apache-2.0"
    lock = load_lock(campaign / "lock.yaml")
    assert lock is not None and f"{NAME}@{OLD}:{FILE}" in lock.sources
    capsys.readouterr()
    assert main(["show", campaign.name]) == 0
    assert "model m: licence apache-2.0" in capsys.readouterr().out
    hub.commits(NEW, {})
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")
    assert main(["bundle", "export", campaign.name, "-o", str(equipped.bundle)]) == 0
    assert main(["bundle", "verify", str(equipped.bundle)]) == 0
    assert main(["replay", campaign.name, "--no-track"]) in (0, 60, 61)  # repeated; what came out is chance
    assert len(campaigns(equipped)) == 2


def test_a_lock_that_may_not_change_asks_nobody(equipped: Project, hub: Hub, spec: Path, refuse: Refuse) -> None:
    refusal = refuse(errors.LockError, "build", spec, "--locked")
    assert f"the lock has no entry for {NAME}" in refusal.message
    assert hub.asked == []


def test_a_plan_without_the_hub_says_that_it_does_not_know(
    equipped: Project,
    hub: Hub,
    spec: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    refuse: Refuse,
) -> None:
    assert main(["validate", str(spec)]) == 0
    assert hub.asked == [], "validating asks nobody"
    monkeypatch.setenv("MELTREPRO_OFFLINE", "1")
    capsys.readouterr()
    assert main(["plan", str(spec), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["download_bytes"] is None
    refusal = refuse(errors.OfflineError, "run", spec)
    assert NAME in refusal.message
    monkeypatch.delenv("MELTREPRO_OFFLINE")
    capsys.readouterr()
    assert main(["plan", str(spec), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["download_bytes"] == len(hub.files[FILE])
    assert not equipped.lock.exists()


def test_a_name_given_by_set_is_used_and_pinned_nowhere(equipped: Project, hub: Hub, refuse: Refuse) -> None:
    spec = manifest(equipped, {"file": "local.gguf"})
    assert main(["lock", str(spec)]) == 0
    before = equipped.lock.read_bytes()
    assert run(spec, f"--set=models.m.source=hf:org/tiny/{FILE}") == 0
    assert equipped.lock.read_bytes() == before
    kept = yaml.safe_load((campaigns(equipped)[0] / "manifest.yaml").read_text())
    assert kept["models"]["m"]["source"]["revision"] == OLD


MISSING = [
    ("hf:org/none", "huggingface:org/none: the server asks for a login (status 401", "HF_TOKEN"),
    ("hf:org/tiny/sub/tiny-q9.gguf", "the repository has no file sub/tiny-q9.gguf", f"did you mean {FILE}?"),
    ("hf:org/tiny/x", "the repository has no file x", f"did you mean {FILE}?"),
]
"""Names, which a plan looks up too."""


@pytest.mark.parametrize(
    ("command", "source", "said", "hint"),
    [
        *((command, *each) for command in ("plan", "lock", "build", "run") for each in MISSING),
        (
            "run",
            f"hf:org/tiny@{'0' * 40}/{FILE}",
            "it does not exist on the server (status 404",
            "check repository, rev",
        ),
        ("run", "hf:org/tiny", f"there is no checkpoint in it, but GGUF files: {FILE}", f"hf:org/tiny/{FILE}"),
    ],
)
def test_what_is_not_there_is_said_with_the_next_step(
    equipped: Project, hub: Hub, refuse: Refuse, command: str, source: str, said: str, hint: str
) -> None:
    refusal = refuse(errors.SourceError, command, manifest(equipped, source))
    assert said in refusal.message and "\n" not in refusal.message.strip()
    assert hint in refusal.hint


@pytest.mark.parametrize(("token", "status"), [(None, 401), (STRANGER, 403)])
def test_a_gated_model_is_known_before_anything_is_built(
    equipped: Project,
    hub: Hub,
    spec: Path,
    refuse: Refuse,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    status: int,
) -> None:
    hub.gated = True
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    refusal = refuse(errors.SourceError, "run", spec)
    assert f"(status {status}" in refusal.message and "\n" not in refusal.message.strip()
    assert f"accept its terms at {hub.url}/org/tiny" in refusal.hint
    assert ("set HF_TOKEN" in refusal.hint) == (token is None)
    monkeypatch.setenv("HF_TOKEN", MEMBER)
    assert run(spec) == 0


def test_a_busy_hub_and_a_transfer_that_breaks_off_are_waited_for(equipped: Project, hub: Hub, spec: Path) -> None:
    hub.busy, hub.cut["tiny-q8.gguf"] = 1, 1
    assert run(spec) == 0
    assert hub.busy == 0 and hub.cut == {"tiny-q8.gguf": 0}


@pytest.mark.parametrize("card", [None, "text", {"license": ["mit", "apache-2.0"]}, {"license": 5}])
def test_a_page_that_names_no_licence(equipped: Project, hub: Hub, spec: Path, card: object) -> None:
    hub.card = card
    assert main(["lock", str(spec)]) == 0
    assert names(equipped)[NAME].licence is None


def test_a_licence_of_its_own(equipped: Project, hub: Hub, spec: Path) -> None:
    hub.card = {"license": "other", "license_name": "gemma terms"}
    assert main(["lock", str(spec)]) == 0
    assert names(equipped)[NAME].licence == "gemma terms"


@pytest.mark.parametrize("name", ["q/t-00001-of-00002.gguf", "q/t-00002-of-00002.gguf", "q/t-*-of-00002.gguf"])
def test_a_split_model_is_one_model(equipped: Project, hub: Hub, name: str) -> None:
    hub.files |= {f"q/t-0000{i + 1}-of-00002.gguf": each for i, each in enumerate(PARTS)}
    spec = manifest(equipped, f"hf:org/tiny/{name}")
    assert run(spec) == 0
    lock = equipped.read_lock()
    listed = [key for key in lock.sources if key.startswith(NAME)]
    files = [f"{NAME}@{OLD}:q/t-{number}-of-00002.gguf" for number in ("*", "00001", "00002")]
    assert sorted(listed) == sorted(files)
    assert equipped.object(lock.artifacts["m/as-is/llama.cpp"].digest).read_bytes() == WHOLE


@pytest.mark.parametrize("name", ["q/t-00002-of-00002.gguf", "q/t-*-of-00002.gguf"])
def test_a_split_model_on_disk(equipped: Project, hub: Hub, name: str) -> None:
    folder = equipped.spec.parent / "q"
    folder.mkdir()
    for i, each in enumerate(PARTS):
        (folder / f"t-0000{i + 1}-of-00002.gguf").write_bytes(each)
    spec = manifest(equipped, {"file": name})
    assert main(["validate", str(spec)]) == main(["plan", str(spec)]) == run(spec) == 0
    lock = equipped.read_lock()
    assert equipped.object(lock.artifacts["m/as-is/llama.cpp"].digest).read_bytes() == WHOLE
    assert run(spec, "--locked", "--new") == 0
    (folder / "t-00002-of-00002.gguf").write_bytes(part(1, 2, [(*TIED[2][:3], bytes(160))]))
    assert run(spec, "--locked", "--new") == errors.LockMismatch.exit_code
    assert main(["lock", str(spec), "--upgrade", "m"]) == run(spec) == 0
    assert equipped.read_lock().artifacts["m/as-is/llama.cpp"] != lock.artifacts["m/as-is/llama.cpp"]


@pytest.mark.parametrize("here", [True, False])
def test_a_split_models_own_template_is_taken(equipped: Project, hub: Hub, here: bool) -> None:
    text = "{% for message in messages %}{{ message.content }} {% endfor %}"
    first = part(0, 2, TIED[:2], extra={"tokenizer.chat_template": (STRING, text)})
    for i, each in enumerate((first, PARTS[1])):
        name = f"t-0000{i + 1}-of-00002.gguf"
        hub.files[name] = each
        (equipped.spec.parent / name).write_bytes(each)
    name = "t-00001-of-00002.gguf"
    spec = manifest(equipped, {"file": name} if here else f"hf:org/tiny/{name}")
    spec.write_text(spec.read_text().replace("chat_template: plain", "chat_template: auto"))
    assert run(spec) == 0
    (request,) = campaigns(equipped)[0].glob("cells/m/as-is/llama.cpp/host/chat/r000/request.json")
    assert "sleep 0" in request.read_text()


PARTS = (part(0, 2, TIED[:2]), part(1, 2, TIED[2:]))
WHOLE = file_of({}, TIED)


def test_a_model_larger_than_memory_is_said_before_it_is_fetched(
    equipped: Project, hub: Hub, spec: Path, refuse: Refuse
) -> None:
    hub.sizes[FILE] = 1 << 50
    refusal = refuse(errors.PlanError, "run", spec)
    assert "needs 1125935.9 GB of memory" in refusal.message
    assert hub.gets(FILE) == []


def test_a_model_larger_than_the_stores_disk_is_said_before_it_is_fetched(
    equipped: Project, hub: Hub, spec: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "free_bytes", lambda _: 100)
    refusal = refuse(errors.PlanError, "run", spec)
    assert "in the store to be made, its disk has 100 B free" in refusal.message
    assert "meltrepro gc" in refusal.hint
    assert hub.gets(FILE) == []
