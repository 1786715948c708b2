"""The promise of exact replication: built twice in different surroundings, as reprotest does it, the bytes are the same."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from meltrepro.frameworks.llamacpp.module import LlamaCpp
from tests.integration.conftest import ROOT, meltrepro
from tests.support.proofs import proof

pytestmark = pytest.mark.machine

RESTS_ON = (
    *("images", "meltrepro/build", "meltrepro/frameworks", "meltrepro/store", "specs", "requirements/dev.lock"),
    "tests/integration/test_reproducibility.py",
)
"""What makes the bytes. With all of it as it was, and on the same kernel, they were made twice already."""


def test_the_same_bytes_from_other_engine_user_folders_jobs_locale_and_umask(engine: None, tmp_path: Path) -> None:
    """The paper's llama.cpp for this machine and for aarch64, and every quantization of the model.

    Built by Docker, then from scratch without it under `build.toolchain.VARIED`.
    """
    shutil.copytree(ROOT / "specs", tmp_path, dirs_exist_ok=True)
    quantizations = sorted(LlamaCpp().quantizations())
    every = {"models": {"smollm2-135m": {"quantizations": quantizations}}}
    manifest = {"meltrepro": 1, "name": "every", "include": ["quickstart.yaml"], **every}
    (tmp_path / "every.yaml").write_text(yaml.safe_dump(manifest))
    shutil.copy(tmp_path / "quickstart.lock.yaml", tmp_path / "every.lock.yaml")  # the same base and sources
    arguments: list[str | Path] = [tmp_path / "every.yaml", "--set=frameworks.llama.cpp.options.isas=[armv8_2]"]
    built = meltrepro("build", *arguments, home=tmp_path / "home")
    assert built.returncode == 0, built.stdout + built.stderr
    with proof("reproducibility", RESTS_ON, platform.uname(), sys.version) as needed:
        if not needed:
            return
        done = meltrepro("verify", *arguments, "--vary", "--json", home=tmp_path / "home")
        assert done.returncode == 0, done.stdout + done.stderr
        findings = json.loads(done.stdout)
        assert {finding["status"] for finding in findings} == {"same"}
        assert {finding["artifact"] for finding in findings} >= {
            "llama.cpp/quantize/x86_64_v3",
            "llama.cpp/run/armv8_2",
            *(f"smollm2-135m/{quantization}/llama.cpp" for quantization in quantizations),
        }
