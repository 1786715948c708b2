"""Bundles and models for tests that run real runners.

Outside of a build, `MELTREPRO_TEST_BUNDLES` names bundle folders (separated by colons) and `MELTREPRO_TEST_MODEL` the
GGUF file of SmolLM2-135M-Instruct.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle and how its programs are started on this machine."""

    folder: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What `bundle.json` says."""
        facts: dict[str, Any] = json.loads((self.folder / "bundle.json").read_text())
        return facts

    @property
    def machine(self) -> str:
        """As `uname -m` spells it."""
        return str(self.facts["triple"]).partition("-")[0]

    def command(self, tool: str) -> list[str]:
        """The start of a command line; through an emulator where the bundle is for another machine."""
        program = str(self.folder / "bin" / tool)
        return [program] if self.machine == platform.machine() else [f"qemu-{self.machine}-static", program]

    @property
    def runnable(self) -> bool:
        """Whether there is what `command` needs."""
        return shutil.which(self.command("melt-runner")[0]) is not None


def bundles_from_environment() -> dict[str, Path]:
    """Name -> folder of every bundle in `MELTREPRO_TEST_BUNDLES`."""
    folders = [Path(part) for part in os.environ.get("MELTREPRO_TEST_BUNDLES", "").split(":") if part]
    return {"/".join(Bundle(folder).facts[key] for key in ("release", "isa")): folder for folder in folders}


def model_from_environment() -> Path | None:
    """The file that `MELTREPRO_TEST_MODEL` names."""
    path = os.environ.get("MELTREPRO_TEST_MODEL")
    return Path(path) if path else None
