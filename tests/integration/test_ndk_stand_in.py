"""The NDK's recipe with a stand-in for the NDK: its folders and names, with the pinned zig behind them.

It shows that the recipe unpacks what a user may give, that the release's configuration takes the compilers and that what
is linked passes the recipe's own checks. It says nothing of bionic: programs of the stand-in hold musl, and no device
could start them, because nothing but their header names Android's loader.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltrepro import settings
from meltrepro.build import toolchain
from meltrepro.build.model import RecipeSource
from meltrepro.build.render import render_recipe
from meltrepro.frameworks.base import RUN
from meltrepro.frameworks.llamacpp.kits import Ndk
from meltrepro.frameworks.llamacpp.phones import PhonePart
from meltrepro.frameworks.llamacpp.variants import LEVELS, with_ndk, with_part
from meltrepro.frameworks.mlc.module import FRAMEWORK as MLC
from meltrepro.frameworks.mlc.options import MlcOptions
from meltrepro.frameworks.onnxruntime.module import FRAMEWORK as ONNX
from meltrepro.frameworks.onnxruntime.options import OnnxOptions
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from tests.support.frameworks import bundle
from tests.support.proofs import proof

RESTS_ON = (
    "images",
    "meltrepro/build",
    "meltrepro/frameworks",
    "meltrepro/store",
    "tests/integration/hexagon",
    "tests/integration/test_ndk_stand_in.py",
)
"""What is built here and how: with all of it as it was, it was built already."""
TOOLS = ("melt-sampler", "melt-agent")
"""Programs that need nothing of the framework: the others would take half an hour."""
COMPILER = """\
#!/bin/sh
# STAND-IN for the NDK's compiler: zig with musl, a header that names Android's loader, and zig's spelling of CPU levels.
for argument; do
    shift
    case "$argument" in
        -march=armv8.2-a+dotprod+fp16) set -- "$@" -mcpu=baseline+dotprod+fullfp16 ;;
        -march=armv8-a) set -- "$@" -mcpu=baseline ;;
        *) set -- "$@" "$argument" ;;
    esac
done
case " $* " in
    *" -c "* | *" -E "* | *" -S "*) ;;
    *) set -- "$@" -dynamic -Wl,--dynamic-linker=/system/bin/linker64 ;;
esac
exec {zig} {language} -target aarch64-linux-musl "$@"
"""
ARCHIVER = '#!/bin/sh\n# STAND-IN for the NDK\'s llvm-{tool}.\nexec {zig} {tool} "$@"\n'


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned toolchain, unpacked."""
    here = settings.load()
    store = Store(here.cache / "store")
    fetcher = Fetcher(store, here, silent)
    wheels = {name: fetcher.get(source, Path()) for name, source in toolchain.SOURCES.items()}
    layer = toolchain.layer(wheels, store, silent)
    folder = tmp_path_factory.mktemp("toolchain")
    subprocess.run(["tar", "-xf", str(layer.path), "-C", str(folder)], check=True)
    return folder / "opt" / "toolchain"


def stand_in(folder: Path, zig: Path) -> Path:
    """A folder that looks like an unpacked NDK."""
    bin_folder = folder / "toolchains" / "llvm" / "prebuilt" / "linux-x86_64" / "bin"
    bin_folder.mkdir(parents=True)
    scripts = {
        "aarch64-linux-android29-clang": COMPILER.format(zig=zig, language="cc"),
        "aarch64-linux-android29-clang++": COMPILER.format(zig=zig, language="c++"),
        "llvm-ar": ARCHIVER.format(zig=zig, tool="ar"),
        "llvm-ranlib": ARCHIVER.format(zig=zig, tool="ranlib"),
    }
    for name, text in scripts.items():
        (bin_folder / name).write_text(text)
        (bin_folder / name).chmod(0o755)
    (folder / "source.properties").write_text("Pkg.Desc = Stand-in\nPkg.Revision = 0.0.0-standin\n")
    (folder / "NOTICE").write_text("The notices of a stand-in.\n")
    return folder


@pytest.mark.parametrize(("release", "packed"), [("2024-02-27", False), ("2026-10-01", True)])
def test_the_recipe_builds_with_a_stand_in(release: str, packed: bool, tools: Path, tmp_path: Path) -> None:
    """Both releases' own configurations, and both forms of an NDK: a folder, and a zip."""
    ndk = stand_in(tmp_path / "android-ndk-standin", tools / "zig" / "zig")
    if packed:
        with zipfile.ZipFile(tmp_path / "ndk.zip", "w") as archive:
            for path in sorted(ndk.rglob("*")):
                archive.write(path, path.relative_to(tmp_path))
    entry = Ndk(ndk="ndk.zip" if packed else ndk.name)
    source = bundle(with_ndk(LEVELS["armv8_2"], entry.api), release, toolchain=entry).recipe
    source = replace(source, variables={**source.variables, "tools": list(TOOLS)})
    with proof("ndk-stand-in", RESTS_ON, release, platform.uname()) as needed:
        if needed:
            facts = check(build(source, tools, tmp_path), TOOLS)
            assert facts["march"] == "armv8.2-a+dotprod+fp16"


