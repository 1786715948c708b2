"""Trials in a container of a board's own engine: this machine behind a real OpenSSH server, its image brought there over the link."""

from __future__ import annotations

import hashlib
import json
import platform
import tarfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from meltrepro import settings
from meltrepro.build.daemon import connect
from meltrepro.build.model import Artifact
from meltrepro.errors import TargetError
from meltrepro.targets.base import TrialJob
from meltrepro.targets.remote.linux import LinuxPlatform
from meltrepro.targets.remote.remote import RemoteTarget, Requested
from meltrepro.targets.remote.shell import Shell
from meltrepro.targets.ssh.config import Route
from meltrepro.targets.ssh.link import SshLink
from meltrepro.testing.targets import request
from tests.integration.bundles import Bundle
from tests.support.sshd import USER, Sshd, make_key

pytestmark = [pytest.mark.machine, pytest.mark.usefixtures("engine")]
UNENDING = 100_000


@dataclass(frozen=True)
class Rig:
    """A board with an engine."""

    client: Any
    link: SshLink
    bundle: Artifact
    model: Artifact
    folder: Path

    def target(self, container: bool | str = True) -> RemoteTarget:
        requested = Requested(container=container)
        return RemoteTarget(
            Shell(self.link), LinuxPlatform("linux"), str(self.folder / "there"), reconnect_s=5, requested=requested
        )

    def job(self, *, max_tokens: int = 4, timeout_s: float = 60) -> TrialJob:
        record = self.folder / f"record-{max_tokens}"
        record.mkdir(exist_ok=True)
        asked = request("Hello").model_copy(update={"max_tokens": max_tokens, "ignore_eos": True, "context": 2048})
        return TrialJob(self.bundle, self.model, asked, record, timeout_s)

    def containers(self) -> list[Any]:
        label = f"meltrepro.root={self.folder / 'there'}"
        return list(self.client.containers.list(all=True, ignore_removed=True, filters={"label": label}))

    def await_container(self) -> Any:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            running = [each for each in self.containers() if each.status == "running"]
            if running:
                return running[0]
            time.sleep(0.05)
        pytest.fail("no container runs")


def artifact(kind: Any, file: Path, path: Path, machine: str = "") -> Artifact:
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Artifact(f"{kind}/run/here", kind, digest, digest, file, path, file.stat().st_size, machine)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, runner_bundles: Mapping[str, Path], smollm2: Path) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("board")
    known = [Bundle(path) for path in runner_bundles.values()]
    # The other release cannot load the model as it is.
    here = next(b.folder for b in known if b.machine == platform.machine() and b.facts["release"] == "2026-10-01")
    client: Any = connect(settings.load())
    socket = client.api.get_adapter("http+docker://engine").socket_path
    server = Sshd(folder / "server", (f"SetEnv DOCKER_HOST=unix://{socket}",))
    key = make_key(folder / "key")
    server.allow(key)
    (folder / "known_hosts").write_text(server.known)
    server.start()
    route = Route("board", "127.0.0.1", server.port, USER, (key,), (folder / "known_hosts",), keys_alone=True)
    link = SshLink("board", lambda: route)
    with tarfile.open(folder / "bundle.tar", "w") as tar:
        tar.add(here, "bundle")
    bundle = artifact("bundle", folder / "bundle.tar", here, platform.machine())
    made = Rig(client, link, bundle, artifact("model", smollm2, smollm2), folder)
    yield made
    made.target().stop_strays()
    for image in client.images.list("meltrepro/runtime"):
        if image.labels.get("io.meltrepro.bundle") == bundle.digest:
            client.images.remove(image.id or "", force=True)
    link.close()
    server.stop()
    client.close()


def test_a_trial_in_a_container(rig: Rig) -> None:
    target = rig.target()
    assert target.identify().facts["sandbox"] == "container"
    target.deploy(rig.bundle, rig.model)
    assert rig.client.images.list("meltrepro/runtime", filters={"label": f"io.meltrepro.bundle={rig.bundle.digest}"})
    began = time.monotonic()
    target.deploy(rig.bundle, rig.model)
    assert time.monotonic() - began < 5, "it is loaded once"
    job = rig.job()
    result = target.run_trial(job)
    assert (result.exit_code, result.timed_out) == (0, False), (job.folder / "stderr.log").read_text()
    events = [json.loads(line) for line in (job.folder / "events.jsonl").read_text().splitlines()]
    assert events[-1]["e"] == "done"
    assert rig.containers() == []


def test_it_sees_no_network_and_can_write_nothing_but_its_folder_and_a_hung_one_ends(rig: Rig) -> None:
    target = rig.target()
    job = rig.job(max_tokens=UNENDING, timeout_s=4)
    with ThreadPoolExecutor(1) as pool:
        trial = pool.submit(target.run_trial, job)
        seen = rig.await_container().attrs
        result = trial.result()
    assert seen["HostConfig"]["NetworkMode"] == "none"
    assert seen["HostConfig"]["ReadonlyRootfs"]
    assert seen["HostConfig"]["CapDrop"] == ["ALL"]
    there = str(rig.folder / "there")
    assert {mount["Destination"]: mount["RW"] for mount in seen["Mounts"]}[there] is False
    assert [mount["Destination"].startswith(f"{there}/jobs/") for mount in seen["Mounts"] if mount["RW"]] == [True]
    assert result.timed_out
    assert rig.containers() == []


def test_what_a_killed_campaign_left_running_is_removed_by_the_next(rig: Rig) -> None:
    target = rig.target()
    with ThreadPoolExecutor(1) as pool:
        trial = pool.submit(target.run_trial, rig.job(max_tokens=UNENDING, timeout_s=60))
        rig.await_container()
        rig.target().stop_strays()  # another process, which knows nothing of the trial
        trial.exception()
    assert rig.containers() == []


def test_an_image_that_the_board_lacks_is_named(rig: Rig) -> None:
    missing = f"example.org/cuda@sha256:{'0' * 64}"
    with pytest.raises(TargetError, match=f"has no image {missing}") as caught:
        rig.target(missing).deploy(rig.bundle, rig.model)
    assert caught.value.hint == f"fetch it there: docker pull {missing}"
