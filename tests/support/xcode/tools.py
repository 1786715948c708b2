"""STAND-IN for Xcode's programs and XcodeGen, called by one of their names: `tools.py NAME ARGUMENTS`.

What is to go wrong is in the folder that FAKE_XCODE names: `<step>.says` (its output before it fails), `<step>.hangs`. What
they were asked is in `calls`.
"""

from __future__ import annotations

import json
import os
import plistlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support.xcode.packages import app_files, mach_o, write_zip

FAKE = Path(os.environ.get("FAKE_XCODE", "/nowhere"))


def main(name: str, *argv: str) -> int:
    with (FAKE / "calls").open("a") as calls:
        calls.write(json.dumps([name, *argv, os.environ.get("DEVELOPER_DIR", "")]) + "\n")
    if name == "xcodegen":
        return xcodegen(*argv)
    return archive(*argv) if argv[0] == "archive" else export(*argv)


def wrong(step: str) -> int | None:
    """What was arranged to go wrong in a step."""
    if (FAKE / f"{step}.hangs").exists():
        print(f"{step} begins", flush=True)
        (FAKE / f"{step}.pid").write_text(str(os.getpid()))
        time.sleep(600)
    if (FAKE / f"{step}.says").exists():
        print((FAKE / f"{step}.says").read_text())
        return 65
    return None


def xcodegen(*argv: str) -> int:
    import yaml

    assert argv == ("generate", "--spec", "project.yml"), argv
    project = yaml.safe_load(Path("project.yml").read_text())
    for target in project["targets"].values():
        for source in target["sources"]:
            assert Path(source["path"]).exists(), source
        for dependency in target["dependencies"]:
            assert "sdk" in dependency or Path(dependency["framework"], "Info.plist").is_file(), dependency
        settings = target["settings"]["base"]
        for folder in (*settings["HEADER_SEARCH_PATHS"], *settings["USER_HEADER_SEARCH_PATHS"]):
            place = folder.replace("$(LLAMA)", project["settings"]["base"]["LLAMA"]).replace("$(PROJECT_DIR)", ".")
            assert Path(place).is_dir(), folder
    if (status := wrong("project")) is not None:
        return status
    Path("MeltRunner.xcodeproj").mkdir(exist_ok=True)
    print("Created project at MeltRunner.xcodeproj")
    return 0


def archive(*argv: str) -> int:
    options = dict(zip(argv[1::2], argv[2::2], strict=False))
    assert options["-project"] == "MeltRunner.xcodeproj" and Path("MeltRunner.xcodeproj").is_dir()
    assert (options["-scheme"], options["-configuration"]) == ("MeltRunner", "Release")
    assert options["-destination"] == "generic/platform=iOS"
    settings = dict(word.split("=", 1) for word in argv if "=" in word and not word.startswith("generic/"))
    print(f'Signing Identity:     "Apple Development: Jane Doe (QWERTY1234)" of {settings["DEVELOPMENT_TEAM"]}')
    if (status := wrong("archive")) is not None:
        return status
    folder = Path(options["-archivePath"])
    folder.mkdir()
    (folder / "Info.plist").write_bytes(plistlib.dumps(settings))
    print("** ARCHIVE SUCCEEDED **")
    return 0


def export(*argv: str) -> int:
    assert argv[0] == "-exportArchive", argv
    options = dict(zip(argv[1::2], argv[2::2], strict=False))
    asked = plistlib.loads(Path(options["-exportOptionsPlist"]).read_bytes())
    settings = plistlib.loads((Path(options["-archivePath"]) / "Info.plist").read_bytes())
    assert asked["teamID"] == settings["DEVELOPMENT_TEAM"]
    if (status := wrong("export")) is not None:
        return status
    out = Path(options["-exportPath"])
    out.mkdir()
    if (FAKE / "export.empty").exists():
        (out / "DistributionSummary.plist").write_text("")
        return 0
    stamp = str(time.time_ns()).encode()  # as a signature does
    app = (FAKE / "export.app").read_text() if (FAKE / "export.app").exists() else settings["PRODUCT_BUNDLE_IDENTIFIER"]
    write_zip(out / "MeltRunner.ipa", app_files(app, mach_o(text=stamp)))
    print("** EXPORT SUCCEEDED **")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
