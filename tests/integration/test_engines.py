"""Every engine against one suite: the same recipe gives the same result, and nothing of this machine gets in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from meltrepro import settings
from meltrepro.build.docker_engine import DockerEngine
from meltrepro.build.image import Image
from meltrepro.build.model import Artifact, Engine, Execution, Recipe
from meltrepro.build.tools import EngineName, Tools
from meltrepro.errors import BuildError
from meltrepro.manifest.lock import Lock
from meltrepro.resources import image_file
from meltrepro.steps import silent
from meltrepro.store.archive import pack_tree

pytestmark = pytest.mark.machine

TRIPLE = "x86_64-linux-musl"
PROGRAM = b"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "sleep")) { sleep(60); }
    if (argc > 1 && !strcmp(argv[1], "abort")) { abort(); }
    if (argc > 1 && !strcmp(argv[1], "write")) {
        FILE *out = fopen("/out/result", "w");
        if (!out) { perror("/out/result"); return 9; }
        fputs(argv[2], out);
        return fclose(out);
    }
    if (argc > 1 && !strcmp(argv[1], "read")) {
        char line[64] = "";
        FILE *in = fopen("/source", "r");
        if (!in || !fgets(line, sizeof line, in)) { return 8; }
        puts(line);
        return fopen("/source", "w") ? 7 : 0;
    }
    fprintf(stderr, "said %d\\n", argc);
    return argc > 1 ? atoi(argv[1]) : 0;
}
"""
BUILD = b"""set -eu
mkdir -p /out/bin
cc -O2 -g0 -static -s -ffile-prefix-map=/recipe=/r /recipe/tool.c -o /out/bin/tool
printf '{"triple": "x86_64-linux-musl"}\\n' > /out/bundle.json
env | sort | grep -v -e '^JOBS=' -e '^HOSTNAME=' -e '^PWD=' -e '^OLDPWD=' -e '^SHLVL=' -e '^_=' > /out/environment
tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' > /out/interfaces
cat /inputs/data > /out/data
(cd / && ls -d .git git home/* 2>/dev/null || true) > /out/leaks
for each in kernel/core_pattern kernel/hostname vm/drop_caches; do
    if (: >> "/proc/sys/$each") 2>/dev/null; then echo "may set $each"; fi
done > /out/settings
"""


def recipe(data: Path, build: bytes = BUILD) -> Recipe:
    return Recipe(
        name="test/tool",
        files={"build.sh": build, "tool.c": PROGRAM},
        dockerfile=image_file("Dockerfile.j2").decode(),
        inputs={"data": data},
        input_digests={"data": hashlib.sha256(data.read_bytes()).hexdigest()},
        triple=TRIPLE,
    )


@pytest.fixture(scope="module")
def engines_of(engine: None) -> Mapping[str, tuple[Tools, Engine]]:
    made: dict[str, tuple[Tools, Engine]] = {}
    names: tuple[EngineName, ...] = ("docker", "process")
    for name in names:
        tools = Tools(settings.load(), silent, Lock(lock=1, manifest="0" * 64), name)
        made[name] = tools, tools.engine()
    return made


@pytest.fixture(params=["docker", "process"])
def maker(request: pytest.FixtureRequest, engines_of: Mapping[str, tuple[Tools, Engine]]) -> tuple[Tools, Engine]:
    return engines_of[request.param]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_text("input\n")
    return path


def build(maker: tuple[Tools, Engine], made: Recipe, folder: Path) -> Path:
    out = folder / "out"
    out.mkdir()
    maker[1].build(made, out, folder / "build.log", silent, fresh=True)
    return out


def bundle(maker: tuple[Tools, Engine], data: Path, folder: Path) -> Artifact:
    store = maker[0].store
    out = build(maker, recipe(data), folder)
    with store.scratch() as scratch:
        pack_tree(out, scratch / "tar", prefix="bundle")
        digest = store.put_file(scratch / "tar", move=True)
    path = store.unpack(digest) / "bundle"
    return Artifact("test/tool", "bundle", "0" * 64, digest, store.path(digest), path, 0, "x86_64")


def test_a_build_sees_its_inputs_and_nothing_else(maker: tuple[Tools, Engine], data: Path, tmp_path: Path) -> None:
    out = build(maker, recipe(data), tmp_path)
    assert (out / "data").read_text() == "input\n"
    assert (out / "interfaces").read_text().split() in ([], ["lo"])
    assert (out / "leaks").read_text() == ""
    assert (out / "settings").read_text() == "", "to the kernel root is root in any namespace"
    variables = dict(line.split("=", 1) for line in (out / "environment").read_text().splitlines())
    assert variables["ZIG_TARGET"] == TRIPLE
    assert variables["PATH"] == "/opt/toolchain/bin:/usr/bin:/bin"
    assert not any(name.startswith(("MELTREPRO", "PIP", "GIT", "PYTHON")) for name in variables)


