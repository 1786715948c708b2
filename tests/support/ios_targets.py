"""Virtual iPhones for tests, with a stand-in for the runner app that keeps to the same contract."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from meltrepro.lab.iphone import runner_app
from meltrepro.lab.iphone.device import RUNNER, VirtualIphone
from meltrepro.targets.ios.phone import ANSWER_S, PIECE_S, Phone
from meltrepro.targets.ios.target import IosTarget
from meltrepro.targets.ios.usbmux import UsbmuxServices
from tests.support.iphones import require_pymobiledevice3

APP = RUNNER
PROGRAM = Path(runner_app.__file__)


@contextlib.contextmanager
def virtual_iphone(folder: Path, runner: Path) -> Iterator[VirtualIphone]:
    """A phone that is switched on, with the app that starts `runner` for each job."""
    require_pymobiledevice3()
    device = VirtualIphone(folder)
    device.start()
    try:
        device.install([sys.executable, "-P", str(PROGRAM), str(runner)], APP)
        yield device
    finally:
        device.erase()


def services(device: VirtualIphone, records: Path) -> UsbmuxServices:
    """The phone's services as the target reaches them."""
    return UsbmuxServices(device.udid, records, device.address)


def paired(device: VirtualIphone, records: Path, *, answer_s: float = ANSWER_S, piece_s: float = PIECE_S) -> Phone:
    """The phone, which trusts this computer."""
    phone = Phone(services(device, records), answer_s=answer_s, piece_s=piece_s)
    phone.pair(5)
    return phone


def target(phone: Phone, reconnect_s: float = 10) -> IosTarget:
    """The phone as campaigns use it."""
    return IosTarget(phone, APP, reconnect_s=reconnect_s)
