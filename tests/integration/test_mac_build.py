"""Recipe `mac-ssh` behind a real sshd, with stand-ins for Xcode's programs: what is sent, asked for, kept and cleaned up, and
what is said where it fails. Nothing here says that Apple's programs would do as the stand-ins do."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import pytest

from meltrepro.build.pipeline import Builder, Built
from meltrepro.build.tools import Tools
from meltrepro.errors import BuildError, MeltreproError, TargetError, TargetLost
from meltrepro.frameworks.base import RUN, framework
from meltrepro.manifest.lock import Lock
from meltrepro.manifest.sources import FileSource
from meltrepro.plan.model import BundleNode, Costs, Plan
from meltrepro.replay.verify import ArtifactStatus, compare_rebuild, error_of
from meltrepro.settings import Settings
from meltrepro.steps import Step
from meltrepro.store.cas import Store
from meltrepro.targets.base import PACKAGE
from meltrepro.targets.ios.app_recipe import APP_VARIANT, IosBuild
from meltrepro.targets.ios.mac_build import TEAM, THIRD_PARTY, MacMaker
from meltrepro.targets.ssh.config import route_to
from meltrepro.targets.ssh.link import SshLink
from tests.support.manifests import GOOD, load
from tests.support.sshd import Home, Sshd, make_key
from tests.support.xcode import tools
from tests.support.xcode.packages import framework_files, vocabulary, write_zip

pytestmark = pytest.mark.integration
XCODE, XCODEGEN, SIGNER = "26.1 (17B55)", "2.44.1", "ABCDE12345"
VENDOR = "llama_cpp_python-1/vendor/llama.cpp"
PACKAGED, LIBRARY = "package/Plugins/iOS~/onnxruntime.xcframework", "onnxruntime.framework"
T = TypeVar("T")
NODE = "llama.cpp/run/ios_arm64"

SCRIPTS = {
    "xcodebuild": """#!/bin/sh
if [ "$1" = -version ]; then
    printf '["xcodebuild", "-version", "%s"]\\n' "$DEVELOPER_DIR" >> "$FAKE_XCODE/calls"
    exec cat "$FAKE_XCODE/version"
fi
exec {python} -S {tools} xcodebuild "$@"
""",
    "xcodegen": """#!/bin/sh
[ "$1" = --version ] && exec sed 's/^/Version: /' "$FAKE_XCODE/xcodegen"
exec {python} {tools} xcodegen "$@"
""",
    "xcrun": """#!/bin/sh
[ "$1 $2" = "--sdk iphoneos" ] || exit 64
[ "$3" = --show-sdk-version ] && exec echo 26.1
echo "Apple clang version 17.0.0 (stand-in)"
echo "Target: arm64-apple-darwin"
""",
    "sw_vers": """#!/bin/sh
