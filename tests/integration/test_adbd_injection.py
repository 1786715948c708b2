"""Whatever a manifest, a file name or a device's property holds, the device runs only what was meant (real adb, real sh)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from meltrepro.build.model import Artifact
from meltrepro.errors import TargetError
from meltrepro.record.trial import EVENTS, STDOUT, Request
from meltrepro.targets.android.adb import AdbLink
from meltrepro.targets.android.options import AndroidOptions
from meltrepro.targets.android.target import Android
from meltrepro.targets.base import AGENT, RUNNER, TrialJob
from meltrepro.targets.remote.remote import RemoteTarget
from meltrepro.targets.remote.shell import Shell
from meltrepro.testing.targets import request
from tests.integration.adbd_rig import Rig, attached_adbd, native_bundle

pytestmark = [pytest.mark.integration, pytest.mark.fault]
CANARY = "canary"
"""A file that any of the commands in `PIECES` would make, beside the device's other files."""
ORDER = f"touch {CANARY}"
PIECES = (
    *(
        f"; {ORDER};",
        f"'; {ORDER}; '",
        f'"; {ORDER}; "',
        f"$({ORDER})",
        f"`{ORDER}`",
        f"\n{ORDER}\n",
        f"\r\n{ORDER}\r\n",
    ),
    *(f"&& {ORDER} &&", f"| {ORDER}", f"& {ORDER} &", f") {ORDER} (", f"}} {ORDER}", f"\n$({ORDER})\\", f"<({ORDER})"),
    *("'", '"', "\\", "\\'", "$", "${IFS}", "$1", "$@", "*", "?", "[a-z]", "~", "!", "#", "-", "--", "-rf", "%s", "%n"),
    *(
        " ",
        "\t",
        "\\n",
        "\x7f",
        "\x1b[31m",
        "\u00e9",
        "\u2028",
        "\U0001f600",
        "\ufeff",
        ">canary",
        "2>&1",
        "EOF",
        "=",
        ",",
    ),
)
hostile = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), min_size=1, max_size=6).map("".join)
RUNNER_SCRIPT = '#!/bin/sh\n# Shows what arrived.\ncp "$1" "$2" && printf "%s\\n" "$1"\n'
LONGEST_NAME = 255
"""Bytes of the name of a folder on Linux."""
often = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
seldom = settings(often, max_examples=15, phases=(Phase.explicit, Phase.reuse, Phase.generate))
"""Where each example takes half a second; one that fails is not made smaller."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, runner_bundles: Mapping[str, Path]) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("adbd")
    with attached_adbd(folder) as lab:
        rig = Rig(*lab, folder, native_bundle(runner_bundles))
        yield rig
        assert rig.device.processes() == []


def unharmed(rig: Rig) -> None:
    assert not (rig.device.machine.folder / CANARY).exists(), "a string was run as a command"
    assert not (rig.device.machine.data / CANARY).exists()


def test_the_canary_would_sing(rig: Rig) -> None:
    rig.shell.run(["sh", "-c", ORDER])
    with pytest.raises(AssertionError, match="run as a command"):
        unharmed(rig)
    (rig.device.machine.folder / CANARY).unlink()


@often
@given(st.lists(hostile, min_size=1, max_size=4))
@example(["\ud800"])
@example(["a\0b"])
@example(["'" * 20_000])
def test_arguments_arrive_as_they_are(rig: Rig, words: list[str]) -> None:
    try:
        reply = rig.shell.run(["printf", r"%s\0", *words])
    except TargetError as error:
        assert "\0" in "".join(words) or not encodable(words) or "bytes" in error.message
    else:
        assert reply.out == b"".join(word.encode() + b"\0" for word in words)
        assert (reply.status, reply.err) == (0, "")
    unharmed(rig)


def encodable(words: list[str]) -> bool:
    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        return False
    return True


@often
@given(hostile)
@example("x" * 70_000)
@example("\ud800")
def test_serials(rig: Rig, serial: str) -> None:
    """There is no such device, or it is the one; nothing else."""
    try:
        reply = Shell(AdbLink(rig.adb.server, serial)).run(["echo", "here"])
    except TargetError:
        pass
    else:
        assert reply.text == "here"
    unharmed(rig)


@seldom
@given(folder=hostile, prompt=hostile, name=hostile)
@example(folder="'\n", prompt="\0\ud800", name="--")
@example(folder="\\", prompt="\\", name="\\")
@example(folder="x" * 300, prompt="", name="x")
def test_a_trial_in_a_hostile_place(rig: Rig, tmp_path: Path, folder: str, prompt: str, name: str) -> None:
    """The folder on the device, the prompt and the model's name are what somebody else wrote."""
    root = f"{rig.device.machine.data}/r{folder.replace('/', '_')}"
    try:
        assert AndroidOptions(kind="android", root=root).root == root
        job, target = trial(rig, tmp_path, root, prompt, name)
    except ValidationError:
        assume(False)
    try:
        target.deploy(job.bundle, job.model)
        result = target.run_trial(job)
    except TargetError as error:
        assert "cannot use" in error.message
        assert len(Path(root).name.encode()) > LONGEST_NAME
    else:
        assert result.exit_code == 0
        arrived = Request.model_validate_json((job.folder / EVENTS).read_bytes())
        assert arrived.model == f"{root}/cas/{job.model.digest}"
        assert arrived.model_copy(update={"model": ""}) == job.request
        assert (job.folder / STDOUT).read_text().startswith(f"{root}/jobs/trial-")
        assert {path.name for path in Path(root).iterdir()} == {"cas", "jobs"}
        assert not any((Path(root) / "jobs").iterdir())
    finally:
        shutil.rmtree(root, ignore_errors=True)
    unharmed(rig)


def trial(rig: Rig, tmp_path: Path, root: str, prompt: str, name: str) -> tuple[TrialJob, RemoteTarget]:
    """A trial with a model of that name, and a target with that folder."""
    target = RemoteTarget(rig.shell, Android(), root, reconnect_s=0)
    bundle = tmp_path / "bundle"
    (bundle / "bin").mkdir(parents=True, exist_ok=True)
    (bundle / RUNNER).write_text(RUNNER_SCRIPT)
    shutil.copy(rig.bundle / AGENT, bundle / AGENT)
    file = tmp_path / f"m{name}".replace("/", "_").replace("\0", "_").encode(errors="replace")[:200].decode(
        errors="ignore"
    )
    file.write_text("weights\n")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    record = tmp_path / "record"
    record.mkdir(exist_ok=True)
    model = Artifact(name, "model", digest, digest, file, file, file.stat().st_size)
    return TrialJob(
        Artifact("b", "bundle", "0" * 64, "0" * 64, bundle, bundle, 1), model, request(prompt), record, 30
    ), target


@seldom
@given(hostile)
def test_properties(rig: Rig, value: str) -> None:
    """A value may hold anything but what ends it."""
    value = value.replace("]\n", "").replace("\0", "").strip()
    assume(value and not value.endswith("]"))
    (rig.device.machine.folder / "properties/ro.product.model").write_text(value, newline="")
    facts = rig.bench(0).target.identify()
    assert facts.model == value
    assert facts.facts["android"] == "14", "nothing of it was taken for another property"
    unharmed(rig)
