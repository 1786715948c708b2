"""llama.cpp's recipe: what is rendered for every release and CPU level, and what its build script refuses."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from meltrepro import resources
from meltrepro.build import toolchain
from meltrepro.build.model import Recipe, RecipeSource
from meltrepro.build.render import render_recipe, render_text
from meltrepro.errors import BuildError
from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.frameworks.llamacpp.variants import LEVELS, Level
from tests.support.frameworks import bundle

CASES = [
    pytest.param(release, level, purpose, id=f"{release}-{level.name}-{purpose}")
    for release in RELEASES
    for level in LEVELS.values()
    for purpose in ("run", "quantize")
]
MACHINES = {"x86_64": 0x3E, "aarch64": 0xB7}


def recipe_of(release: str, level: str, purpose: str = "run") -> Recipe:
    return render_recipe(bundle(level, release, purpose).recipe, {}, {})


def script_of(recipe: Recipe) -> str:
    return recipe.files["build.sh"].decode()


@pytest.mark.parametrize(("release", "level", "purpose"), CASES)
def test_every_recipe_is_a_shell_script_for_its_release_and_level(
    release: str, level: Level, purpose: str, tmp_path: Path
) -> None:
    recipe = recipe_of(release, level.name, purpose)
    script = script_of(recipe)
    (tmp_path / "build.sh").write_text(script)
    subprocess.run(["sh", "-n", str(tmp_path / "build.sh")], check=True)
    assert script.startswith("#!/bin/sh\n") and "\nset -eu\n" in script
    assert f"releases/{release}.cmake" in recipe.files
    assert f'-C "$RECIPE/releases/{release}.cmake"' in script
    assert f"readonly commit={RELEASES[release].commit}\n" in script
    assert f"readonly triple={level.triple}\n" in script
    features = re.search(r"for feature in (.*); do", script)
    assert features is not None and features[1].split() == list(level.enable)


def test_recipes_travel_with_the_runners_sources_and_nothing_else() -> None:
    names = set(recipe_of("2024-02-27", "x86_64_v3").files)
    assert {"build.sh", "CMakeLists.txt", "runner/main.cpp", "engine/engine.cpp"} <= names
    assert {Path(name).suffix for name in names} == {".sh", ".txt", ".cpp", ".h", ".cmake"}


def test_what_quantizes_is_not_made_anew_for_another_runner() -> None:
    """Its bytes are part of every model's identity."""
    names = set(recipe_of("2024-02-27", "x86_64_v3", "quantize").files)
    assert {name.partition("/")[0] for name in names} == {"build.sh", "CMakeLists.txt", "releases"}


def test_the_tools_are_those_of_the_purpose() -> None:
    run = script_of(recipe_of("2026-10-01", "x86_64_v3"))
    quantize = script_of(recipe_of("2026-10-01", "x86_64_v3", "quantize"))
    assert '-DMELT_TOOLS="melt-runner;' in run
    assert '-DMELT_TOOLS="quantize"' in quantize and "melt-runner" not in quantize.replace("# Builds", "")


@pytest.mark.parametrize("release", RELEASES)
def test_the_cpu_level_comes_from_the_flags_alone(release: str) -> None:
    """Neither release may add flags of its own, and no flag may make zig compile its C library anew."""
    recipe = recipe_of(release, "x86_64_v3")
    cache = recipe.files[f"releases/{release}.cmake"].decode()
    for option in ("NATIVE", "AVX", "AVX2", "FMA", "F16C"):
        assert re.search(rf"\b{option}\b", cache)
    assert "-march" not in script_of(recipe)
    assert not re.search(r"-m(avx|fma|sse|cpu=)", script_of(recipe))


def test_tuning_is_a_flag_of_its_own_and_only_where_it_is_asked_for() -> None:
    source = bundle("x86_64_v3", "2024-02-27").recipe
    variables = {name: value for name, value in source.variables.items() if name != "tune"}
    assert "-tune-cpu" not in script_of(render_recipe(replace(source, variables=variables), {}, {}))
    tuned = script_of(render_recipe(replace(source, variables={**variables, "tune": "haswell"}), {}, {}))
    assert "-Xclang -tune-cpu -Xclang haswell" in tuned


