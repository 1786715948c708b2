"""How long does a deployment to the virtual iPhone take, the first one and one with nothing to send?

    .venv/bin/python -m tests.benchmarks.deploy_iphone [--megabytes 500] [--repetitions 5]

App and model, as a trial has them: the first time the package is installed and the model sent and read back, later both
are looked at alone. Goal: unchanged within 1 s. It says something of this machine and of the host's side, and nothing of a
phone, whose cable is slower. Needs pymobiledevice3 (make .venv/.ios).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from meltrepro.build.model import Artifact
from meltrepro.lab.iphone.device import ARM, VirtualIphone
from meltrepro.targets.base import RUNNER
from tests.benchmarks._table import figure, finish
from tests.support.ios_targets import paired, target

_RUNNER_BYTES = 8_000_000
"""As large as a real one."""


def main() -> int:
    """Print the table; 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HOME"] = str(folder / "home")
        (folder / "bundle/bin").mkdir(parents=True)
        bundle = _artifact("bundle", folder / "bundle", folder / "bundle" / RUNNER, _RUNNER_BYTES)
        model = _artifact("model", folder / "model", folder / "model", options.megabytes * 10**6)
        device = VirtualIphone(folder / "phone", programs=ARM)
        device.start()
        try:
            there = target(paired(device, folder / "pairings"))
            first_s = _seconds(lambda: there.deploy(bundle, model))
            again_s = [_seconds(lambda: there.deploy(bundle, model)) for _ in range(options.repetitions)]
        finally:
            device.erase()
    what = f"{options.megabytes} MB to the virtual iPhone"
    return finish([figure(f"{what}, verified", [first_s], "s"), figure(f"{what}, unchanged", again_s, "s", at_most=1)])


def _artifact(kind: Literal["bundle", "model"], path: Path, file: Path, size: int) -> Artifact:
    """An artifact whose content is a file of bytes that cannot be compressed."""
    found = hashlib.sha256()
    with file.open("wb") as out:
        for start in range(0, size, 1 << 20):
            data = os.urandom(min(1 << 20, size - start))
            found.update(data)
            out.write(data)
    digest = found.hexdigest()
    return Artifact(kind, kind, digest, digest, file, path, size)


def _seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


if __name__ == "__main__":
    raise SystemExit(main())
