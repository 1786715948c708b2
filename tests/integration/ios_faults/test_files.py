"""Transfers to an iPhone that are cut, fall silent, lose bytes or find no room."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from meltrepro.errors import TargetError, TargetLost
from meltrepro.lab.iphone.faults import Break, Faults, How
from tests.integration.ios_faults.lab import Lab
from tests.integration.ios_faults.test_access import HOUSE
from tests.support.ios_targets import APP

pytestmark = [pytest.mark.integration, pytest.mark.fault]


def big(lab: Lab, size: int = 9 << 20) -> tuple[Path, str]:
    import hashlib

    path = lab.bench.folder / "big"
    path.write_bytes(os.urandom(size))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("message", [3, 5, 8, 12, 16, 20, 24])
def test_a_link_that_is_cut_in_a_transfer(lab: Lab, message: int) -> None:
    path, digest = big(lab)
    lab.device.faults = Faults(breaks=(Break(HOUSE, How.cut, message=message),))
    with pytest.raises(TargetLost), lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        files.push(path, "file", digest)
    assert not (lab.device.documents() / "x" / "file").exists(), "half a file has no name"
    lab.device.heal()
    sent: list[int] = []
    with lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        files.push(path, "file", digest, lambda done, _: sent.append(done))
    assert (lab.device.documents() / "x" / "file").read_bytes() == path.read_bytes()
    if message >= 8:
        assert not sent or sent[0] > 1 << 20, "what had arrived is not sent again"


def test_a_file_service_that_falls_silent_ends_in_time(lab: Lab) -> None:
    """Its own time-out would wait for an answer to its goodbye."""
    path, digest = big(lab)
    lab.device.faults = Faults(breaks=(Break(HOUSE, How.hang, message=8),))
    began = time.monotonic()
    with pytest.raises(TargetLost, match="nothing for 2 s"), lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        files.push(path, "file", digest)
    assert time.monotonic() - began < 6
    lab.device.heal()
    with lab.phone.documents(APP, "x") as files:
        files.push(path, "file", digest)


def test_a_part_of_something_else(lab: Lab) -> None:
    path, digest = big(lab)
    folder = lab.device.documents() / "x"
    folder.mkdir()
    (folder / "file.part").write_bytes(b"something else")
    with lab.phone.documents(APP, "x") as files:
        files.push(path, "file", digest)
    assert (folder / "file").read_bytes() == path.read_bytes()
    assert not (folder / "file.part").exists()


def test_storage_that_loses_bytes(lab: Lab) -> None:
    path, digest = big(lab)
    lab.device.faults = Faults(keeps=5 << 20)
    with pytest.raises(TargetError, match="other bytes") as caught, lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        files.push(path, "file", digest)
    assert not caught.value.transient
    assert not list((lab.device.documents() / "x").iterdir())


@pytest.mark.parametrize("free", [4 << 20, 20 << 20])
def test_storage_that_is_full(lab: Lab, free: int) -> None:
    path, digest = big(lab, 12 << 20)
    lab.device.faults = Faults(free=free)
    files_needed = 1 if free < 12 << 20 else 2
    with pytest.raises(TargetError, match="bytes are free"), lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        for number in range(files_needed):
            files.push(path, f"file{number}", digest)


def test_what_was_deployed_can_be_removed(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    lab.target.deploy(job.bundle, job.model)
    assert lab.target.clean() >= job.model.size
    assert not list(lab.cas.iterdir())
    assert lab.target.clean() == 0
    assert lab.target.run_trial(lab.bench.job("exit 5")).exit_code == 5


def test_an_unchanged_model_is_not_sent_again(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    before = [(path.name, path.stat().st_mtime_ns) for path in sorted(lab.cas.iterdir())]
    began = time.monotonic()
    lab.target.deploy(job.bundle, job.model)
    assert time.monotonic() - began < 1
    assert [(path.name, path.stat().st_mtime_ns) for path in sorted(lab.cas.iterdir())] == before


def test_a_model_that_somebody_changed_is_sent_again(lab: Lab) -> None:
    job = lab.bench.job("exit 0")
    (lab.cas / job.model.digest).write_text("weighed\n")
    lab.target.deploy(job.bundle, job.model)
    assert (lab.cas / job.model.digest).read_text() == "weights\n"


def test_an_app_without_a_developers_signature_shares_its_documents(lab: Lab) -> None:
    lab.device.install(["/bin/true"], APP, development=False)
    with lab.phone.documents(APP, "x") as files:
        files.make_folder("")
        files.write("small", b"data")
        assert files.read("small") == b"data"
    lab.device.install(["/bin/true"], APP, development=False, sharing=False)
    with pytest.raises(TargetError, match="does not share its files"), lab.phone.documents(APP, "x"):
        pass