def test_a_loop_lies_alike_in_the_runner_and_in_the_frameworks_own_benchmark() -> None:
    for level in LEVELS:
        assert "-falign-functions=64" in script_of(recipe_of("2024-02-27", level))
        assert "-falign-functions" not in script_of(recipe_of("2024-02-27", level, "quantize")), (
            "models would be others"
        )


def test_nothing_that_differs_between_machines_is_rendered() -> None:
    recipe = recipe_of("2024-02-27", "x86_64_v3")
    assert '-j "$JOBS"' in script_of(recipe)
    assert recipe.files == recipe_of("2024-02-27", "x86_64_v3").files
    for content in recipe.files.values():
        assert not re.search(rb"\b(curl|wget|apt-get|pip)\b|/root/|/home/", content)


def test_a_variable_that_is_not_given_is_an_error() -> None:
    folders = {"": resources.images() / "llama.cpp" / "recipe"}
    source = RecipeSource("llama.cpp/x", folders, {"release": "x"}, {}, "x86_64-linux-musl")
    with pytest.raises(BuildError, match="is undefined"):
        render_recipe(source, {}, {})


def test_a_recipe_that_is_none_says_so(tmp_path: Path) -> None:
    def rendered(folder: Path) -> Recipe:
        return render_recipe(RecipeSource("toy/x", {"": folder}, {}, {}, "x86_64-linux-musl"), {}, {})

    with pytest.raises(BuildError, match="toy/x cannot be read: .*nowhere"):
        rendered(tmp_path / "nowhere")
    with pytest.raises(BuildError, match=r"toy/x has no build\.sh\.j2"):
        rendered(tmp_path)
    (tmp_path / "_part.j2").write_text("{{ 1 + 1 }}\n")
    (tmp_path / "build.sh.j2").write_text('{% include "_part.j2" %}')
    assert rendered(tmp_path).files == {"build.sh": b"2\n"}


@pytest.mark.parametrize("phases", [("configure", "compile", "install"), ("",)])
def test_dockerfile(phases: tuple[str, ...]) -> None:
    recipe = recipe_of("2024-02-27", "armv8_2")
    env = toolchain.environment(recipe.triple)
    variables = {"builder": "builder:1", "env": env, "phases": phases, "labels": {"a.b": 'say "hi"', "c": "d"}}
    lines = render_text(recipe.dockerfile, variables, name="Dockerfile").splitlines()
    assert lines[0] == "FROM builder:1"
    assert 'LABEL a.b="say \\"hi\\"" c="d" ' in lines
    runs = [line.removeprefix("RUN ") for line in lines if line.startswith("RUN")]
    assert [json.loads(run) for run in runs] == [
        ["/bin/sh", "/recipe/build.sh", *([phase] if phase else [])] for phase in phases
    ]
    (environment,) = [line for line in lines if line.startswith("ENV")]
    assert f"ZIG_TARGET={recipe.triple}" in environment


# -- the script itself ------------------------------------------------------------------------------------------------


