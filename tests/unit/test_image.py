"""Images and layers: the same content gives the same bytes, whatever order or time it came in."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from meltrepro.build.image import Image, Layer, archive, normalize
from meltrepro.errors import EngineError
from meltrepro.store.archive import EPOCH


def make_tar(path: Path, names: list[str], mtime: int) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.mtime = mtime
            if name.endswith("/"):
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            elif name == "link":
                entry.type, entry.linkname = tarfile.SYMTYPE, "a"
                tar.addfile(entry)
            elif name == "hard":
                entry.type, entry.linkname = tarfile.LNKTYPE, "a"
                tar.addfile(entry)
            else:
                content = name.removeprefix("./").encode() * 10
                entry.size, entry.uname = len(content), "somebody"
                tar.addfile(entry, io.BytesIO(content))
    return path


def test_order_and_times_do_not_show(tmp_path: Path) -> None:
    first = make_tar(tmp_path / "1", ["./a", "./var/", "b", "link"], 5)
    second = make_tar(tmp_path / "2", ["b", "./var/", "link", "a"], 7)
    contents = []
    for source in (first, second):
        with tarfile.open(source) as tar:
            normalize(tar, tmp_path / "out", drop=())
        contents.append((tmp_path / "out").read_bytes())
    assert contents[0] == contents[1]
    with tarfile.open(tmp_path / "out") as tar:
        assert [(m.name, m.mtime, m.uname) for m in tar] == [(n, EPOCH, "") for n in ("a", "b", "link", "var")]


def test_what_is_dropped_is_gone_and_folders_stay(tmp_path: Path) -> None:
    source = make_tar(tmp_path / "1", ["tmp/", "tmp/x", "etc/", "etc/machine-id", "etc/passwd"], 1)
    with tarfile.open(source) as tar:
        normalize(tar, tmp_path / "out", drop=("tmp", "etc/machine-id"))
    with tarfile.open(tmp_path / "out") as tar:
        assert tar.getnames() == ["etc", "etc/passwd", "tmp"]


def test_a_hard_link_becomes_a_copy(tmp_path: Path) -> None:
    source = make_tar(tmp_path / "1", ["a", "hard"], 1)
    with tarfile.open(source) as tar:
        normalize(tar, tmp_path / "out", drop=())
    with tarfile.open(tmp_path / "out") as tar:
        copy = tar.extractfile("hard")
        assert copy is not None
        assert copy.read() == b"a" * 10


def test_a_hard_link_to_nothing_is_no_fault_of_ours(tmp_path: Path) -> None:
    with (
        tarfile.open(make_tar(tmp_path / "in", ["hard"], 0)) as tar,
        pytest.raises(EngineError, match="hard link to a"),
    ):
        normalize(tar, tmp_path / "out", drop=())


def test_an_image_archive_names_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(b"x" * 1000)
    digest = hashlib.sha256(b"x" * 1000).hexdigest()
    image = Image("meltrepro/test", [Layer(tmp_path / "layer", digest)], labels={"b": "2", "a": "1"})
    (tmp_path / "image.tar").write_bytes(b"".join(archive(image)))
    with tarfile.open(tmp_path / "image.tar") as tar:
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
        config = tar.extractfile(manifest[0]["Config"]).read()  # type: ignore[union-attr]
        assert "sha256:" + hashlib.sha256(config).hexdigest() == image.id
        assert tar.extractfile(manifest[0]["Layers"][0]).read() == b"x" * 1000  # type: ignore[union-attr]
    assert json.loads(config)["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
    assert manifest[0]["RepoTags"] == [image.reference]


def test_labels_and_layers_decide_the_id(tmp_path: Path) -> None:
    layer = Layer(tmp_path / "x", "a" * 64)
    plain = Image("n", [layer])
    assert plain.id == Image("another-name", [layer]).id
    assert plain.id != Image("n", [layer], labels={"a": "b"}).id
    assert plain.id != Image("n", [layer, layer]).id
