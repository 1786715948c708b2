"""MLC's models on OpenCL, in a trial's sandbox: PoCL gives the tokens that the CPU's code gives, and what is missing is said in a line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from meltrepro.record.writer import clear_strangers
from tests.integration.bundles import Bundle
from tests.integration.prebuilt import Campaign, Engines, build
from tests.integration.prebuilt import run as run_all
from tests.integration.runner.contract import Runner

pytestmark = pytest.mark.integration
SPEC = """\
meltrepro: 1
name: opencl
include: [common/models.yaml]
models:
  smollm2-135m: {quantizations: [q4f32_1]}
frameworks:
  mlc: {release: "0.27.0.post1", options: {spinning: false}}
  mlc-opencl: {kind: mlc, release: "0.27.0.post1", options: {spinning: false, device: opencl}}
targets:
  host: {kind: host, threads: 1}
workloads:
  chat:
    conversations: [["What is the capital of France?", "Tell me three facts about it."]]
    context: 512
    max_tokens: 16
    ignore_eos: true
    sampling: {greedy: true}
protocol: {profile: smoke, repetitions: 1, warmups: 0}
measure: {limits: {cpu_pressure: 1}}
"""
SOURCES = {"cuda": ("model.cu", "__global__"), "metal": ("model.metal", "kernel void")}


@pytest.fixture(scope="module")
def engines(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return build(tmp_path_factory.mktemp("specs"), SPEC)


def opencl(engines: Engines, folder: Path) -> Runner:
    bundle = next(path for name, path in engines.artifacts.items() if name.endswith("-opencl") and "/run/" in name)
    model = next(path for name, path in engines.artifacts.items() if name.endswith("-opencl") and "/q4f32_1/" in name)
    return Runner(Bundle(bundle), model, folder)


@pytest.fixture(scope="module")
def campaign(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    return run_all(engines, tmp_path_factory.mktemp("home"))


def test_tokens_are_those_of_the_cpu(campaign: Campaign) -> None:
    """The second turn's prompt follows keys and values that are there, which goes by other kernels than the first one's."""
    both = [campaign.trace("q4f32_1", kind) for kind in ("mlc", "mlc-opencl")]
    turns = [[turn.token_ids for turn in trace.turns] for trace in both]
    assert len(turns[0]) == 2 and turns[0] == turns[1]


def test_the_record_says_what_computed(campaign: Campaign) -> None:
    place = campaign.cells / "q4f32_1" / "mlc-opencl" / "host" / "chat" / "r000"
    events = [json.loads(line) for line in (place / "events.jsonl").read_text().splitlines()]
    said = next(event for event in events if event["e"] == "effective")
    assert said["platform"].startswith("OpenCL 3.0 PoCL 3.1") and said["driver"] == "3.1+debian"
    assert said["device_kind"] == "cpu" and said["device"].startswith("pthread-")
    assert not [path for path in place.iterdir() if path.is_dir()]


def test_a_killed_runner_leaves_nothing_that_damages_a_record(engines: Engines, tmp_path: Path) -> None:
    """PoCL is in the middle of its kernels, which are in the runner's scratch folder."""
    runner = opencl(engines, tmp_path)
    process, _ = runner.start({**runner.request(), "opencl": True})
    while process.poll() is None and not [*tmp_path.glob("scratch/**/*.so")]:
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert [*(tmp_path / "scratch").iterdir()]
    runner.stderr.unlink()  # the test's own
    assert clear_strangers(tmp_path) is None
    assert {path.name for path in tmp_path.iterdir()} == {"request.json", "events.jsonl"}


def test_without_a_device_the_runner_says_so(engines: Engines, tmp_path: Path) -> None:
    runner = opencl(engines, tmp_path)
    without = Path(shutil.copytree(runner.bundle.folder, tmp_path / "bundle", symlinks=True, copy_function=os.symlink))
    (without / "lib" / "opencl" / "libpocl.so.2").unlink()
    runner = Runner(Bundle(without), runner.model, tmp_path)
    run = runner.run({**runner.request(max_tokens=1), "opencl": True})
    assert (run.status, run.error["code"], run.error["message"]) == (3, 3, "OpenCL: there is no device")


@pytest.mark.parametrize("device", ["cuda", "metal", "adreno"])
def test_code_for_other_devices_is_made(engines: Engines, tmp_path: Path, device: str) -> None:
    """Source where TVM's wheels have no compiler; for Adreno kernels and a phone's host code, in one library."""
    compiler = next(path for name, path in engines.artifacts.items() if "/compile/" in name)
    model = next(path for name, path in engines.artifacts.items() if "/q4f32_1/mlc/" in name)
    python = [str(compiler / "lib" / "ld-linux-x86-64.so.2"), "--library-path", str(compiler / "lib")]
    python += [str(compiler / "bin" / "python3"), "-I", "-S", "-B", str(compiler / "compile.py")]
    host = ["aarch64-linux-android", "generic", "+neon", "4"]
    done = subprocess.run(
        [*python, *host, device, model, tmp_path / "model"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    if device in SOURCES:
        name, kernel = SOURCES[device]
        assert (tmp_path / "model" / name).read_text().count(kernel) >= 30
        assert not (tmp_path / "model" / "model.so").exists()
    else:
        code = (tmp_path / "model" / "model.so").read_bytes()
        assert code[:5] == b"\x7fELF\x02" and code[18] == 183 and b"__kernel void" in code
