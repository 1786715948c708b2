"""The sources of the runner app agree with the host and with themselves; nothing here can build or run them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro import resources
from meltrepro.build.model import Recipe
from meltrepro.build.render import render_recipe
from meltrepro.frameworks.base import RUN, framework
from meltrepro.measure.sensor_plan import sensor_plan
from meltrepro.record import trial as record
from meltrepro.targets.ios import jobs as ios_jobs
from meltrepro.targets.ios import state as ios_state
from meltrepro.targets.ios.app_recipe import APP_VARIANT
from meltrepro.targets.ios.options import IosOptions
from tests.support.xcode.packages import vocabulary

ROOT = resources.images() / "ios"
KINDS = ("llama.cpp", "onnxruntime")
"""Frameworks that have an app."""
FOLDERS = (ROOT, *(resources.images() / kind / "ios" for kind in KINDS))
SOURCES = sorted(path for root in FOLDERS for path in root.rglob("*") if path.suffix in (".swift", ".cpp", ".h", ".j2"))
MAC = {"mac": "studio", "xcode": "26.1 (17B55)", "xcodegen": "2.44.1"}
WARNING = "NOT YET RUN ON APPLE HARDWARE"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def recipe_of(kind: str) -> Recipe:
    made = framework(kind)
    release = [*made.releases().values()][-1]
    return render_recipe(made.recipe(made.options.model_validate({"ios": MAC}), release, APP_VARIANT, RUN), {}, {})


@pytest.fixture(scope="module", params=KINDS)
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(recipe_of(request.param).files["ios/project.yml"])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_file_says_that_it_was_never_run(path: Path) -> None:
    content = path.read_text(encoding="utf-8")
    assert WARNING in content or '{% extends "ios/_project.yml.j2" %}' in content


def test_the_screen_says_so_too() -> None:
    assert WARNING.lower() in text("App/MeltRunnerApp.swift").lower().partition("@main")[2]


def test_host_and_app_use_the_same_words() -> None:
    job = text("App/Job.swift")
    names = (ios_jobs.JOB, ios_jobs.DEADLINE, ios_jobs.STARTED, ios_jobs.STATUS)
    for name in (
        *names,
        record.REQUEST,
        record.EVENTS,
        record.STDOUT,
        record.STDERR,
        record.SENSOR_PLAN,
        record.SAMPLES,
    ):
        assert f'"{name}"' in job, name
    status = re.search(r'let text = "(.*)\\n"', job)
    assert status is not None
    said = status[1].replace('\\"', '"').replace("\\(status & 0xFF)", "3").replace("\\(timedOut)", "true")
    assert ios_jobs.parse_status(said.encode()) == ios_jobs.JobStatus(3, True)


def test_every_source_that_hosts_offer_is_one_of_the_app() -> None:
    """A plan puts a slash before what is the path of a file elsewhere; the sampler is told the path alone."""
    offered = {source.path for source in ios_state.SOURCES}
    assert offered == set(re.findall(r'"(app/[a-z_]+)":', text("App/Sampler.swift")))
    assert all(f'"{path}"' in sensor_plan(ios_state.SOURCES, 5).decode() for path in offered)


def test_the_project_builds_the_release_that_it_names() -> None:
    recipe = recipe_of("llama.cpp")
    project, release = yaml.safe_load(recipe.files["ios/project.yml"]), json.loads(recipe.files["parameters.json"])
    assert project["settings"]["base"]["MELT_COMMIT"] == release["commit"]
    (api,) = re.findall(r"MELT_LLAMA_API=(\d+)", str(project))
    releases = resources.images() / "llama.cpp/recipe/releases"
    assert f"set(MELT_LLAMA_API {api} " in (releases / f"{release['release']}.cmake").read_text(encoding="utf-8")


def test_the_tokenizer_is_compiled_of_the_same_files_as_elsewhere() -> None:
    recipe = recipe_of("onnxruntime")
    (target,) = yaml.safe_load(recipe.files["ios/project.yml"])["targets"].values()
    place = "third-party/llama.cpp/"
    theirs = {each["path"].removeprefix(place) for each in target["sources"] if each["path"].startswith(place)}
    assert theirs == vocabulary()
    (sent,) = (
        each["only"] for each in json.loads(recipe.files["parameters.json"])["third_party"] if "cpp" in each["place"]
    )
    assert all(name.startswith(tuple(sent)) for name in theirs)
    assert b"2026-10-01" in recipe.files["ios/ggml-version.h"]


def test_no_two_sources_would_leave_one_object(project: dict[str, Any]) -> None:
    names = []
    for source in project["targets"]["MeltRunner"]["sources"]:
        place = ROOT / source["path"]
        found = [path.name for path in place.rglob("*")] if place.is_dir() else [place.name]
        names += [name for name in found if name.endswith((".c", ".cpp")) and name not in source.get("excludes", [])]
    assert len(names) == len(set(names))


def test_every_source_of_the_runner_is_in_the_project_or_replaced(project: dict[str, Any]) -> None:
    target = project["targets"]["MeltRunner"]
    (runner,) = (source for source in target["sources"] if "excludes" in source)
    folder = (ROOT / runner["path"]).resolve()
    assert folder == resources.runner().resolve()
    left_out = set(runner["excludes"])
    assert all((folder / name).is_file() for name in left_out)
    built = set(re.findall(r"^    (\w+\.cpp)$", (folder / "CMakeLists.txt").read_text(encoding="utf-8"), re.MULTILINE))
    assert built - {path.name for path in folder.glob("*.cpp")} == set()
    assert {path.name for path in folder.glob("*.cpp")} - left_out == built - {"main.cpp", "memory.cpp"}
    (main,) = (source for source in target["sources"] if source["path"].endswith("main.cpp"))
    assert main["compilerFlags"] == ["-Dmain=melt_runner_main"]
    assert "melt_runner_main" in text("Bridge/bridge.cpp")
    paths = [source["path"] for source in target["sources"]]
    assert all((ROOT / path).exists() or path.startswith("third-party/") for path in paths)
    (engine,) = (path for path in paths if path.endswith("/engine"))
    assert (ROOT / engine / "engine.cpp").is_file()


def test_memory_is_read_as_completely_as_by_every_other_runner() -> None:
    def fields(source: str) -> set[str]:
        return set(re.findall(r"memory\.(?!h\b|cpp\b)(\w+)", source))

    linux = (resources.runner() / "memory.cpp").read_text(encoding="utf-8")
    assert fields(text("Bridge/memory_ios.cpp")) == fields(linux) == {"rss_anon", "rss_file", "hwm", "swap"}


def test_what_the_host_needs_of_the_app(project: dict[str, Any]) -> None:
    target = project["targets"]["MeltRunner"]
    assert target["info"]["properties"]["UIFileSharingEnabled"] is True
    assert target["entitlements"]["properties"]["com.apple.developer.kernel.increased-memory-limit"] is True
    assert target["settings"]["base"]["PRODUCT_BUNDLE_IDENTIFIER"] == IosOptions.model_fields["app"].default
