"""The bundle's file format: what is written is read back, and no byte can change unnoticed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.errors import BundleError
from meltrepro.replay import archive

FILES: dict[str, Path | bytes] = {
    "objects/aa": b"weights" * 500,
    "manifest.yaml": b"meltrepro: 1\n",
    "records/" + "long/" * 40 + "events.jsonl": b"{}\n",
    "empty": b"",
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "a.melt"
    archive.write(path, {"name": "a"}, FILES)
    return path


def test_what_is_written_is_read_back(bundle: Path) -> None:
    seen: dict[str, bytes] = {}
    index = archive.verify(bundle, lambda name, pieces: seen.__setitem__(name, b"".join(pieces)))
    assert seen == FILES
    assert index.about == {"name": "a"}


def test_any_tar_can_list_it(bundle: Path) -> None:
    with tarfile.open(bundle) as tar:
        assert set(tar.getnames()) == {*FILES, archive.INDEX, archive.SEAL}


def test_the_same_files_give_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    archive.write(tmp_path / "b.melt", {"name": "a"}, dict(reversed(FILES.items())))
    assert (tmp_path / "b.melt").read_bytes() == bundle.read_bytes()


@given(st.data())
def test_no_flipped_byte_goes_unnoticed(bundle: Path, data: st.DataObject) -> None:
    raw = bytearray(bundle.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    damaged = bundle.with_name("damaged.melt")
    damaged.write_bytes(raw)
    with pytest.raises(BundleError):
        archive.verify(damaged)


@given(st.data())
def test_no_truncation_goes_unnoticed(bundle: Path, data: st.DataObject) -> None:
    raw = bundle.read_bytes()
    damaged = bundle.with_name("truncated.melt")
    damaged.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(BundleError):
        archive.verify(damaged)


def test_a_flipped_content_byte_names_its_member(bundle: Path, tmp_path: Path) -> None:
    raw = bundle.read_bytes().replace(b"weightsweights", b"weightsWeights", 1)
    (tmp_path / "flipped.melt").write_bytes(raw)
    with pytest.raises(BundleError, match="objects/aa is damaged"):
        archive.verify(tmp_path / "flipped.melt")


def test_something_behind_the_end_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "longer.melt").write_bytes(bundle.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="behind the end"):
        archive.verify(tmp_path / "longer.melt")


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b", "a\\b", ".", "a//b", "bundle.json"])
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="unsafe member name"):
        archive.write(tmp_path / "x.melt", {}, {name: b"x"})
    assert not list(tmp_path.iterdir())


def test_a_link_in_place_of_a_member_is_refused(bundle: Path, tmp_path: Path) -> None:
    """A tar that names the right members but holds a symbolic link where the index promises a file."""
    out = tmp_path / "link.melt"
    with tarfile.open(bundle) as tar, tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as new:
        for member in tar:
            content = tar.extractfile(member)
            if member.name == "empty":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                content = None
            new.addfile(member, io.BytesIO(content.read()) if content else None)
    with pytest.raises(BundleError, match="empty"):
        archive.verify(out)


def test_a_file_that_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"GGUF" + bytes(2000))
    with pytest.raises(BundleError, match="not a bundle"):
        archive.verify(tmp_path / "x")
    with pytest.raises(BundleError, match="cannot read"):
        archive.verify(tmp_path / "missing")
