"""MLC's models on OpenCL, in a trial's sandbox: PoCL gives the tokens that the CPU's code gives, and what is missing is said in a line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.frameworks.llamacpp import cuda
from meltrepro.record.writer import clear_strangers
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
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
_EM_CUDA = 190


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


def compiled(engines: Engines, folder: Path, device: str) -> Path:
    """The code of a model for a device that no target has, by the command of docs/frameworks/mlc.md."""
    compiler = next(path for name, path in engines.artifacts.items() if "/compile/" in name)
    model = next(path for name, path in engines.artifacts.items() if "/q4f32_1/mlc/" in name)
    python = [str(compiler / "lib" / "ld-linux-x86-64.so.2"), "--library-path", str(compiler / "lib")]
    python += [str(compiler / "bin" / "python3"), "-I", "-S", "-B", str(compiler / "compile.py")]
    host = ["aarch64-linux-android", "generic", "+neon", "4"]
    done = subprocess.run(
        [*python, *host, device, model, folder / "model"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder / "model"


@pytest.mark.parametrize("device", ["metal", "adreno"])
def test_code_for_other_devices_is_made(engines: Engines, tmp_path: Path, device: str) -> None:
    """Source where TVM's wheels have no compiler; for Adreno kernels and a phone's host code, in one library."""
    model = compiled(engines, tmp_path, device)
    if device == "metal":
        assert (model / "model.metal").read_text().count("kernel void") >= 30
        assert not (model / "model.so").exists()
    else:
        code = (model / "model.so").read_bytes()
        assert code[:5] == b"\x7fELF\x02" and code[18] == 183 and b"__kernel void" in code
        assert b"libm.so\0" in code, "where Android's loader looks for what it calls"


@pytest.mark.slow
def test_nvcc_makes_a_boards_machine_code_of_the_cuda_source(engines: Engines, tmp_path: Path) -> None:
    """By the wheels that llama.cpp's recipe for JetPack 7 takes: every kernel, for the GPU of Orin boards."""
    model, here = compiled(engines, tmp_path, "cuda"), settings.load()
    kernels = {*re.findall(r"__launch_bounds__\(\d+\) (\w+)\(", (model / "model.cu").read_text())}
    assert len(kernels) >= 30 and not (model / "model.so").exists()
    for name in ("host-nvcc", "host-nvvm", "device-crt", "device-runtime", "device-cccl"):
        wheel = cuda.BUILDS["7.2"].sources[f"{name}.whl"]
        with zipfile.ZipFile(Fetcher(Store(here.store), here, silent).get(wheel, tmp_path)) as archive:
            archive.extractall(tmp_path / "cuda")
    (toolkit,) = (tmp_path / "cuda" / "nvidia").iterdir()
    for program in (*(toolkit / "bin").iterdir(), *(toolkit / "nvvm" / "bin").iterdir()):
        program.chmod(0o755)  # zip files do not say what is a program
    nvcc = [toolkit / "bin" / "nvcc", "-cubin", "-arch=sm_87", "-w"]
    command = [*map(str, nvcc), "-o", str(tmp_path / "cubin"), str(model / "model.cu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    cubin = (tmp_path / "cubin").read_bytes()
    assert cubin[:4] == b"\x7fELF" and int.from_bytes(cubin[18:20], "little") == _EM_CUDA
    assert cubin[49] == 87, "of this GPU, in the header's flags"
    assert all(b".text." + name.encode() + b"\0" in cubin for name in kernels)
