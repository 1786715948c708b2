"""Apps for iPhones in manifest, plan, lock and bundles; `prebuilt` as a whole, `mac-ssh` up to the Mac."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro.build.keys import bundle_key
from meltrepro.build.pipeline import Builder
from meltrepro.build.render import render_recipe
from meltrepro.build.tools import Tools
from meltrepro.campaign.setup import has_sampler, runner_digest
from meltrepro.errors import BuildError, DigestMismatch, ManifestError
from meltrepro.frameworks.base import Skip, SkipKind
from meltrepro.frameworks.llamacpp.options import Options
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.lock import Lock, LockedArtifact, LockedSource
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.sources import FileSource, UrlSource
from meltrepro.plan.model import Costs, Plan
from meltrepro.plan.planner import make_plan
from meltrepro.replay.gaps import withheld
from meltrepro.settings import Settings
from meltrepro.steps import silent
from meltrepro.store.source import key_of
from meltrepro.targets.base import PACKAGE, DeviceFacts
from meltrepro.targets.ios.app_recipe import APP_VARIANT, IosBuild
from meltrepro.targets.ios.options import APP, IOS, UNPROVEN
from meltrepro.targets.registry import makers
from tests.support.frameworks import bundle
from tests.support.manifests import DIGEST, GOOD, load, write
from tests.support.xcode.packages import app_files, write_zip

MAC: dict[str, object] = {"mac": "studio", "xcode": "26.1 (17B55)", "xcodegen": "2.44.1"}
PHONE = DeviceFacts(
    "p", "ios", "iPhone17,1", IOS, frozenset({"asimd"}), 6, 8 * 10**9, 10**11, facts={"proof": UNPROVEN, "app": APP}
)
VIRTUAL = replace(PHONE, arch="aarch64", features=frozenset({"asimd", "asimddp", "asimdhp"}), virtual=True, facts={})
NODE = "llama.cpp/run/ios_arm64"


# -- manifest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "source"),
    [
        (MAC, None),
        ({**MAC, "xcframework": "llama.zip"}, FileSource(file="llama.zip")),
        ({"ipa": "app.ipa", "digest": DIGEST}, FileSource(file="app.ipa", digest=DIGEST)),
        (
            {"ipa": "https://example.org/a.ipa", "digest": DIGEST},
            UrlSource(url="https://example.org/a.ipa", digest=DIGEST),
        ),
    ],
)
def test_ways_to_an_app(entry: dict[str, object], source: object) -> None:
    assert IosBuild.model_validate(entry).file == source


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({}, "exactly one of the keys mac, ipa"),
        ({**MAC, "ipa": "x.ipa"}, "exactly one of the keys mac, ipa"),
        ({"mac": "studio", "xcodegen": "2.44.1"}, "the key 'xcode' is missing"),
        ({"mac": "studio", "xcode": "26.1 (17B55)"}, "the key 'xcodegen' is missing"),
        ({**MAC, "xcode": "26.1"}, "xcode"),
        ({**MAC, "mac": "-oProxyCommand=sh"}, "mac"),
        ({**MAC, "team": "jane"}, "team"),
        ({**MAC, "digest": DIGEST}, "there is neither"),
        ({**MAC, "xcframework": "https://example.org/x.zip"}, "a URL alone pins nothing"),
        ({"ipa": "ftp://example.org/x.ipa", "digest": DIGEST}, "begins with https, http or file"),
        ({"ipa": "x.ipa", "team": "ABCDE12345"}, "beside ipa, got team"),
        ({**MAC, "app": "a b"}, "app"),
    ],
)
def test_what_is_refused(entry: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError) as failure:
        IosBuild.model_validate(entry)
    assert says in str(failure.value)


def test_a_path_counts_from_the_file_that_names_it(tmp_path: Path) -> None:
    text = GOOD.replace("{release: 2024-02-27}", "{release: 2024-02-27, options: {ios: {ipa: app.ipa}}}")
    write(tmp_path, text, "common/base.yaml")
    loaded = load_manifest(write(tmp_path, "meltrepro: 1\nname: main\ninclude: [common/base.yaml]\n"))
    options = loaded.manifest.frameworks["llama.cpp"].options
    assert isinstance(options, Options) and options.ios is not None
    assert options.ios.ipa == "common/app.ipa"


def document(ios: dict[str, object] | None, release: str = "2026-10-01", **target: object) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(GOOD)
    found["frameworks"]["llama.cpp"] = {"release": release} | ({"options": {"ios": ios}} if ios else {})
    found["targets"] = {"phone": {"kind": "ios", **target}}
    return found


def plan(folder: Path, facts: DeviceFacts, written: dict[str, Any], **unusable: str) -> Plan:
    (folder / "spec.yaml").write_text(yaml.safe_dump(written))
    devices = {} if unusable else {"phone": facts}
    reasons = {name: Skip(SkipKind.driver, reason) for name, reason in unusable.items()}
    return make_plan(load_manifest(folder / "spec.yaml"), devices, unusable=reasons)


def test_the_lock_belongs_to_what_is_pinned_and_not_to_who_signs_where(tmp_path: Path) -> None:
    def digest(**more: object) -> str:
        return manifest_digest(Manifest.model_validate(document({**MAC, **more})))

    assert digest() == digest(mac="another", team="ABCDE12345", developer_dir="/Applications/X")
    assert len({digest(), digest(xcode="26.2 (17C52)"), digest(app="org.example.x"), digest(xcframework="x.zip")}) == 4


# -- plan -------------------------------------------------------------------------------------------------------------


def test_a_phone_gets_the_app_and_a_warning(tmp_path: Path) -> None:
    made = plan(tmp_path, PHONE, document(MAC))
    assert {cell.variant.name for cell in made.cells} == {"ios_arm64"}
    assert made.cells[0].variant.libc == "libSystem"
    (bundle,) = [node for node in made.bundles if node.purpose == "run"]
    assert (bundle.id, bundle.variant.triple, bundle.recipe.place) == (NODE, IOS, {"mac": "studio"})
    (warning,) = made.warnings
    assert "not yet run on Apple hardware" in warning


def test_a_phone_of_the_lab_gets_what_its_programs_are_for(tmp_path: Path) -> None:
    made = plan(tmp_path, VIRTUAL, document(None, "2024-02-27"))
    assert {cell.variant.name for cell in made.cells} == {"armv8_2"}
    assert made.warnings == ()


@pytest.mark.parametrize(
    ("written", "says"),
    [
        (document(None), "do not say where the signed app for iPhones comes from: ios"),
        (document(MAC, "2024-02-27"), "release 2024-02-27 has no build for arm64-ios"),
        (
            document({**MAC, "app": "org.example.x"}),
            f"the target's app is {APP}, and options.ios.app is org.example.x",
        ),
    ],
)
def test_why_a_phone_is_left_out(tmp_path: Path, written: dict[str, Any], says: str) -> None:
    made = plan(tmp_path, PHONE, written)
    assert not made.cells
    assert all(says in skip.reason for skip in made.skipped)


def test_a_driver_that_is_missing_leaves_out_its_devices_alone(tmp_path: Path) -> None:
    made = plan(tmp_path, PHONE, document(MAC), phone="target phone: iPhones need pymobiledevice3")
    assert {skip.reason for skip in made.skipped} == {"target phone: iPhones need pymobiledevice3"}


def test_an_app_that_no_target_needs(tmp_path: Path) -> None:
    written = document(MAC) | {"targets": {"host": {"kind": "host"}}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(ManifestError, match="no target is one"):
        make_plan(load_manifest(tmp_path / "spec.yaml"), {})
    written = document(MAC)
    written["frameworks"]["llama.cpp"]["options"]["isas"] = ["ios_arm64"]
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(written))
    with pytest.raises(ManifestError, match="where a target needs them"):
        make_plan(load_manifest(tmp_path / "spec.yaml"), {"phone": PHONE})


# -- recipes ----------------------------------------------------------------------------------------------------------


def key(**more: object) -> str:
    recipe = bundle(APP_VARIANT, ios={**MAC, **more}).recipe
    return bundle_key(render_recipe(recipe, {}, {"source.tar.gz": DIGEST}))


def test_what_an_app_is_made_of_is_its_identity() -> None:
    assert key() == key(mac="another", team="ABCDE12345")
    assert len({key(), key(xcode="26.2 (17C52)"), key(xcodegen="2.44.2"), key(app="org.example.x")}) == 4


def builder(folder: Path) -> Builder:
    settings = Settings(folder / "cache", folder / "home", offline=True, mirrors=None, jobs=1)
    tools = Tools(settings, silent, Lock(lock=1, manifest="0" * 64), makers=makers, base_dir=folder)
    return Builder(tools)


def plan_of(folder: Path, **ios: object) -> Plan:
    node = bundle(APP_VARIANT, name="llama.cpp", ios=ios)
    return Plan(load(folder, GOOD).manifest, (), (), (node,), (), Costs(None, None, {}))


def test_a_package_that_somebody_has_signed(tmp_path: Path) -> None:
    package = write_zip(tmp_path / "app.ipa", app_files()).read_bytes()
    one, two = builder(tmp_path), builder(tmp_path)
    built = one.build(plan_of(tmp_path, ipa="app.ipa"))
    artifact = built.artifacts[NODE]
    assert (artifact.path / PACKAGE).read_bytes() == package
    facts = json.loads((artifact.path / "bundle.json").read_text())
    assert (facts["maker"], facts["triple"], facts["proof"]) == ("prebuilt", IOS, UNPROVEN)
    assert two.build(plan_of(tmp_path, ipa="app.ipa")).reused == {NODE}
    assert runner_digest(artifact) == hashlib.sha256(package).hexdigest()
    assert has_sampler(artifact)
    kept = built.files(one.tools.store)
    assert set(kept[NODE]) == {"parameters.json", "build.log", "provenance.json", "sbom.json"}
    statement = json.loads(kept[NODE]["provenance.json"])
    (dependency,) = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert dependency == {"name": "app.ipa", "digest": {"sha256": hashlib.sha256(package).hexdigest()}}


def test_another_package_than_the_pinned_one(tmp_path: Path) -> None:
    write_zip(tmp_path / "app.ipa", app_files())
    with pytest.raises(DigestMismatch):
        builder(tmp_path).build(plan_of(tmp_path, ipa="app.ipa", digest=DIGEST))


def test_a_package_of_something_else(tmp_path: Path) -> None:
    write_zip(tmp_path / "app.ipa", app_files("com.example.other"))
    with pytest.raises(BuildError, match="is the app 'com.example.other', expected 'org.meltrepro.runner'"):
        builder(tmp_path).build(plan_of(tmp_path, ipa="app.ipa"))
    (tmp_path / "app.ipa").write_bytes(b"not a zip")
    with pytest.raises(BuildError, match="cannot be read as the zip of a signed app"):
        builder(tmp_path).build(plan_of(tmp_path, ipa="app.ipa"))


def test_signed_apps_are_never_passed_on() -> None:
    manifest = Manifest.model_validate(document({"ipa": "app.ipa"}))
    lock = Lock(
        manifest="0" * 64,
        sources={key_of(FileSource(file="app.ipa")): LockedSource(digest="a" * 64)},
        artifacts={NODE: LockedArtifact(key="b" * 64, digest="c" * 64)},
    )
    assert {"a" * 64, "c" * 64} <= set(withheld(manifest, lock))
