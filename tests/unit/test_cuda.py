"""CUDA for Jetson boards: what a manifest may ask for, who gets it, and what its recipe is made of and refuses."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from meltrepro import settings
from meltrepro.build import toolchain
from meltrepro.build.keys import bundle_key
from meltrepro.build.model import Recipe
from meltrepro.build.render import render_recipe
from meltrepro.campaign.request import make_requests
from meltrepro.chat.template import BUILT_IN
from meltrepro.errors import DownloadError, ManifestError
from meltrepro.frameworks.base import SkipKind
from meltrepro.frameworks.llamacpp.cuda import BUILDS
from meltrepro.frameworks.llamacpp.variants import LEVELS, with_cuda
from meltrepro.manifest.loader import LoadedManifest, load_manifest
from meltrepro.manifest.lock import Lock, LockedSource
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.sources import DebianPackage
from meltrepro.plan.identity import plan_document
from meltrepro.plan.model import BundleNode, Plan
from meltrepro.plan.planner import make_plan
from meltrepro.replay.gaps import withheld
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.store.source import key_of
from meltrepro.targets.base import DeviceFacts
from tests.support.frameworks import bundle
from tests.support.manifests import GOOD, write

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
ORIN = DeviceFacts(
    "board-1", "jetson", "Orin", "aarch64", frozenset({"asimd", "asimddp", "asimdhp"}), 8, 32 << 30, 64 << 30
)
HERE = DeviceFacts(
    "host-1",
    "host",
    "PC",
    "x86_64",
    frozenset({"ssse3", "sse4_1", "sse4_2", "popcnt"}),
    8,
    32 << 30,
    64 << 30,
)


def manifest(
    folder: Path,
    *,
    cuda: str = "{jetpack: '7.2'}",
    more: str = "",
    target: str = "jetson",
    release: str = "2026-10-01",
) -> LoadedManifest:
    document = yaml.safe_load(GOOD)
    document["frameworks"] = {"llama.cpp": {"release": release, "options": {"cuda": yaml.safe_load(cuda)}}}
    document["frameworks"]["llama.cpp"]["options"] |= yaml.safe_load(more) or {}
    document["targets"] = {"orin": {"kind": target, "host": "orin"}, "host": {"kind": "host"}}
    return load_manifest(write(folder, yaml.safe_dump(document)))


def planned(loaded: LoadedManifest, **facts: str) -> Plan:
    return make_plan(loaded, {"orin": replace(ORIN, facts=facts), "host": HERE})


def node(jetpack: str, level: str = "armv8_2") -> BundleNode:
    return bundle(with_cuda(LEVELS[level], BUILDS[jetpack]), cuda={"jetpack": jetpack})


def recipe_of(jetpack: str, level: str = "armv8_2") -> Recipe:
    source = node(jetpack, level).recipe
    return render_recipe(source, {}, {name: item.digest or "" for name, item in source.inputs.items()})


# -- manifest and plan ------------------------------------------------------------------------------------------------


def test_boards_get_cuda_and_all_layers_and_this_machine_neither(tmp_path: Path) -> None:
    loaded = manifest(tmp_path)
    plan = planned(loaded, l4t="39.2.0")
    assert {(cell.target_name, cell.variant.libc, cell.options["gpu_layers"]) for cell in plan.cells} == {
        ("orin", "glibc", 999),
        ("host", "musl", 0),
    }
    document = plan_document(plan)
    assert {cell["target"]: cell["options"]["gpu_layers"] for cell in document["cells"]} == {"orin": 999, "host": 0}
    bundles = {bundle["id"]: bundle.get("accelerator") for bundle in document["bundles"] if bundle["purpose"] == "run"}
    assert bundles == {"llama.cpp/run/armv8_2-jetpack7.2": "CUDA 13.2 sm_87", "llama.cpp/run/x86_64_v2": None}
    conversations = {name: [["Hello"]] for name in loaded.manifest.workloads}
    requests = make_requests(loaded, plan, conversations, {"orin": ORIN, "host": HERE}, {"m": BUILT_IN["plain"]})
    assert {(name.split("/")[3], request.options["gpu_layers"]) for name, request in requests.items()} == {
        ("orin", 999),
        ("host", 0),
    }


@pytest.mark.parametrize(("asked", "layers"), [("all", 999), ("0", 0), ("12", 12)])
def test_some_layers_may_stay_on_the_cpu(tmp_path: Path, asked: str, layers: int) -> None:
    plan = planned(manifest(tmp_path, more=f"gpu_layers: {asked}"))
    assert {cell.options["gpu_layers"] for cell in plan.cells if cell.target_name == "orin"} == {layers}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cuda": "{jetpack: '5.1'}"}, "unknown JetPack"),
        ({"release": "2024-02-27"}, "is built of release 2026-10-01 alone"),
        ({"target": "linux"}, "no target is one"),
        ({"cuda": "null", "more": "gpu_layers: all"}, "gpu_layers needs cuda"),
        ({"more": "gpu_layers: -1"}, "gpu_layers"),
        ({"more": "gpu_layers: most"}, "gpu_layers"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        planned(manifest(tmp_path, **changes))


def test_a_board_of_another_release_is_skipped(tmp_path: Path) -> None:
    plan = planned(manifest(tmp_path), l4t="36.4.3")
    assert {cell.target_name for cell in plan.cells} == {"host"}
    assert all(skip.kind is SkipKind.options for skip in plan.skipped)
    assert all("built with CUDA of JetPack 7.2 (L4T 39)" in skip.reason for skip in plan.skipped)


def test_boards_without_a_gpu_of_nvidias_get_cpus_beside_one_that_has_it(tmp_path: Path) -> None:
    document = yaml.safe_load(manifest(tmp_path).path.read_text())
    document["targets"] = {
        "orin": {"kind": "jetson", "host": "orin"},
        "virtual": {"kind": "jetson", "lab": "jetson"},
        "board": {"kind": "linux", "host": "board"},
    }
    devices = {"orin": ORIN, "virtual": replace(ORIN, virtual=True), "board": replace(ORIN, kind="linux")}
    plan = make_plan(load_manifest(write(tmp_path, yaml.safe_dump(document))), devices)
    assert plan.skipped == ()
    assert {(cell.target_name, cell.variant.name, cell.options["gpu_layers"]) for cell in plan.cells} == {
        ("orin", "armv8_2-jetpack7.2", 999),
        ("virtual", "armv8_2", 0),
        ("board", "armv8_2", 0),
    }
    run = {node.id: node.variant.libc for node in plan.bundles if node.purpose == "run"}
    assert run == {"llama.cpp/run/armv8_2-jetpack7.2": "glibc", "llama.cpp/run/armv8_2": "musl"}


def test_a_lock_is_of_one_jetpack(tmp_path: Path) -> None:
    digests = {
        manifest_digest(manifest(tmp_path, cuda=cuda).manifest)
        for cuda in ("{jetpack: '7.2'}", "{jetpack: '6.2'}", "null")
    }
    assert len(digests) == 3


# -- sources ----------------------------------------------------------------------------------------------------------


def test_everything_is_pinned_and_what_is_nvidias_is_not_passed_on(tmp_path: Path) -> None:
    for cuda in BUILDS.values():
        assert all(source.digest for source in cuda.sources.values())
        assert {name.partition("-")[0] for name in cuda.sources} == {"gcc", "host", "device"}
    lock = Lock(
        manifest="0" * 64,
        sources={
            **{key_of(source): LockedSource(digest=source.digest or "") for source in BUILDS["7.2"].sources.values()},
            "pypi:nvidia-cuda-nvcc==0.0.1:wheel:x.whl": LockedSource(digest="0" * 64),  # that an older recipe took
        },
    )
    kept_back = set(withheld(manifest(tmp_path).manifest, lock))
    ours = {s.digest for name, s in BUILDS["7.2"].sources.items() if not name.startswith("gcc-")}
    assert kept_back == ours | {"0" * 64}


def test_a_package_that_is_here_is_taken_and_one_that_is_not_says_what_helps(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    offline = settings.load({"HOME": str(tmp_path), "MELTREPRO_OFFLINE": "1"})
    fetcher = Fetcher(store, offline, lambda step: None)
    (tmp_path / "a.deb").write_bytes(b"package")
    digest = store.put_file(tmp_path / "a.deb")
    here = DebianPackage(file="a_1_all.deb", digest=digest, suite="bookworm", brought_by="a")
    assert fetcher.get(here).read_bytes() == b"package"
    assert fetcher.pin(here, tmp_path).source == "debian:a_1_all.deb"
    with pytest.raises(DownloadError, match="debian:a_1_all.deb"):
        fetcher.get(here.model_copy(update={"digest": "0" * 64}))


# -- recipe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jetpack", BUILDS)
@pytest.mark.parametrize("level", ["armv8_a", "armv8_2"])
def test_a_recipe_is_a_clean_script(jetpack: str, level: str, tmp_path: Path) -> None:
    script = recipe_of(jetpack, level).files["build.sh"]
    (tmp_path / "build.sh").write_bytes(script)
    subprocess.run(["sh", "-n", str(tmp_path / "build.sh")], check=True)
    done = subprocess.run([str(SHELLCHECK), str(tmp_path / "build.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    text = script.decode()
    assert "-DGGML_CUDA_NO_VMM=ON" in text and "-DCMAKE_CUDA_ARCHITECTURES=87-real" in text
    assert ("libcudart_static.a" in text) == (jetpack == "7.2"), "boards with JetPack 6 must have their own"


def test_a_recipe_has_the_runners_sources_and_what_stands_for_cublas() -> None:
    files = recipe_of("7.2").files
    shared = render_recipe(bundle("armv8_2").recipe, {}, {}).files
    assert {name for name in files if files[name] == shared.get(name)} == shared.keys() - {"build.sh"}
    assert files.keys() - shared.keys() == {"toolchain/cublas.cpp", "toolchain/cublas_v2.h"}


def test_what_is_built_follows_from_jetpack_and_level() -> None:
    keys = {bundle_key(recipe_of(jetpack, level)) for jetpack in BUILDS for level in ("armv8_a", "armv8_2")}
    assert len(keys) == 4
    assert set(toolchain.makers(node("7.2").variant.triple)) == {"cmake", "ninja"}


# -- what the build refuses -------------------------------------------------------------------------------------------


def fat(arch: int, *, kind: int = 2, pieces: int = 1) -> bytes:
    """Fat binaries as nvcc embeds them, without what they hold."""
    piece = struct.pack("<HHIQIIIIQQQQ", kind, 0x101, 64, 8, 8, 0, 0x10008, arch, 0, 0, 0, 0) + bytes(8)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(piece) * pieces) + piece * pieces


READELF = """#!/bin/sh
cat <<'END'
  Class:                             {elf}
  Machine:                           {machine}
      [Requesting program interpreter: {loader}]
 0x0000000000000001 (NEEDED)             Shared library: [{needed}]
  0x0010:   Name: GLIBC_2.17  Flags: none  Version: 2
  0x0020:   Name: GLIBC_{glibc}  Flags: none  Version: 3
