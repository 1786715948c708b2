"""The last phase of the NDK's recipe, over programs that no compiler made: what it ships, and what it refuses to."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from meltrepro.build.render import render_recipe
from meltrepro.frameworks.llamacpp.kits import Ndk
from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.frameworks.llamacpp.variants import LEVELS, with_ndk
from tests.support.frameworks import bundle

LOADER = b"/system/bin/linker64\0"
RELEASE = "2026-10-01"
TOOLS = ["melt-runner", "melt-sampler", "melt-agent", "llama-bench", "perplexity", "main"]


def elf(*, align: int = 0x4000, loader: bytes = LOADER, machine: int = 0xB7) -> bytes:
    """The smallest thing that is a dynamic ELF program: a segment of the given alignment, and a loader's name if any."""
    headers = [struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 0, 0, align)]
    if loader:
        headers.append(struct.pack("<IIQQQQQQ", 3, 4, 64 + 2 * 56, 0, 0, len(loader), len(loader), 1))
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, len(headers), 0, 0, 0)
    return head + b"".join(headers) + loader


def install(folder: Path, program: bytes, *, api: int = 29, notice: bool = True) -> subprocess.CompletedProcess[str]:
    """Run it with an NDK that has API level 29."""
    ndk = Ndk(ndk="ndk.zip", api=api)
    recipe = render_recipe(bundle(with_ndk(LEVELS["armv8_2"], api), RELEASE, toolchain=ndk).recipe, {}, {})
    folders = {name: folder / name.lower() for name in ("SRC", "BUILD", "OUT", "RECIPE")}
    root = folders["BUILD"] / "ndk" / "android-ndk-r99"
    compiler = root / "toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android29-clang++"
    texts = {
        folders["RECIPE"] / "build.sh": recipe.files["build.sh"].decode(),
        folders["RECIPE"] / f"releases/{RELEASE}.cmake": recipe.files[f"releases/{RELEASE}.cmake"].decode(),
        folders["SRC"] / "LICENSE": "MIT License\n\nPermission is hereby granted.\n",
        folders["SRC"] / "vendor/nlohmann/json.hpp": "// SPDX-FileCopyrightText: 2013 N. L.\n",
        root / "source.properties": "Pkg.Desc = Android NDK\r\nPkg.Revision = 99.0.1-beta2\r\n",
        **({root / "NOTICE.toolchain": "toolchain's\n", root / "NOTICE": "all\n"} if notice else {}),
        compiler: "",
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    compiler.chmod(0o755)
    folders["OUT"].mkdir()
    made = folders["BUILD"] / "tree" / "bundle"
    made.mkdir(parents=True)
    for tool in TOOLS:
        (made / tool).write_bytes(program)
    environment = {"PATH": os.environ["PATH"], **{name: str(path) for name, path in folders.items()}}
    command = ["sh", str(folders["RECIPE"] / "build.sh"), "install"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_bundle_says_what_it_is_linked_to(tmp_path: Path) -> None:
    done = install(tmp_path, elf())
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out" / "bin").iterdir()) == sorted(TOOLS)
    assert (tmp_path / "out" / "licenses" / "android-ndk").read_text() == "all\ntoolchain's\n"
    assert not (tmp_path / "out" / "licenses" / "musl").exists()
    assert json.loads((tmp_path / "out" / "bundle.json").read_text()) == {
        "format": 1,
        "framework": "llama.cpp",
        "release": RELEASE,
        "commit": RELEASES[RELEASE].commit,
        "triple": "aarch64-linux-android29",
        "isa": "armv8_2",
        "features": ["dotprod", "fullfp16", "neon"],
        "tools": TOOLS,
        "libc": "bionic",
        "api": 29,
        "march": "armv8.2-a+dotprod+fp16",
        "ndk": "99.0.1-beta2",
    }


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (elf(align=0x1000), "cannot be loaded with pages of 16 KiB"),
        (elf(loader=b""), "not for Android's loader (it names: none)"),
        (elf(loader=b"/lib/ld-linux-aarch64.so.1\0"), "(it names: /lib/ld-linux-aarch64.so.1)"),
        (elf(machine=0x3E), "not a program for aarch64-linux-android29"),
        (b"", "not a program for aarch64-linux-android29"),
    ],
)
def test_a_program_that_android_could_not_load_is_refused(program: bytes, message: str, tmp_path: Path) -> None:
    done = install(tmp_path, program)
    assert done.returncode != 0
    assert message in done.stderr
    assert not list((tmp_path / "out").glob("bin/*"))


def test_an_ndk_without_the_api_level_is_refused(tmp_path: Path) -> None:
    done = install(tmp_path, elf(), api=36)
    assert done.returncode == 1
    assert "aarch64-linux-android36-clang++: expected an Android NDK" in done.stderr


def test_nothing_is_shipped_without_its_licence(tmp_path: Path) -> None:
    done = install(tmp_path, elf(), notice=False)
    assert done.returncode == 1
    assert "no NOTICE" in done.stderr
    assert not (tmp_path / "out" / "bundle.json").exists()
