"""Packages that others have made: what is taken for a signed app or an xcframework, and what is not."""

from __future__ import annotations

import plistlib
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import BuildError
from meltrepro.targets.ios.app_package import NoMachO, check_app, framework_files, require_ios
from tests.support.xcode import packages
from tests.support.xcode.packages import APP, app_files, mach_o, universal, write_zip

ROOT = "Payload/MeltRunner.app"


def test_a_signed_app(tmp_path: Path) -> None:
    facts = check_app(write_zip(tmp_path / "app.ipa", app_files()), APP, "app")
    assert (facts.app, facts.version, facts.executable) == (APP, "1", "MeltRunner")
    assert len(facts.executable_sha256) == 64


def without(name: str) -> dict[str, bytes]:
    return {key: value for key, value in app_files().items() if key != f"{ROOT}/{name}"}


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (app_files("com.example.other"), "is the app 'com.example.other'"),
        (without("Info.plist"), "holds 0 apps"),
        ({**app_files(), "Payload/Other.app/Info.plist": b""}, "holds 2 apps"),
        ({**app_files(), f"{ROOT}/Info.plist": b"<plist>"}, "Info.plist that cannot be read"),
        ({**app_files(), f"{ROOT}/Info.plist": plistlib.dumps(["a", "list"])}, "no dictionary"),
        (without("MeltRunner"), "has no program"),
        (without("embedded.mobileprovision"), "is not signed"),
        (without("_CodeSignature/CodeResources"), "is not signed"),
        (app_files(code=b"#!/bin/sh\n"), "is a Mach-O file that was cut short"),
        (app_files(code=b"\x7fELF" + bytes(64)), "no Mach-O file of 64 bits"),
        (app_files(code=mach_o(machine=packages.X86_64)), "no code for arm64"),
        (app_files(code=mach_o(packages.SIMULATOR)), "is for the iOS simulator"),
        (app_files(code=mach_o(packages.MACOS)), "is for macOS"),
        (app_files(code=mach_o()[:40]), "cut short"),
        ({**app_files(), "../evil": b""}, "would lie elsewhere"),
        ({**app_files(), "/etc/evil": b""}, "would lie elsewhere"),
        ({**app_files(), f"{ROOT}/..\\evil": b""}, "would lie elsewhere"),
    ],
)
def test_what_is_no_signed_app(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    with pytest.raises(BuildError, match="app.ipa") as failure:
        check_app(write_zip(tmp_path / "x", files), APP, "app.ipa")
    assert says in failure.value.message


def test_a_link_in_a_package(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "app.ipa", app_files())
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo(f"{ROOT}/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BuildError, match="has a link"):
        check_app(path, APP, "app.ipa")


def test_a_package_that_was_damaged(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "app.ipa", app_files())
    content = bytearray(path.read_bytes())
    content[content.index(b"a signature")] ^= 1
    path.write_bytes(content)
    with pytest.raises(BuildError, match="damaged at .*CodeResources"):
        check_app(path, APP, "app.ipa")
    path.write_bytes(content[:200])
    with pytest.raises(BuildError, match="cannot be read as the zip of a signed app"):
        check_app(path, APP, "app.ipa")


def test_a_package_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meltrepro.targets.ios.app_package._MOST_BYTES", 100)
    with pytest.raises(BuildError, match="more than a package may"):
        check_app(write_zip(tmp_path / "app.ipa", app_files()), APP, "app.ipa")


def test_universal_programs() -> None:
    require_ios(universal(mach_o(packages.SIMULATOR, packages.X86_64), mach_o()))
    with pytest.raises(NoMachO, match="no code for arm64"):
        require_ios(universal(mach_o(packages.IOS, packages.X86_64)))


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01", b"\xca\xfe\xba\xbe\x00\x00"])
)
def test_any_bytes_are_no_crash(content: bytes, head: bytes) -> None:
    with pytest.raises(NoMachO):
        require_ios(head + content.replace(b"\x32\x00\x00\x00", b""))


def test_an_xcframework_is_cut_down_to_what_phones_need(tmp_path: Path) -> None:
    files = framework_files(write_zip(tmp_path / "x.zip", packages.framework_files()), "x.zip")
    assert sorted(files) == [
        "Info.plist",
        "ios-arm64/llama.framework/Headers/llama.h",
        "ios-arm64/llama.framework/llama",
    ]
    listed = plistlib.loads(files["Info.plist"])["AvailableLibraries"]
    assert [each["LibraryIdentifier"] for each in listed] == ["ios-arm64"]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (packages.framework_files(platform=packages.SIMULATOR), "is for the iOS simulator"),
        (packages.framework_files(identifier="ios-arm64_x86_64"), "has no library at"),
        ({"a.txt": b""}, "holds 0 xcframeworks"),
        ({"a.xcframework/Info.plist": plistlib.dumps({"AvailableLibraries": []})}, "lists 0 libraries for iPhones"),
        ({"a.xcframework/Info.plist": plistlib.dumps({"AvailableLibraries": [1, "x"]})}, "lists 0 libraries"),
        ({"a.xcframework/Info.plist": plistlib.dumps({})}, "lists 0 libraries"),
    ],
)
def test_what_is_no_xcframework(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    with pytest.raises(BuildError) as failure:
        framework_files(write_zip(tmp_path / "x.zip", files), "x.zip")
    assert says in failure.value.message