END
"""
FINE = {
    "elf": "ELF64",
    "machine": "AArch64",
    "loader": "/lib/ld-linux-aarch64.so.1",
    "needed": "libc.so.6",
    "glibc": "2.36",
}


def install(tmp_path: Path, gpu: bytes, **said: str) -> subprocess.CompletedProcess[str]:
    """Run the real script's last phase with a readelf that says what it is told to, and an objcopy that finds `gpu`."""
    recipe = recipe_of("7.2")
    folders = {name: tmp_path / name.lower() for name in ("SRC", "BUILD", "OUT", "RECIPE", "TOOLCHAIN")}
    gcc, build = folders["BUILD"] / "gcc/usr", folders["BUILD"]
    texts = {
        folders["RECIPE"] / "build.sh": recipe.files["build.sh"].decode(),
        folders["RECIPE"] / "releases/2026-10-01.cmake": recipe.files["releases/2026-10-01.cmake"].decode(),
        folders["SRC"] / "LICENSE": "MIT License\n\nPermission is hereby granted.\n",
        folders["SRC"] / "vendor/nlohmann/json.hpp": "// SPDX-FileCopyrightText: 2013 N. L.\n",
        gcc / "share/doc/gcc-12-cross-base/copyright": "GCC",
        build / "cuda/nvidia_cuda_runtime-13.2.86.dist-info/licenses/License.txt": "NVIDIA",
        gcc / "bin/aarch64-linux-gnu-readelf": READELF.format(**{**FINE, **said}),
        gcc / "bin/aarch64-linux-gnu-objcopy": f'#!/bin/sh\nfor last; do :; done\ncp "{tmp_path}/gpu" "$last"\n',
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "gpu").write_bytes(gpu)
    folders["OUT"].mkdir()
    (build / "tree/bundle").mkdir(parents=True)
    for tool in ("melt-runner", "melt-sampler", "melt-agent", "llama-bench", "perplexity", "main"):
        (build / "tree/bundle" / tool).write_bytes(b"program")
    environment = {"PATH": os.environ["PATH"], **{name: str(folder) for name, folder in folders.items()}}
    command = ["sh", str(folders["RECIPE"] / "build.sh"), "install"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_install_leaves_a_bundle_that_says_what_it_is(tmp_path: Path) -> None:
    done = install(tmp_path, fat(87) + bytes(40) + fat(87))
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((tmp_path / "out/bundle.json").read_text()).items()
        >= {
            "jetpack": "7.2",
            "cuda": "13.2",
            "gpu": "sm_87",
            "libc": "glibc",
            "glibc": "2.39",
        }.items()
    )
    assert {path.name for path in (tmp_path / "out/licenses").iterdir()} == {
        *("llama.cpp", "gcc", "cuda-runtime", "nlohmann-json")
    }