def test_both_engines_give_the_same_bytes(
    engines_of: Mapping[str, tuple[Tools, Engine]], data: Path, tmp_path: Path
) -> None:
    digests = set()
    for name, made in engines_of.items():
        folder = tmp_path / name
        folder.mkdir()
        out = build(made, recipe(data), folder)
        digests.add(hashlib.sha256((out / "bin" / "tool").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_failing_step_shows_its_last_lines_and_the_log(
    maker: tuple[Tools, Engine], data: Path, tmp_path: Path
) -> None:
    broken = recipe(data, b"echo it begins\necho the reason >&2\nexit 3\n")
    with pytest.raises(BuildError, match="the reason") as caught:
        build(maker, broken, tmp_path)
    assert str(tmp_path / "build.log") in str(caught.value.hint)
    assert "the reason" in (tmp_path / "build.log").read_text()


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["5"], 5), (["abort"], 134)])
def test_exit_statuses_come_back(
    maker: tuple[Tools, Engine], data: Path, tmp_path: Path, arguments: list[str], status: int
) -> None:
    made = bundle(maker, data, tmp_path)
    errors = tmp_path / "stderr"
    ended = maker[1].execute(Execution(argv=["/bundle/bin/tool", *arguments], bundle=made, stderr=errors))
    # The first process of a container cannot be ended by SIGABRT; its C library then crashes it with SIGSEGV.
    assert ended.status in ({134, 139} if status == 134 else {status})
    assert not ended.timed_out
    if status != 134:
        assert errors.read_text().strip() == f"said {1 + len(arguments)}"


def test_mounts_are_what_they_were_asked_to_be(maker: tuple[Tools, Engine], data: Path, tmp_path: Path) -> None:
    made = bundle(maker, data, tmp_path)
    results = tmp_path / "results"
    results.mkdir()
    written = Execution(argv=["/bundle/bin/tool", "write", json.dumps("a b")], bundle=made, writable={"/out": results})
    assert maker[1].execute(written).status == 0
    assert (results / "result").read_text() == '"a b"'
    said = tmp_path / "stdout"
    read = Execution(argv=["/bundle/bin/tool", "read"], bundle=made, readonly={"/source": data}, stdout=said)
    assert maker[1].execute(read).status == 0
    assert said.read_text().strip() == "input"


def test_a_hang_is_ended(maker: tuple[Tools, Engine], data: Path, tmp_path: Path) -> None:
    made = bundle(maker, data, tmp_path)
    ended = maker[1].execute(Execution(argv=["/bundle/bin/tool", "sleep"], bundle=made, timeout_s=2))
    assert ended.timed_out


def test_the_toolchain_image_has_the_id_that_we_computed(
    engines_of: Mapping[str, tuple[Tools, Engine]], data: Path, tmp_path: Path
) -> None:
    """The engine's own id of the loaded image, against the one that follows from the layers alone."""
    import docker

    from meltrepro.build.daemon import connect

    tools, engine = engines_of["docker"]
    build((tools, engine), recipe(data), tmp_path)
    image = Image("meltrepro/toolchain", tools.layers())
    client: docker.DockerClient = connect(settings.load())
    assert client.images.get(image.reference).id == image.id
    client.close()


def test_an_image_by_digest_can_stand_for_the_base(engines_of: Mapping[str, tuple[Tools, Engine]]) -> None:
    """Its file system becomes one layer, the same each time; an image that nobody has is a clear error."""
    import tarfile

    from meltrepro.build.daemon import connect
    from meltrepro.build.docker_engine import base_layer
    from meltrepro.errors import EngineError

    tools, engine = engines_of["docker"]
    assert isinstance(engine, DockerEngine)
    image = engine.load(Image("meltrepro/base", tools.layers()[:1]))
    client = connect(settings.load())
    layers = [base_layer(client, image, tools.store, silent) for _ in range(2)]
    assert layers[0].digest == layers[1].digest
    with tarfile.open(layers[0].path) as tar:
        assert "usr/bin/dash" in tar.getnames()
    with pytest.raises(EngineError):
        base_layer(client, "sha256:" + "0" * 64, tools.store, silent)
    client.close()