def elf(machine: int, *, program_header: int = 1) -> bytes:
    """The smallest thing that is a 64-bit ELF program: a header and one program header of the given type."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + struct.pack("<IIQQQQQQ", program_header, 5, 0, 0, 0, 0, 0, 0)


def install(tmp_path: Path, level: Level, program: bytes) -> subprocess.CompletedProcess[str]:
    """Run the real script's last phase over programs that no compiler made."""
    recipe = recipe_of("2024-02-27", level.name)
    folders = {name.upper(): tmp_path / name for name in ("src", "build", "out", "recipe", "toolchain")}
    texts = {
        folders["RECIPE"] / "build.sh": script_of(recipe),
        folders["RECIPE"] / "releases/2024-02-27.cmake": recipe.files["releases/2024-02-27.cmake"].decode(),
        folders["SRC"] / "LICENSE": "MIT License\n\nPermission is hereby granted.\n",
        folders["SRC"] / "examples/server/json.hpp": "// SPDX-FileCopyrightText: 2013 N. L.\n" * 2,
        folders["SRC"] / "vendor/httplib/LICENSE": "MIT, httplib",
        folders["TOOLCHAIN"] / "zig/lib/libc/musl/COPYRIGHT": "musl's",
        **{folders["TOOLCHAIN"] / f"zig/lib/{name}/LICENSE.TXT": name for name in ("libcxx", "libcxxabi", "libunwind")},
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folders["OUT"].mkdir()
    tools = folders["BUILD"] / "tree" / "bundle"
    tools.mkdir(parents=True)
    for tool in ("melt-runner", "melt-sampler", "melt-agent", "llama-bench", "perplexity", "main"):
        (tools / tool).write_bytes(program)
    environment = {"PATH": os.environ["PATH"], **{name: str(folder) for name, folder in folders.items()}}
    command = ["sh", str(folders["RECIPE"] / "build.sh"), "install"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("level", LEVELS.values(), ids=list(LEVELS))
def test_install_leaves_a_bundle(level: Level, tmp_path: Path) -> None:
    result = install(tmp_path, level, elf(MACHINES[level.triple.partition("-")[0]]))
    assert result.returncode == 0, result.stderr
    out = tmp_path / "out"
    tools = ["melt-runner", "melt-sampler", "melt-agent", "llama-bench", "perplexity", "main"]
    assert sorted(path.name for path in (out / "bin").iterdir()) == sorted(tools)
    assert all(path.stat().st_mode & 0o777 == 0o755 for path in (out / "bin").iterdir())
    assert {path.name: path.read_text() for path in (out / "licenses").iterdir()} == {
        "llama.cpp": "MIT License\n\nPermission is hereby granted.\n",
        "nlohmann-json": "Copyright (c) 2013 N. L.\nPermission is hereby granted.\n",
        "httplib": "MIT, httplib",
        "musl": "musl's",
        **{name: name for name in ("libcxx", "libcxxabi", "libunwind")},
    }
    assert json.loads((out / "bundle.json").read_text()) == {
        "format": 1,
        "framework": "llama.cpp",
        "release": "2024-02-27",
        "commit": RELEASES["2024-02-27"].commit,
        "triple": level.triple,
        "isa": level.name,
        "features": list(level.enable),
        "tools": tools,
    }


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (elf(MACHINES["aarch64"]), "not a program for x86_64-linux-musl"),
        (elf(MACHINES["x86_64"], program_header=3), "not static"),
        (b"#!/bin/sh\n" + bytes(100), "not a program for x86_64-linux-musl"),
        (b"", "not a program for x86_64-linux-musl"),
    ],
)
def test_install_refuses_what_a_device_could_not_run(program: bytes, message: str, tmp_path: Path) -> None:
    result = install(tmp_path, LEVELS["x86_64_v3"], program)
    assert result.returncode != 0
    assert message in result.stderr
    assert not list((tmp_path / "out").glob("bin/*"))


def test_the_build_sees_one_commit_whatever_checkout_it_is_in(tmp_path: Path) -> None:
    assert install(tmp_path, LEVELS["x86_64_v3"], elf(MACHINES["x86_64"])).returncode == 0
    git = str(tmp_path / "build" / "path" / "git")

    def answer(*arguments: str) -> tuple[int, str]:
        result = subprocess.run([git, *arguments], capture_output=True, text=True, check=False)
        return result.returncode, result.stdout.strip()

    assert answer("rev-parse", "--short", "HEAD") == (0, RELEASES["2024-02-27"].commit[:8])
    assert answer("diff-index", "--quiet", "HEAD", "--", ".") == (0, "")
    assert answer("log") == (1, "")


def test_an_unknown_phase_is_refused(tmp_path: Path) -> None:
    (tmp_path / "build.sh").write_text(script_of(recipe_of("2024-02-27", "x86_64_v3")))
    environment = {"PATH": os.environ["PATH"], "BUILD": str(tmp_path / "build")}
    command = ["sh", str(tmp_path / "build.sh"), "everything"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "usage: build.sh" in result.stderr
