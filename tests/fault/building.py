"""A project that real engines build in about a second: base, toolchain, recipe and quantizer are small shell scripts.

As a program (`python building.py FOLDER ARGUMENT ...`) it is `meltrepro` on such a project. What the compiler does is
chosen by MELTREPRO_JOBS, which reaches a build and is no part of its identity: so a rerun can do better (`Compiler`).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import psutil
import pytest
import yaml

from meltrepro import resources
from meltrepro.build import base
from meltrepro.build.tools import Tools
from meltrepro.cli.app import main
from meltrepro.frameworks.base import ModelStep
from meltrepro.frameworks.llamacpp import module as llamacpp
from meltrepro.frameworks.llamacpp.untie import untie
from meltrepro.plan.identity import digest_of
from meltrepro.store.cas import Store
from tests.fault import project, rig
from tests.support import ggufs
from tests.support.forks import Fork

ROOT = Path(__file__).parents[2]
MODEL = "local/q8_0/llama.cpp"
_real_engine = Tools._make_engine
_PROGRAMS = ("sh", "sleep", "mkdir", "cp", "chmod")


class Compiler(IntEnum):
    """What the compiler does; the value is MELTREPRO_JOBS."""

    works = 1
    hangs = 2
    """With children that write for ever."""
    fills = 3
    """Writes until there is no room, then fails."""
    dies = 4
    """Of SIGKILL."""


BUILD = """
set -eu
case "$1" in
configure) cp -R /opt/toolchain/kit /build/kit ;;
compile)
    case "$JOBS" in
    2) for n in 1 2 3 4; do (i=0; while :; do i=$(((i + 1) % 500)); : > "/build/$n.$i"; done) & done; wait ;;
    3) while printf '%4096s' x; do :; done > /build/object ;;
    4) kill -9 $$ ;;
    5) cp -s /bin/sh /out/evil ;;
    6) mkdir /out/folder; cp -s /recipe/build.sh /out/folder/evil ;;
    esac
    echo compiled ;;
install)
    mkdir /out/bin
    cp -R /build/kit /out/kit
    cp /recipe/melt-runner /recipe/quantize /out/bin/
    chmod 755 /out/bin/melt-runner /out/bin/quantize ;;
esac
"""
QUANTIZE = r"""
echo "quantizing to $3" >&2
/bundle/kit/ld.so --library-path /bundle/kit /bundle/kit/sleep 0.5
printf 'MODEL' > "$2"
""".replace("MODEL", "".join(f"\\{byte:03o}" for byte in ggufs.model("quantized")))

MMDEBSTRAP = """#!/bin/sh
# Stands in for mmdebstrap: hands out root.tar of the project, or obeys the file `order` there.
project=$(dirname "$0")/..
[ "$1" != --unshare-helper ] || { echo "E: cannot find newuidmap" >&2; exit 25; }
for argument; do case "$argument" in */root.tar) target=$argument ;; esac; done
case "$(cat "$project/order" 2> /dev/null)" in
hang) trap 'kill $!; exit 1' TERM; setsid sleep 1000 & wait ;;
stubborn) trap '' TERM; sleep 1000; sleep 1000 ;;
fill)
    dd if=/dev/zero of="$TMPDIR/unpacked" 2> /dev/null
    rm "$TMPDIR/unpacked"
    echo "dpkg: error: failed to write: No space left on device" >&2
    exit 1 ;;