@pytest.mark.parametrize(
    ("gpu", "said", "message"),
    [
        (fat(87), {"machine": "Advanced Micro Devices X86-64"}, "not a program for aarch64-linux-gnu"),
        (fat(87), {"loader": "/lib/ld-musl-aarch64.so.1"}, "not for the device's loader"),
        (fat(87), {"needed": "libcuda.so.1"}, "needs libcuda.so.1"),
        (fat(87), {"needed": "libstdc++.so.6"}, "needs libstdc\\+\\+.so.6"),
        (fat(87), {"glibc": "2.41"}, "needs glibc 2.41, and JetPack 7.2 has 2.39"),
        (b"", {}, "holds no code for a GPU"),
        (b"something else", {}, "no fat binary"),
        (fat(87) + fat(90), {}, "for sm_90; expected machine code for sm_87 alone"),
        (fat(87, kind=1), {}, "GPU code of kind 1"),
        (fat(87, pieces=2), {}, "expected machine code for sm_87 alone"),
    ],
)
def test_install_refuses_what_a_board_could_not_run(
    gpu: bytes, said: dict[str, str], message: str, tmp_path: Path
) -> None:
    done = install(tmp_path, gpu, **said)
    assert done.returncode != 0
    assert re.search(message, done.stderr), done.stderr
    assert not list((tmp_path / "out").glob("bin/melt-runner"))
