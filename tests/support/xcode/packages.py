"""Packages as Xcode makes them, as far as a header goes: Mach-O files, apps, an xcframework."""

from __future__ import annotations

import plistlib
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from meltrepro import resources

APP = "org.meltrepro.runner"
IOS, SIMULATOR, MACOS = 2, 7, 1
ARM64, X86_64 = 0x0100000C, 0x01000007


def mach_o(platform: int = IOS, machine: int = ARM64, text: bytes = b"code") -> bytes:
    """The header of a program with one command, which says what it is for."""
    command = struct.pack("<6I", 0x32, 24, platform, 0x100400, 0x1A0000, 0)
    return struct.pack("<8I", 0xFEEDFACF, machine, 0, 2, 1, len(command), 0, 0) + command + text


def universal(*parts: bytes) -> bytes:
    """A file that holds several."""
    offset, table, body = 4096, b"", b""
    for part in parts:
        table += struct.pack(">5I", struct.unpack_from("<I", part, 4)[0], 0, offset + len(body), len(part), 0)
        body += part
    return (struct.pack(">2I", 0xCAFEBABE, len(parts)) + table).ljust(offset, b"\0") + body


def app_files(app: str = APP, code: bytes | None = None) -> dict[str, bytes]:
    """What is in a signed app, by its path in the package."""
    info = {"CFBundleIdentifier": app, "CFBundleExecutable": "MeltRunner", "CFBundleVersion": "1"}
    root = "Payload/MeltRunner.app"
    return {
        f"{root}/Info.plist": plistlib.dumps(info, fmt=plistlib.FMT_BINARY),
        f"{root}/MeltRunner": mach_o() if code is None else code,
        f"{root}/embedded.mobileprovision": b"a profile",
        f"{root}/_CodeSignature/CodeResources": b"a signature",
    }


def framework_files(*, platform: int = IOS, identifier: str = "ios-arm64") -> dict[str, bytes]:
    """What is in an xcframework: libraries for phones and for Macs."""
    phones = {
        "LibraryIdentifier": identifier,
        "LibraryPath": "llama.framework",
        "SupportedArchitectures": ["arm64"],
        "SupportedPlatform": "ios",
    }
    macs = {**phones, "LibraryIdentifier": "macos-arm64_x86_64", "SupportedPlatform": "macos"}
    root = "build-apple/llama.xcframework"
    return {
        f"{root}/Info.plist": plistlib.dumps({"AvailableLibraries": [macs, phones]}),
        f"{root}/{identifier}/llama.framework/llama": mach_o(platform),
        f"{root}/{identifier}/llama.framework/Headers/llama.h": b"// llama.h\n",
        f"{root}/macos-arm64_x86_64/llama.framework/llama": mach_o(MACOS),
    }


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """A zip of files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def vocabulary() -> set[str]:
    """Files of llama.cpp's source that its tokenizer is compiled of, as its own CMakeLists.txt has them."""
    text = (resources.images() / "vocabulary" / "CMakeLists.txt").read_text(encoding="utf-8")
    found = set(re.findall(r"\$\{MELT_SOURCE\}/([\w./-]+\.c(?:pp)?)", text))
    for names, pattern in re.findall(r"foreach\(name (.*)\)\n.*\$\{MELT_SOURCE\}/([^)]*)\)", text):
        found |= {pattern.replace("${name}", name) for name in names.split()}
    return found
