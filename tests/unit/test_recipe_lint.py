"""Recipes as texts: shellcheck on every script, and what Dockerfiles are made of."""

from __future__ import annotations

import compileall
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meltrepro import resources
from meltrepro.build import toolchain
from meltrepro.build.model import Recipe
from meltrepro.build.render import render_recipe, render_text
from meltrepro.frameworks.base import RUN, Variant, framework
from meltrepro.frameworks.llamacpp.kits import Ndk
from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.frameworks.llamacpp.variants import LEVELS, on_cpu, with_ndk
from meltrepro.frameworks.prebuilt.android import AndroidFramework
from meltrepro.frameworks.prebuilt.module import WheelFramework
from meltrepro.registry import FRAMEWORKS
from tests.support.frameworks import bundle

SHELLCHECK = Path(sys.executable).with_name("shellcheck")
NDK = Ndk(ndk="ndk.zip")
PREBUILT = [each for each in map(framework, FRAMEWORKS.kinds()) if isinstance(each, WheelFramework)]
INSTRUCTIONS = {"FROM", "LABEL", "ENV", "COPY", "ARG", "RUN"}
SCRIPTS = [
    name
    for name, content in resources.files(resources.images()).items()
    if not name.endswith(".j2") and content.startswith((b"#!/bin/sh", b"#!/bin/mksh"))
]


def recipe_of(release: str, level: str, ndk: Ndk | None = None) -> Recipe:
    variant = on_cpu(LEVELS[level]) if ndk is None else with_ndk(LEVELS[level], ndk.api)
    return render_recipe(bundle(variant, release, toolchain=ndk).recipe, {}, {})


def dockerfile_of(recipe: Recipe) -> str:
    env = toolchain.environment(recipe.triple)
    variables = {"builder": "builder:1", "env": env, "phases": recipe.phases, "labels": dict(recipe.labels)}
    return render_text(recipe.dockerfile, variables, name="Dockerfile")


@pytest.mark.parametrize("release", RELEASES)
def test_the_ndks_recipe_brings_the_same_sources(release: str) -> None:
    zig, ndk = (recipe_of(release, "armv8_2", each).files for each in (None, NDK))
    assert {name for name in zig.keys() | ndk.keys() if zig.get(name) != ndk.get(name)} == {"build.sh"}


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("level", "march"), [("armv8_a", "-march=armv8-a"), ("armv8_2", "-march=armv8.2-a+dotprod+fp16")]
)
def test_levels_are_spelt_as_the_ndks_clang_does(release: str, level: str, march: str) -> None:
    script = recipe_of(release, level, NDK).files["build.sh"].decode()
    assert f'flags="$flags {march}"\n' in script
    assert "-target-feature" not in script and "$TOOLCHAIN/bin/" not in script and "zig" not in script


@pytest.mark.parametrize("ndk", [None, NDK, Ndk(ndk="ndk.zip", api=35)], ids=["zig", "ndk", "ndk-35"])
@pytest.mark.parametrize("release", RELEASES)
def test_a_dockerfile_is_of_known_instructions(release: str, ndk: Ndk | None) -> None:
    """Joined at their continuations, as a builder reads them: instructions, and JSON where a command is."""
    recipe = recipe_of(release, "armv8_2", ndk)
    lines = [line for line in dockerfile_of(recipe).replace("\\\n", " ").splitlines() if line.strip()]
    words = [line.partition(" ")[0] for line in lines]
    assert words[0] == "FROM" and set(words) <= INSTRUCTIONS
    runs = [json.loads(line.partition(" ")[2]) for line in lines if line.startswith("RUN ")]
    assert [run[:2] for run in runs] == [["/bin/sh", "/recipe/build.sh"]] * len(recipe.phases)


@pytest.mark.parametrize("ndk", [None, NDK], ids=["zig", "ndk"])
@pytest.mark.parametrize("release", RELEASES)
def test_a_rendered_script_is_clean(release: str, ndk: Ndk | None, tmp_path: Path) -> None:
    (tmp_path / "build.sh").write_bytes(recipe_of(release, "armv8_2", ndk).files["build.sh"])
    check(tmp_path / "build.sh")


@pytest.mark.parametrize(
    ("prebuilt", "variant"), [(each, variant) for each in PREBUILT for variant in each.engine.variants]
)
def test_scripts_around_wheels_are_clean(prebuilt: WheelFramework, variant: Variant, tmp_path: Path) -> None:
    release = next(iter(prebuilt.releases().values()))
    source = prebuilt.recipe(prebuilt.options(), release, variant, RUN)
    (tmp_path / "build.sh").write_bytes(render_recipe(source, {}, {}).files["build.sh"])
    check(tmp_path / "build.sh")


@pytest.mark.parametrize(
    "prebuilt", [each for each in PREBUILT if isinstance(each, AndroidFramework)], ids=lambda each: each.kind
)
def test_the_ndks_script_around_wheels_is_clean(prebuilt: AndroidFramework, tmp_path: Path) -> None:
    level = next(each.level for each in prebuilt.engine.variants if each.machine == "aarch64")
    options = prebuilt.options.model_validate({"toolchain": NDK, "isas": [level]})
    (release,) = prebuilt.releases().values()
    (variant,) = prebuilt.extra_variants(options, release)
    script = render_recipe(prebuilt.recipe(options, release, variant, RUN), {}, {}).files["build.sh"]
    (tmp_path / "build.sh").write_bytes(script)
    check(tmp_path / "build.sh")
    assert b"$TOOLCHAIN/bin/" not in script and b"zig" not in script


def test_no_recipe_holds_what_python_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pip does where it installs, and whoever imports a file of a recipe: its digest would be of that machine."""
    converter = "llama.cpp/converter"
    files = list(resources.files(resources.images() / converter))
    copy = shutil.copytree(resources.images(), tmp_path / "images")
    assert compileall.compile_dir(copy, quiet=1)
    monkeypatch.setattr(resources, "images", lambda: copy)
    assert any(copy.rglob("*.pyc"))
    assert list(resources.files(copy / converter)) == files == [name for name in files if name.endswith((".j2", ".py"))]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_clean(name: str) -> None:
    check(resources.images() / name)


def test_there_are_scripts_to_check(tmp_path: Path) -> None:
    """And a fault in one is found."""
    assert {"toolchain/warm.sh", "toolchain/bin/cc"} <= set(SCRIPTS)
    (tmp_path / "bad.sh").write_text("#!/bin/sh\nrm -rf $1/x\n")
    with pytest.raises(AssertionError, match="SC2086"):
        check(tmp_path / "bad.sh")


def check(script: Path) -> None:
    subprocess.run(["sh", "-n", str(script)], check=True)
    done = subprocess.run([str(SHELLCHECK), str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
