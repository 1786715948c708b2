"""The sources of the runner app agree with the host and with themselves; nothing here can build or run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro import resources
from meltrepro.frameworks.llamacpp.module import RELEASES
from meltrepro.measure.sensor_plan import sensor_plan
from meltrepro.record import trial as record
from meltrepro.targets.ios import jobs as ios_jobs
from meltrepro.targets.ios import state as ios_state
from meltrepro.targets.ios.options import IosOptions

ROOT = resources.images() / "ios"
SOURCES = sorted(path for path in ROOT.rglob("*") if path.suffix in (".swift", ".cpp", ".h", ".yml"))
WARNING = "NOT YET RUN ON APPLE HARDWARE"


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text("project.yml"))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_file_says_that_it_was_never_run(path: Path) -> None:
    assert WARNING in path.read_text(encoding="utf-8")


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


def test_the_project_builds_the_release_that_it_names(project: dict[str, Any]) -> None:
    settings = project["settings"]["base"]
    release = next(release for release in RELEASES.values() if release.commit == settings["MELT_COMMIT"])
    api = (resources.images() / "llama.cpp/recipe/releases" / f"{release.name}.cmake").read_text(encoding="utf-8")
    assert f"set(MELT_LLAMA_API {settings['MELT_LLAMA_API']} " in api


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
    for source in target["sources"]:
        assert (ROOT / source["path"]).exists(), source
    assert "../llama.cpp/engine" in [source["path"] for source in target["sources"]]


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