@pytest.mark.costly
def test_tvms_runtime_is_compiled_of_the_sources_in_its_wheels(tools: Path, tmp_path: Path) -> None:
    """All of it, with OpenCL, linked into the runner; ten minutes of CPU time."""
    entry = Ndk(ndk=stand_in(tmp_path / "android-ndk-standin", tools / "zig" / "zig").name)
    options = MlcOptions(toolchain=entry, device="opencl", isas=["armv8_a"])
    (release,) = MLC.releases().values()
    (variant,) = MLC.extra_variants(options, release)
    with proof("ndk-stand-in-mlc", RESTS_ON, platform.uname()) as needed:
        if needed:
            out = build(MLC.recipe(options, release, variant, RUN), tools, tmp_path)
            programs = ("melt-runner", "melt-scorer", *TOOLS)
            assert check(out, programs)["march"] == "armv8-a"
            # What a model's code calls is found in the program, and so is OpenCL's part.
            for name in (b"\0TVMFFIFunctionCall\0", b"\0TVMBackendParallelLaunch\0", b"device_api.opencl"):
                assert name in (out / "bin" / "melt-runner").read_bytes()


@pytest.mark.costly
def test_a_library_of_a_package_for_android_is_beside_programs(tools: Path, tmp_path: Path) -> None:
    """ONNX Runtime's, and all that is compiled besides; four minutes of CPU time."""
    entry = Ndk(ndk=stand_in(tmp_path / "android-ndk-standin", tools / "zig" / "zig").name)
    options = OnnxOptions(toolchain=entry, isas=["armv8"])
    (release,) = ONNX.releases().values()
    (variant,) = ONNX.extra_variants(options, release)
    with proof("ndk-stand-in-onnxruntime", RESTS_ON, platform.uname()) as needed:
        if needed:
            out = build(ONNX.recipe(options, release, variant, RUN), tools, tmp_path)
            assert check(out, ("melt-runner", "melt-scorer", *TOOLS))["march"] == "armv8-a"
            assert {path.name for path in out.iterdir()} == {"bin", "lib", "licenses", "bundle.json"}
            library = (out / "lib" / "libonnxruntime.so").read_bytes()
            assert release.commit.encode() in library and b"\0libandroid.so\0" in library
            assert b"libonnxruntime.so\0" in (out / "bin" / "melt-runner").read_bytes()
            licenses = {"android-ndk", "llama.cpp", "onnxruntime", "onnxruntime-third-party"}
            assert {path.name for path in (out / "licenses").iterdir()} == licenses


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["opencl", "hexagon"])
def test_what_phones_have_besides_a_cpu_is_compiled_and_linked(kind: PhonePart, tools: Path, tmp_path: Path) -> None:
    """The backend alone, in a program that asks it for devices: no library of a phone is needed to link it. A minute of CPU time."""
    entry = Ndk(ndk=stand_in(tmp_path / "android-ndk-standin", tools / "zig" / "zig").name)
    options: dict[str, Any] = {"opencl": True} if kind == "opencl" else {"hexagon": {"sdk": sdk(tmp_path / "sdk").name}}
    variant = with_part(with_ndk(LEVELS["armv8_2"], entry.api), kind)
    with proof(f"ndk-stand-in-{kind}", RESTS_ON, platform.uname()) as needed:
        if not needed:
            return
        folders = lay_out(bundle(variant, toolchain=entry, **options).recipe, tmp_path)
        script, place = str(folders["RECIPE"] / "build.sh"), folders["BUILD"]
        run(folders, tools, ["sh", script, "configure"])
        skels = ["htp-v73"] if kind == "hexagon" else []
        ninja = [str(tools / "ninja" / "ninja"), "-C", str(place / "tree")]
        run(folders, tools, [*ninja, f"ggml-{kind}", "ggml-base", *skels])
        libraries = place / "tree" / "llama.cpp" / "ggml" / "src"
        (place / "probe.cpp").write_text(PROBE.format(kind=kind))
        compiler = next((place / "ndk").rglob("*-clang++"))
        parts = [libraries / f"ggml-{kind}" / f"libggml-{kind}.a", libraries / "libggml-base.a"]
        own = ["opencl/libmelt-opencl.a"] if kind == "opencl" else ["hexagon.o"]
        stubs = [*libraries.rglob("htp_iface_stub*.o")]
        linked = map(str, [place / "probe.cpp", *parts, *stubs, *(place / name for name in own)])
        include = folders["SRC"] / "ggml" / "include"
        march = "-march=armv8.2-a+dotprod+fp16"
        run(folders, tools, [str(compiler), march, f"-I{include}", *linked, "-o", str(place / "probe")])
        program = (place / "probe").read_bytes()
        assert b"/system/bin/linker64\0" in program
        if kind == "opencl":
            assert b"kernel void kernel_add" in program and b"/vendor/lib64/libOpenCL.so\0" in program
        else:
            assert b"ADSP_LIBRARY_PATH\0" in program and [*libraries.rglob("libggml-htp-v73.so")]
            # Programs do not need the libraries for the NPU; the bundle does.
            asked = run(folders, tools, [*ninja, "-t", "query", "bundle"])
            assert all(f"htp-{each}" in asked for each in ("v73", "v75", "v79", "v81"))


