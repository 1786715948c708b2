"""Recipe `mac-ssh`: a Mac with a pinned Xcode builds and signs the runner app. NOT YET RUN ON APPLE HARDWARE.

Pinned, not contained: Xcode and XcodeGen are those that the manifest names or nothing is built, and what else the Mac has
(macOS, SDK, compiler) is written down. The signature holds a time, so that no two builds have the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import os
import plistlib
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from meltrepro.build.keys import bundle_key
from meltrepro.build.log import BuildLog, writing_below
from meltrepro.build.model import Recipe
from meltrepro.errors import BuildError, TargetError, TargetLost
from meltrepro.plan.identity import digest_of
from meltrepro.steps import Sink, Step, step
from meltrepro.store.archive import EPOCH
from meltrepro.targets.ios.app_package import check_app, framework_files
from meltrepro.targets.ios.app_recipe import ThirdParty
from meltrepro.targets.ios.mac import Mac
from meltrepro.targets.ios.prebuilt import lay, wanted
from meltrepro.targets.remote.link import Link

TEAM = "MELTREPRO_IOS_TEAM"
_ROOT = "Library/Caches/meltrepro"
_SCHEME = "MeltRunner"
_HINTS = (
    ("errSecInternalComponent", "the Mac's keychain is locked for SSH: unlock it there, security unlock-keychain"),
    ("requires a development team", "say who signs: options.ios.team"),
    ("No Account for Team", "log in to that team once in the Mac's Xcode: Settings, Accounts"),
    ("No profiles for", "let Xcode make a profile once: open the project on the Mac with the phone attached"),
    ("No signing certificate", "make a development certificate in the Mac's Xcode: Settings, Accounts"),
    (
        "doesn't support the",
        "the profile lacks an entitlement: a paid team, or take it out of images/ios/_project.yml.j2",
    ),
    ("agreed to the Xcode license", "accept Xcode's licence on the Mac: sudo xcodebuild -license accept"),
    ("is not installed. To use with Xcode", "install the platform on the Mac: xcodebuild -downloadPlatform iOS"),
    ("No space left on device", "free space on the Mac"),
)
_NAMES = re.compile(r"(Apple (?:Development|Distribution)|iPhone Developer): [^\"\n]*?\([A-Z0-9]{10}\)")
THIRD_PARTY = "ios/third-party"


def ssh_link(host: str) -> Link:
    """The way to a Mac as ssh knows it; host keys are never accepted by a program."""
    from meltrepro.targets.ssh.config import route_to
    from meltrepro.targets.ssh.link import SshLink

    return SshLink(host, lambda: route_to(host))


class MacMaker:
    """Builds apps on Macs."""

    name = "mac-ssh"

    def __init__(
        self,
        link: Callable[[str], Link] = ssh_link,
        environ: Mapping[str, str] = os.environ,
        root: str = _ROOT,
    ) -> None:
        """`root` is where everything of ours lies on the Mac, below the folder of the user who logs in."""
        self._link = link
        self._environ = environ
        self._root = root
        self._tools: dict[str, str] = {}

    def version(self) -> str:
        """What the last build was made with."""
        return "mac-ssh " + ", ".join(f"{name} {version}" for name, version in self._tools.items())

    def build(self, recipe: Recipe, out: Path, log: Path, sink: Sink, *, fresh: bool = False) -> Mapping[str, str]:
        """Build, sign and fetch the app, and lay it into `out`.

        Raises `BuildError` (the Mac has another Xcode, a step failed), `TargetLost` (the link broke; run again, and it goes
        on), `TargetError` (host key, login).
        """
        team = recipe.place.get("team") or self._environ.get(TEAM)
        if not team or not re.fullmatch(r"[A-Z0-9]{10}", team):
            raise BuildError(
                f"{recipe.name}: no team signs the app" + (f": {TEAM} is {team!r}" if team else ""),
                hint=f"name it by its ten characters in options.ios.team or {TEAM}",
            )
        host = recipe.place["mac"]
        mac = Mac(self._link(host), self._root, recipe.place.get("developer_dir"))
        with step(sink, "build", f"{recipe.name} on {host}"), BuildLog(log, recipe.name, sink) as build_log:
            self._tools = _check_tools(mac, wanted(recipe), host, build_log.write)
            _Build(mac, recipe, team, build_log, sink).run(out, self._tools, fresh=fresh)
        return {}


def _check_tools(mac: Mac, parameters: Mapping[str, Any], host: str, write: Callable[[str], object]) -> dict[str, str]:
    """The versions of what builds there; raises `BuildError` where Xcode or XcodeGen is not the one that is wanted."""
    tools: dict[str, str] = {}
    questions: Mapping[str, Sequence[str]] = {
        "Xcode": ("xcodebuild", "-version"),
        "XcodeGen": ("xcodegen", "--version"),
        "macOS": ("sw_vers", "-productVersion"),
        "macOS-build": ("sw_vers", "-buildVersion"),
        "SDK": ("xcrun", "--sdk", "iphoneos", "--show-sdk-version"),
        "clang": ("xcrun", "--sdk", "iphoneos", "clang", "--version"),
    }
    for tool, argv in questions.items():
        status, said = mac.ask(argv)
        if status != 0:
            last = said.splitlines()[-1][:200] if said else f"exit status {status}"
            raise BuildError(f"{host}: {' '.join(argv)} failed: {last}", hint=_hint(said) or "is it a Mac with Xcode?")
        tools[tool] = said.splitlines()[0].strip() if said else ""
        if tool == "Xcode":
            found = re.search(r"Xcode (\S+)\s+Build version (\S+)", said)
            tools[tool] = f"{found[1]} ({found[2]})" if found else said[:80]
            _require(host, tool, tools[tool], parameters["xcode"], "options.ios.developer_dir names another one")
        if tool == "XcodeGen":
            tools[tool] = said.rpartition(" ")[2]
            _require(host, tool, tools[tool], parameters["xcodegen"], "install that version there")
    write("".join(f"{tool}: {version}\n" for tool, version in tools.items()))
    return tools


def _require(host: str, tool: str, found: str, expected: str, hint: str) -> None:
    if found != expected:
        raise BuildError(f"{host} has {tool} {found}, the manifest asks for {expected}", hint=hint)


class _Build:
    """One build on one Mac."""

    def __init__(self, mac: Mac, recipe: Recipe, team: str, build_log: BuildLog, sink: Sink) -> None:
        self._mac = mac
        self._recipe = recipe
        self._team = team
        self._log = build_log
        self._sink = sink
        # Who signs is no part of the recipe, but of what lies in the folder.
        key = digest_of([bundle_key(recipe), team])[:16]
        self._folder = f"{mac.root}/build-{key}"

    def run(self, out: Path, tools: dict[str, str], *, fresh: bool) -> None:
        app = wanted(self._recipe)["app"]
        with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
            tar, package = Path(scratch) / "tree.tar", Path(scratch) / "app.ipa"
            with writing_below(Path(scratch)):
                pack(self._recipe, tar)
                with tar.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            there = self._upload(tar, digest)
            try:
                if fresh:
                    self._mac.remove(self._folder)
                self._make(there, app)
                with step(self._sink, "build.fetch", self._recipe.name):
                    sha256 = self._mac.fetch(self._package(), package)
                self._log.write(f"app.ipa has sha256 {sha256}\n")
                facts = check_app(package, app, f"{self._recipe.name}: what the Mac exported")
                lay(self._recipe, package, facts, tools, out)
            except TargetLost:
                raise  # what is there shortens the next try
            except BaseException:
                with suppress(TargetError):
                    self._mac.remove(self._folder)
                raise
            self._mac.remove(self._folder, there)

    def _upload(self, tar: Path, digest: str) -> str:
        name = self._recipe.name

        def progress(done: int, total: int) -> None:
            self._sink(Step("build.upload", "progress", name, done=done, total=total, unit="B"))

        with step(self._sink, "build.upload", name):
            return self._mac.upload(tar, digest, progress)

    def _make(self, tree: str, app: str) -> None:
        home, project = self._home(), f"{self._folder}/ios"
        self._mac.make_folder(self._folder)
        self._mac.remove(f"{self._folder}/app.xcarchive", f"{self._folder}/export")  # of a try whose link was lost
        self._phase(
            "unpack", ["/usr/bin/env", "tar", "-xf", f"{home}/{tree}" if tree[0] != "/" else tree], self._folder
        )
        options = {"method": "debugging", "signingStyle": "automatic", "teamID": self._team, "compileBitcode": False}
        self._mac.write(f"{self._folder}/export.plist", plistlib.dumps(options))
        if (library := wanted(self._recipe)["library"]) is not None:
            place = f"{self._folder}/{THIRD_PARTY}/{library['folder']}"
            self._phase("library", ["/bin/bash", library["script"]], place)
            self._phase("copy", ["/bin/cp", "-R", library["made"], ".."], place)
        self._phase("project", ["xcodegen", "generate", "--spec", "project.yml"], project)
        sign = ["-allowProvisioningUpdates"]
        self._phase(
            "archive",
            [
                *("xcodebuild", "archive", "-project", f"{_SCHEME}.xcodeproj", "-scheme", _SCHEME),
                *("-configuration", "Release", "-destination", "generic/platform=iOS"),
                *("-archivePath", "../app.xcarchive", "-derivedDataPath", "../derived", *sign),
                *(f"DEVELOPMENT_TEAM={self._team}", f"PRODUCT_BUNDLE_IDENTIFIER={app}"),
            ],
            project,
        )
        self._phase(
            "export",
            [
                *("xcodebuild", "-exportArchive", "-archivePath", "../app.xcarchive", "-exportPath", "../export"),
                *("-exportOptionsPlist", "../export.plist", *sign),
            ],
            project,
        )

    def _phase(self, name: str, argv: Sequence[str], folder: str) -> None:
        """One command, its output in the log; raises `BuildError` with its last lines where it fails."""
        with step(self._sink, f"build.{name}", self._recipe.name):
            self._log.write(f"-- {name}\n")
            lines = _Lines(lambda line: self._log.write(self._without_names(line)))
            status = self._mac.run(argv, lines.write, folder)
            lines.end()
        if status != 0:
            tail = self._log.tail()
            raise BuildError(
                f"building {self._recipe.name} on {self._mac.name}: {name} failed with status {status}:\n{tail}",
                hint=_hint(tail) or f"the whole log is in {self._log.path}",
            )

    def _package(self) -> str:
        status, said = self._mac.ask(["/bin/ls", f"{self._folder}/export"])
        packages = [name for name in said.splitlines() if name.endswith(".ipa")] if status == 0 else []
        if len(packages) != 1:
            raise BuildError(
                f"building {self._recipe.name} on {self._mac.name} left {len(packages)} packages behind, expected one: "
                f"{said[:200] or 'nothing is there'}",
                hint=f"the whole log is in {self._log.path}",
            )
        return f"{self._folder}/export/{packages[0]}"

    def _home(self) -> str:
        status, said = self._mac.ask(["pwd"])
        if status != 0 or not said.startswith("/"):
            raise BuildError(f"{self._mac.name} does not say where its user's folder is: {said[:100]}")
        return said

    def _without_names(self, text: str) -> str:
        """Logs are kept with records: they need not say who has signed."""
        return _NAMES.sub(r"\1: (name left out)", text).replace(self._team, "(team)")


class _Lines:
    """Passes text on line by line, so that no name is cut in two."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._rest = ""

    def write(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._write(f"{line}\n")

    def end(self) -> None:
        if self._rest:
            self._write(f"{self._rest}\n")


def _hint(said: str) -> str | None:
    return next((hint for text, hint in _HINTS if text in said), None)


def pack(recipe: Recipe, tar: Path) -> None:
    """Everything that the Mac needs, as one tar whose bytes follow from the recipe and its inputs.

    ios/, runner/, ...   our sources
    ios/third-party/     what the recipe's parameters take out of its inputs

    Raises `BuildError` where an input is not what it should be, `OSError` where it cannot be written."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as packed:
        for name, content, mode in _files(recipe):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(content), EPOCH, mode
            packed.addfile(entry, io.BytesIO(content))


def _files(recipe: Recipe) -> Iterator[tuple[str, bytes, int]]:
    for name, content in sorted(recipe.files.items()):
        yield name, content, 0o644
    for taken in (ThirdParty(**each) for each in wanted(recipe)["third_party"]):
        path, label = recipe.inputs[taken.input], f"{recipe.name}: {taken.input}"
        files = _of_tar(path, taken, label) if taken.below else _of_xcframework(path, label)
        found = False
        for name, content, mode in files:
            found = True
            yield f"{THIRD_PARTY}/{taken.place}/{name}", content, mode
        if not found:
            raise BuildError(f"{label} holds nothing for {THIRD_PARTY}/{taken.place}")


def _of_xcframework(path: Path, label: str) -> Iterator[tuple[str, bytes, int]]:
    for name, content in sorted(framework_files(path, label).items()):
        yield name, content, 0o755


def _of_tar(path: Path, taken: ThirdParty, label: str) -> Iterator[tuple[str, bytes, int]]:
    """Files in the order of their archive; links are left out, nothing of it is one that a build needs."""
    pattern = re.compile(f"{taken.below}(.+)")
    try:
        with tarfile.open(path) as archive:
            for entry in archive:
                match = pattern.fullmatch(entry.name)
                if match is None or not entry.isfile() or ".." in PurePosixPath(match[1]).parts:
                    continue
                if not match[1].startswith(tuple(taken.only)):
                    continue
                content = archive.extractfile(entry)
                assert content is not None
                yield match[1], content.read(), 0o755 if entry.mode & 0o100 else 0o644
    except (tarfile.TarError, EOFError) as error:
        raise BuildError(f"{label} cannot be read: {error}") from error