[ "$1" = -productVersion ] && exec echo 26.1
echo 25B78
""",
}
"""STAND-INS; what takes more than a line is in tests/support/xcode/tools.py."""


@dataclass
class Mac:
    """A machine that looks like a Mac from where we are."""

    folder: Path
    server: Sshd
    home: Home
    steps: list[Step]

    @property
    def root(self) -> Path:
        return self.folder / "Library"

    def say(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def calls(self, name: str) -> list[list[str]]:
        path = self.folder / "calls"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line[1:] for line in lines if line[0] == name]

    def build(
        self,
        ios: IosBuild,
        *,
        environ: Mapping[str, str] = MappingProxyType({}),
        lock: Lock | None = None,
        rebuild: bool = False,
        kind: str = "llama.cpp",
    ) -> Built:
        """As campaigns build, without any engine."""
        settings = Settings(self.folder / "cache", self.folder / "home", offline=True, mirrors=None, jobs=1)
        maker = partial(MacMaker, lambda host: SshLink(host, partial(route_to, host)), environ, str(self.root))
        tools = Tools(
            settings,
            self.steps.append,
            lock or Lock(lock=1, manifest="0" * 64),
            makers=lambda: {"mac-ssh": maker},
            base_dir=self.folder,
        )
        self.pins = tools.pins
        made = framework(kind)
        release = [*made.releases().values()][-1]
        recipe = made.recipe(made.options.model_validate({"ios": ios}), release, APP_VARIANT, RUN)
        small = {name: FileSource(file=name) for name in recipe.inputs if name.endswith("gz")}
        recipe = replace(recipe, inputs={**recipe.inputs, **small})
        node = BundleNode(kind, kind, release, APP_VARIANT, RUN, recipe)
        manifest = load(self.folder, GOOD).manifest
        return Builder(tools, rebuild).build(Plan(manifest, (), (), (node,), (), Costs(None, None, {})))


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mac]:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    folder, bin_ = tmp_path / "mac", tmp_path / "bin"
    for each in (folder, bin_):
        each.mkdir()
    for name, text in SCRIPTS.items():
        script = bin_ / name
        script.write_text(text.format(python=sys.executable, tools=tools.__file__))
        script.chmod(0o755)
    environment = f'SetEnv "PATH={bin_}:/usr/bin:/bin" "FAKE_XCODE={folder}"'
    server = Sshd(tmp_path / "sshd", options=(environment,))
    key = make_key(tmp_path / "key")
    server.allow(key)
    server.start()
    home = Home(tmp_path / "user")
    home.host("studio", server, key=key)
    home.know(server)
    found = Mac(folder, server, home, [])
    found.say("version", "Xcode 26.1\nBuild version 17B55\n")
    found.say("xcodegen", XCODEGEN)
    write_zip(folder / "llama.zip", framework_files())
    sources = {
        **{f"include/{name}": b"" for name in ("llama.h",)},
        "ggml/include/ggml.h": b"",
        "LICENSE": b"MIT",
        "src/llama.cpp": b"1",
        "build-xcframework.sh": b"set -e\nmkdir -p build-apple/llama.xcframework\n"
        b"test -f src/llama.cpp\necho x > build-apple/llama.xcframework/Info.plist\n",
    }
    pack(folder / "source.tar.gz", {f"{VENDOR}/{name}": content for name, content in sources.items()})
    pack(
        folder / "llama.cpp.tar.gz",
        {f"{VENDOR}/{name}": b"" for name in ("include/llama.h", "ggml/include/ggml.h", *vocabulary())},
    )
    phones, other = f"{PACKAGED}/ios-arm64", f"{PACKAGED}/ios-arm64_x86_64-simulator"
    files = (f"{phones}/{LIBRARY}/Info.plist", f"{phones}/{LIBRARY}/onnxruntime", f"{other}/{LIBRARY}/Info.plist")
    pack(folder / "onnxruntime.tgz", dict.fromkeys(files, b""))
    yield found
    server.stop()


def pack(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))


def app(**more: object) -> IosBuild:
    known = {"mac": "studio", "xcode": XCODE, "xcodegen": XCODEGEN, "team": SIGNER, "xcframework": "llama.zip"}
    return IosBuild.model_validate({**known, **more})


def left(mac: Mac) -> list[str]:
    """What a build has left on the Mac."""
    return sorted(path.relative_to(mac.root).as_posix() for path in mac.root.rglob("*") if path.is_file())


def test_the_app_is_built_signed_and_fetched(mac: Mac) -> None:
    built = mac.build(app(app="org.example.runner", developer_dir="/Applications/Xcode.app/Contents/Developer"))
    artifact = built.artifacts[NODE]
    facts = json.loads((artifact.path / "bundle.json").read_text())
    assert (artifact.path / PACKAGE).is_file()
    assert (facts["triple"], facts["maker"], facts["app"]) == ("arm64-ios", "mac-ssh", "org.example.runner")
    assert facts["tools_of_maker"]["Xcode"] == XCODE
    assert facts["tools_of_maker"]["clang"].startswith("Apple clang version 17")
    assert facts["proof"] == "not yet run on Apple hardware"
    archive, exported = [call for call in mac.calls("xcodebuild") if call[0] != "-version"]
    assert f"DEVELOPMENT_TEAM={SIGNER}" in archive and "PRODUCT_BUNDLE_IDENTIFIER=org.example.runner" in archive
    assert "-exportOptionsPlist" in exported
    assert all(call[-1] == "/Applications/Xcode.app/Contents/Developer" for call in mac.calls("xcodebuild"))
    assert left(mac) == [], "nothing stays on the Mac"
    log = built.logs[NODE].read_text()
    assert "** ARCHIVE SUCCEEDED **" in log
    assert SIGNER not in log and "Jane Doe" not in log, "logs go with records"
    assert {"build.upload", "build.archive", "build.export", "build.fetch"} <= {step.name for step in mac.steps}


def test_the_lock_and_the_provenance_say_of_what_it_was_made(mac: Mac) -> None:
    built = mac.build(app())
    digest = built.artifacts[NODE].digest
    assert mac.pins.lock.artifacts[NODE].digest == digest
    assert "llama.cpp/2026-10-01/run/ios_arm64" in mac.pins.lock.recipes
    store = Store(mac.folder / "cache" / "store")
    statement, bill = store.get_ref("provenance", digest), store.get_ref("sbom", digest)
    assert statement is not None and bill is not None
    made = statement["predicate"]
    assert {each["name"] for each in made["buildDefinition"]["resolvedDependencies"]} == {
        "source.tar.gz",
        "xcframework.zip",
    }
    assert f"Xcode {XCODE}" in made["runDetails"]["builder"]["version"]["engine"]
    everything = json.dumps([statement, bill, mac.pins.lock.model_dump()])
    assert "ziglang" not in everything
    assert SIGNER not in everything and "studio" not in everything


def test_what_is_here_is_not_built_again_and_what_is_signed_anew_moves_the_lock(mac: Mac) -> None:
    first = mac.build(app())
    lock = mac.pins.lock
    asked = len(mac.calls("xcodebuild"))
    again = mac.build(app(team="ZZZZZ99999", mac="another"), lock=lock)
    assert NODE in again.reused and len(mac.calls("xcodebuild")) == asked, (
        "who signs, and where, is no part of what it is"
    )
    (finding,) = compare_rebuild(lock, mac.build(app(), rebuild=True), Store(mac.folder / "cache" / "store"))
    assert finding.status is ArtifactStatus.signed and error_of([finding]) is None, "no two signatures are the same"
    (mac.folder / "cache").rename(mac.folder / "gone")
    anew = mac.build(app(), lock=lock)
    assert anew.artifacts[NODE].digest != first.artifacts[NODE].digest
    assert any("signed anew" in str(step.detail.get("why")) for step in mac.steps)


def test_without_an_xcframework_the_mac_builds_it(mac: Mac) -> None:
    mac.build(app(xcframework=None))
    assert left(mac) == []


def test_the_app_of_another_framework_has_its_own_sources_and_library(mac: Mac) -> None:
    mac.say("project.says", "stops here")
    with pytest.raises(BuildError):
        mac.build(app(xcframework=None), kind="onnxruntime")
    (sent,) = left(mac)
    with tarfile.open(mac.root / sent) as archive:
        names = set(archive.getnames())
    assert {"onnxruntime/engine/ort.cpp", "prebuilt/converted.cpp", "vocabulary/vocabulary.cpp"} <= names
    assert f"{THIRD_PARTY}/{LIBRARY}/onnxruntime" in names and f"{THIRD_PARTY}/llama.cpp/src/unicode.cpp" in names
    assert not any("simulator" in name or name.startswith("llama.cpp/engine") for name in names)
    (mac.folder / "project.says").unlink()
    built = mac.build(app(xcframework=None), kind="onnxruntime")
    facts = json.loads((built.artifacts["onnxruntime/run/ios_arm64"].path / "bundle.json").read_text())
    assert (facts["framework"], facts["release"], facts["maker"]) == ("onnxruntime", "1.29.0", "mac-ssh")
    assert left(mac) == []


def test_a_package_without_a_library_for_phones(mac: Mac) -> None:
    pack(mac.folder / "onnxruntime.tgz", {"package/LICENSE": b""})
    with pytest.raises(BuildError, match=r"onnxruntime\.tgz holds nothing for .*/onnxruntime\.framework"):
        mac.build(app(xcframework=None), kind="onnxruntime")


def test_a_team_from_the_environment(mac: Mac) -> None:
    mac.build(app(team=None), environ={TEAM: "FGHIJ67890"})
    assert any("DEVELOPMENT_TEAM=FGHIJ67890" in call for call in mac.calls("xcodebuild"))


@pytest.mark.parametrize("environ", [{}, {TEAM: "jane"}])
def test_nobody_signs(mac: Mac, environ: dict[str, str]) -> None:
    with pytest.raises(BuildError, match="no team signs the app") as failure:
        mac.build(app(team=None), environ=environ)
    assert TEAM in str(failure.value.hint)
    assert mac.calls("xcodebuild") == [], "nothing is asked of the Mac"


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("version", "Xcode 26.0\nBuild version 17A321\n", "has Xcode 26.0 \\(17A321\\), the manifest asks for 26.1"),
        ("version", "Xcode 26.1\nBuild version 17B50\n", "has Xcode 26.1 \\(17B50\\)"),
        ("version", "xcode-select: error: tool 'xcodebuild' requires Xcode", "the manifest asks for 26.1"),
        ("xcodegen", "2.43.0", "has XcodeGen 2.43.0, the manifest asks for 2.44.1"),
    ],
)
def test_another_toolchain_is_refused(mac: Mac, file: str, text: str, says: str) -> None:
    mac.say(file, text)
    with pytest.raises(BuildError, match=says):
        mac.build(app())
    assert left(mac) == []
    assert not any(call[0] == "archive" for call in mac.calls("xcodebuild"))


@pytest.mark.parametrize(
    ("file", "text", "says", "hint"),
    [
        ("archive.says", "Session.swift:3:1: error: cannot find 'x' in scope", "cannot find 'x'", "the whole log"),
        (
            "archive.says",
            "Command CodeSign failed: errSecInternalComponent",
            "archive failed with status 65",
            "keychain",
        ),
        ("archive.says", "error: No profiles for 'org.meltrepro.runner' were found", "No profiles for", "profile"),
        ("archive.says", "You have not agreed to the Xcode license agreements", "license", "accept"),
        ("project.says", "Spec validation error", "project failed", "the whole log"),
        ("export.says", "error: exportArchive: No Account for Team", "export failed", "Accounts"),
        ("export.empty", "", "left 0 packages behind, expected one: DistributionSummary.plist", "the whole log"),
        ("export.app", "com.example.other", "is the app 'com.example.other', expected 'org.meltrepro.runner'", "app"),
    ],
)
def test_a_step_that_fails(mac: Mac, file: str, text: str, says: str, hint: str) -> None:
    mac.say(file, text)
    with pytest.raises(BuildError) as failure:
        mac.build(app())
    assert says in failure.value.message
    assert hint in str(failure.value.hint)
    assert not [name for name in left(mac) if not name.startswith("cas/")], "what failed is cleaned up"


def test_a_link_that_is_cut_while_it_builds(mac: Mac) -> None:
    mac.say("archive.hangs")
    caught: list[MeltreproError] = []

    def build() -> None:
        try:
            mac.build(app())
        except MeltreproError as error:
            caught.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    running = wait_for(lambda: int(text) if (text := read(mac.folder / "archive.pid")) else None)
    mac.server.stop()
    thread.join(60)
    assert [type(error) for error in caught] == [TargetLost]
    wait_for(lambda: not Path(f"/proc/{running}").exists() or None)  # nothing goes on that nobody waits for
    (mac.folder / "archive.hangs").unlink()
    mac.server.start()
    mac.steps.clear()
    mac.build(app())
    sent = [step for step in mac.steps if (step.name, step.phase) == ("build.upload", "progress")]
    assert sent == [], "what had arrived is not sent again"
    assert left(mac) == []


def test_a_link_that_is_cut_in_the_upload_goes_on_where_it_was(mac: Mac) -> None:
    digest = tar_of(mac)
    whole = mac.root / "cas" / digest
    content = whole.read_bytes()
    whole.rename(f"{whole}.part")
    Path(f"{whole}.part").write_bytes(content[: len(content) // 2])
    mac.steps.clear()
    mac.build(app())
    (first, *_) = [step for step in mac.steps if (step.name, step.phase) == ("build.upload", "progress")]
    assert first.done is not None and first.done > len(content) // 2


def test_a_part_of_something_else_is_sent_anew(mac: Mac) -> None:
    digest = tar_of(mac)
    whole = mac.root / "cas" / digest
    whole.unlink()
    Path(f"{whole}.part").write_bytes(b"something else")
    mac.build(app())
    assert left(mac) == []


def test_what_broke_off_long_ago_is_cleared_away(mac: Mac) -> None:
    week_ago = time.time() - 9 * 24 * 3600
    for path in (mac.root / "cas" / f"{'0' * 64}.part", mac.root / "build-0123" / "file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
        os.utime(path, (week_ago, week_ago))
        os.utime(path.parent, (week_ago, week_ago))
    (mac.root / "build-new").mkdir()
    mac.build(app())
    assert left(mac) == []
    assert sorted(path.name for path in mac.root.iterdir()) == ["build-new", "cas"], "others may be at work"


def tar_of(mac: Mac) -> str:
    """Have a build fail after its upload; returns the digest of what was sent."""
    mac.say("project.says", "fails")
    with pytest.raises(BuildError):
        mac.build(app())
    (mac.folder / "project.says").unlink()
    (name,) = left(mac)
    return name.removeprefix("cas/")


def test_an_unknown_host_key(mac: Mac) -> None:
    mac.home.known_hosts.write_text("")
    with pytest.raises(TargetError, match="host key is not known"):
        mac.build(app())


def test_a_machine_that_is_no_mac(mac: Mac, tmp_path: Path) -> None:
    for script in (tmp_path / "bin").iterdir():
        script.unlink()
    with pytest.raises(BuildError, match="xcodebuild -version failed") as failure:
        mac.build(app())
    assert failure.value.hint == "is it a Mac with Xcode?"


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def wait_for(look: Callable[[], T | None]) -> T:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if (found := look()) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")