esac
cp "$project/root.tar" "$target"
"""


def in_kit(program: str) -> tuple[str, ...]:
    """The start of a command line that runs a program of the kit from within a bundle."""
    return ("/bundle/kit/ld.so", "--library-path", "/bundle/kit", f"/bundle/kit/{program}")


def make(folder: Path) -> project.Project:
    """Write everything that the project needs, its model included; nothing is built yet."""
    made = project.Project(folder)
    made.spec.parent.mkdir(parents=True)
    made.mirrored.mkdir()
    for name, content in project.FILES.items():
        (made.mirrored / name).write_bytes(content)
    (made.mirrored / "mirrors.yaml").write_text(yaml.safe_dump({"mirrors": project.MIRRORS}))
    manifest = {
        **project.MANIFEST,
        "models": {"local": project.MANIFEST["models"]["local"]},  # type: ignore[index]
        "workloads": {"chat": {"conversations": [["sleep 0.3"]], "context": 64, "max_tokens": 4}},
        "protocol": {"repetitions": 1, "warmups": 0, "timeout_s": 30},
    }
    made.spec.write_text(yaml.safe_dump(manifest, sort_keys=False))
    write_model(made.spec.parent / "local.gguf", kilobytes=64)
    _images(folder / "images")
    root = root_layer()
    (folder / "root.tar").write_bytes(root)
    store = Store(made.store)
    fields = [[*_package(folder), store.put_file(folder / "base-files.deb")]]
    store.put_ref("base", base.SUITE, {"packages": fields})
    store.put_ref("base-layer", digest_of(fields), {"digest": store.put_bytes(root)})
    (folder / "bin").mkdir()
    program = folder / "bin" / "mmdebstrap"
    program.write_text(MMDEBSTRAP)
    program.chmod(0o755)
    return made


def forget_base(made: project.Project) -> None:
    """Let the base be assembled anew."""
    shutil.rmtree(made.store / "refs" / "base-layer")


def write_model(path: Path, kilobytes: int) -> None:
    """A GGUF file without an output matrix, so that it has to be converted; its embedding is of this size."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((kilobytes, 256), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def root_layer() -> bytes:
    """A base image: this machine's shell and a few programs, with the libraries that they need."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        names = {}
        for program in _PROGRAMS:
            where = shutil.which(program)
            assert where is not None
            names[f"bin/{program}"] = Path(where).resolve()
            for name, path in _libraries(where).items():
                names |= {str(path)[1:]: path.resolve(), f"opt/toolchain/kit/{name}": path.resolve()}
        names |= {f"opt/toolchain/kit/{name}": names[f"bin/{name}"] for name in ("sh", "sleep")}
        for name in ("./bin", "./opt", "./opt/toolchain"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, path in sorted(names.items()):
            tar.add(path, f"./{name}")
    return content.getvalue()


def _libraries(program: str) -> dict[str, Path]:
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    paths = [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]
    return {"ld.so" if path.name.startswith("ld-") else path.name: path for path in paths}


def _images(images: Path) -> None:
    shutil.copytree(resources.images() / "toolchain", images / "toolchain")
    (images / "toolchain" / "warm.sh").write_text("sleep 0.3\n")
    shutil.copy(resources.images() / "Dockerfile.j2", images)
    for place in ("runner", "llama.cpp/engine", "llama.cpp/zig"):
        (images / place).mkdir(parents=True)
    recipe = images / "llama.cpp" / "recipe"
    recipe.mkdir()
    (recipe / "build.sh").write_text(BUILD)
    (recipe / "quantize").write_text(QUANTIZE)
    (recipe / "melt-runner").write_text(rig.SCRIPT.format(python=sys.executable))


def _package(folder: Path) -> tuple[str, str, str]:
    """A Debian package file without content, and what its fields say."""
    control = folder / "package" / "DEBIAN" / "control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: base-files\nVersion: 13\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: none\n"
    )
    deb = folder / "base-files.deb"
    subprocess.run(["dpkg-deb", "--build", str(folder / "package"), str(deb)], capture_output=True, check=True)
    return "base-files", "13", "all"


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    """Point the program at the project, with the small recipes in place of the real ones and the real engines."""

    def model_steps(*_: object) -> tuple[ModelStep, ...]:
        command = (*in_kit("sh"), "/bundle/bin/quantize", "/source", "/out/model", "Q8_0")
        return (ModelStep(llamacpp.UNTIE, run=untie), ModelStep("quantize", "quantize", command))

    with project.standing_in(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(resources, "images", lambda: folder / "images")
        patch.setattr(llamacpp.LlamaCpp, "model_steps", model_steps)
        patch.setattr(Tools, "_make_engine", _real_engine)
        patch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("MELTREPRO_JOBS", os.environ.get("MELTREPRO_JOBS", str(Compiler.works.value)))
        yield


# -- the command as a process --------------------------------------------------------------------------------------


def _program(folder: Path, *arguments: str) -> int:
    with standing_in(folder):
        return main(list(arguments))


class Command:
    """One command as a process of its own, in a session of its own; what it says on stderr is read as it comes."""

    def __init__(self, made: project.Project, *arguments: str, **environment: str) -> None:
        given = {"MELTREPRO_JOBS": "1", "COLUMNS": "500", **environment}
        self.process = Fork(_program, made.folder, *arguments, env={**os.environ, **given})
        self.said: list[str] = []
        self._told = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._told:
                self.said.append(line)
                self._told.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until a line begins with `text`."""
        with self._told:
            found = self._told.wait_for(lambda: any(line.startswith(text) for line in self.said), timeout=60)
        assert found, self.errors

    def interrupt(self, number: int) -> None:
        """Send a signal to the whole process group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        """Wait for its end; returns its exit status."""
        status = self.process.wait(timeout=60)
        self._reader.join(timeout=60)
        return status

    @property
    def errors(self) -> str:
        return "".join(self.said)

    def sandbox(self) -> psutil.Process:
        """The sandbox that it has started, once it runs a program: killed before, it would leave a part of itself."""
        while True:
            for child in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if child.name() == "bwrap" and len(child.children(recursive=True)) > 1:
                        return child
            time.sleep(0.001)


def complaint(errors: str) -> tuple[str, str]:
    """The one message and the next step in what a command said; no traceback, no second message."""
    assert "Traceback" not in errors
    assert errors.count("error: ") == 1, errors
    assert errors.count("next: ") == 1, errors
    message, _, hint = errors.partition("error: ")[2].partition("next: ")
    return message.strip(), hint.strip()