PROBE = """\
#include "ggml-backend.h"
extern "C" ggml_backend_reg_t ggml_backend_{kind}_reg();
int main() {{
    return ggml_backend_reg_dev_count(ggml_backend_{kind}_reg());
}}
"""


def sdk(folder: Path) -> Path:
    """A folder that looks like Qualcomm's SDK, as far as llama.cpp asks: its compiler leaves what is for no machine."""
    place, programs = Path(__file__).with_name("hexagon"), folder / "kit" / "Tools" / "bin"
    for name in ("incs", "build/cmake", "kit/Tools/bin"):
        (folder / name).mkdir(parents=True)
    for name, to in {"sdk.h": "incs", "stub.c": ".", "hexagon_fun.cmake": "build/cmake"}.items():
        shutil.copy(place / name, folder / to)
    for header in ("AEEStdErr", "dspqueue", "rpcmem", "remote", "domain"):
        (folder / "incs" / f"{header}.h").write_text("#include <sdk.h>\n")
    for name in ("clang", "clang++"):
        shutil.copy(place / "hexagon-clang", programs / f"hexagon-{name}")
    (programs / "hexagon-ar").write_text('#!/bin/sh\necho "for no NPU" > "$2"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    (folder / "build" / "cmake" / "hexagon_arch.cmake").write_text("set(HEXAGON_ARCH ${DSP_VERSION})\n")
    (folder / "hexagon_sdk.json").write_text('{"root": {"tools": {"info": [{"path": "kit"}]}}}')
    return folder


def build(source: RecipeSource, tools: Path, folder: Path) -> Path:
    """What the recipe leaves, of all its phases, each in a shell of its own, as engines call them."""
    folders = lay_out(source, folder)
    for phase in ("configure", "compile", "install"):
        run(folders, tools, ["sh", str(folders["RECIPE"] / "build.sh"), phase])
    return folders["OUT"]


def lay_out(source: RecipeSource, folder: Path) -> Mapping[str, Path]:
    """Recipe and inputs in folders as an engine has them, by the names of their variables."""
    here = settings.load()
    fetcher = Fetcher(Store(here.cache / "store"), here, silent)
    folders = {name: folder / name.lower() for name in ("SRC", "BUILD", "OUT", "RECIPE", "INPUTS")}
    for place in folders.values():
        place.mkdir()
    for name, content in render_recipe(source, {}, {}).files.items():
        path = folders["RECIPE"] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name, item in source.inputs.items():
        (folders["INPUTS"] / name).symlink_to(fetcher.get(item, folder))
    return folders


def check(out: Path, programs: Collection[str]) -> Mapping[str, object]:
    facts: Mapping[str, object] = json.loads((out / "bundle.json").read_text())
    assert (facts["triple"], facts["libc"], facts["api"]) == ("aarch64-linux-android29", "bionic", 29)
    assert facts["ndk"] == "0.0.0-standin"
    assert sorted(path.name for path in (out / "bin").iterdir()) == sorted(programs)
    assert (out / "licenses" / "android-ndk").read_text() == "The notices of a stand-in.\n"
    for program in programs:
        assert b"/system/bin/linker64\0" in (out / "bin" / program).read_bytes()
    return facts


def run(folders: Mapping[str, Path], tools: Path, command: Sequence[str]) -> str:
    """A command in the environment of a build; what it prints."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folders["BUILD"]),
        "LC_ALL": "C",
        "TOOLCHAIN": str(tools),
        # zig compiles musl and the C++ library for the first release (100 s of CPU time); the second finds them here.
        "ZIG_GLOBAL_CACHE_DIR": str(tools.parent / "zig-cache"),
        "ZIG_LOCAL_CACHE_DIR": str(folders["BUILD"] / "zig-local"),
        **{name: str(folder) for name, folder in folders.items()},
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout
