"""A campaign on a fault-injecting device: the rig of the fault tests with a device in the place of this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

from meltrepro.build.model import Artifact
from meltrepro.campaign.conduct import CampaignResult
from meltrepro.campaign.setup import Setup
from meltrepro.steps import Sink, silent
from meltrepro.targets.android.adb import AdbLink, Server
from meltrepro.targets.android.target import Android
from meltrepro.targets.base import AGENT
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from tests.fault import rig

_FIRST = 'event("hello"'


def counting_bundle(folder: Path, agent: Path, count: Path) -> Artifact:
    """The rig's bundle with an agent; its runner also says in a file that it began."""
    bundle = rig.script_bundle(folder)
    if not (bundle.path / AGENT).exists():
        runner = bundle.path / "bin/melt-runner"
        runner.write_text(runner.read_text().replace(_FIRST, f'open({str(count)!r}, "a").write("a\\n")\n{_FIRST}', 1))
        shutil.copy(agent, bundle.path / AGENT)
    return bundle


def make_setup(folder: Path, spec: rig.Spec, server: Server, serial: str, root: str, agent: Path) -> Setup:
    """The rig's setup with a device as its target."""
    count = Path(root).parents[1] / "count"
    setup = rig.make_setup(folder, spec, bundle=counting_bundle(folder, agent, count))
    target = RemoteTarget(Shell(AdbLink(server, serial)), Android(), root, reconnect_s=20)
    artifacts = {
        name: replace(each, digest=hashlib.sha256(each.path.read_bytes()).hexdigest()) if each.kind == "model" else each
        for name, each in setup.artifacts.items()
    }
    return replace(setup, artifacts=artifacts, targets={"host": target}, devices={"host": target.identify()})


def run(
    folder: Path, spec: rig.Spec, server: Server, serial: str, root: str, agent: Path, sink: Sink = silent
) -> CampaignResult:
    """Conduct the campaign in this process."""
    return rig.run_setup(folder, make_setup(folder, spec, server, serial, root, agent), sink)


def main(folder: str, spec: str, port: str, serial: str, root: str, agent: str) -> int:
    """As a program: it conducts the campaign as `meltrepro run` does."""
    orders = rig.Spec(**json.loads(spec))
    return rig.report(lambda sink: run(Path(folder), orders, Server(int(port)), serial, root, Path(agent), sink))
