"""Archives: equal trees give equal tars, and nothing hostile gets out of one."""

from __future__ import annotations

import io
import os
import random
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltrepro.errors import SourceError, StoreError
from meltrepro.store.archive import EPOCH, open_member, pack_tree, unpack_below, unpack_root, unpack_tree
from meltrepro.store.globs import Glob
from tests.support.examples import examples

NAMES = st.sampled_from(["a", "a-b", "b", "B", "ä", "long" * 30, "with space", ".hidden", "\udcff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TREES = st.dictionaries(PATHS, st.tuples(st.binary(max_size=700), st.booleans()), max_size=8)


def consistent(tree: dict[str, tuple[bytes, bool]]) -> dict[str, tuple[bytes, bool]]:
    """Without files that would have to be folders as well."""
    folders = {str(parent) for name in tree for parent in PurePosixPath(name).parents}
    return {name: value for name, value in tree.items() if name not in folders}


def write_tree(folder: Path, tree: dict[str, tuple[bytes, bool]], seed: int) -> Path:
    """The same tree in another order, with other times and modes."""
    chance = random.Random(seed)
    items = list(tree.items())
    chance.shuffle(items)
    for name, (content, executable) in items:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod((0o744 if executable else 0o644) & ~chance.choice([0, 0o22, 0o77]))
        os.utime(path, (chance.randrange(2**31), chance.randrange(2**31)))
    folder.mkdir(exist_ok=True)
    return folder


@given(tree=TREES.map(consistent), seed=st.integers(0, 1000))
@settings(max_examples=examples(40), deadline=None)
def test_equal_trees_give_equal_tars(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, tuple[bytes, bool]], seed: int
) -> None:
    base = tmp_path_factory.mktemp("pack")
    first = pack_tree(write_tree(base / "one", tree, seed), base / "one.tar", prefix="bundle")
    second = pack_tree(write_tree(base / "two", tree, seed + 1), base / "two.tar", prefix="bundle")
    assert first == second
    assert (base / "one.tar").read_bytes() == (base / "two.tar").read_bytes()
    unpack_tree(base / "one.tar", base / "out", "one")
    out = base / "out" / "bundle"
    found = {
        os.fsdecode(path.relative_to(out)): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in out.rglob("*")
        if path.is_file()
    }
    assert found == tree


@given(tree=TREES.map(consistent).filter(bool), data=st.data())
@settings(max_examples=examples(25), deadline=None)
def test_other_trees_give_other_tars(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, tuple[bytes, bool]], data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("pack")
    name = data.draw(st.sampled_from(sorted(tree)))
    content, executable = tree[name]
    change = data.draw(st.sampled_from(["content", "mode", "name"]))
    other = dict(tree)
    match change:
        case "content":
            other[name] = (content + b"x", executable)
        case "mode":
            other[name] = (content, not executable)
        case "name":
            other[name + ".new"] = other.pop(name)
    assert pack_tree(write_tree(base / "one", tree, 0), base / "1") != pack_tree(
        write_tree(base / "two", other, 0), base / "2"
    )


def test_a_tar_says_nothing_of_who_made_it(tmp_path: Path) -> None:
    write_tree(tmp_path / "t", {"a/b": (b"x", True), "a/" + "n" * 120: (b"y", False)}, 1)
    pack_tree(tmp_path / "t", tmp_path / "t.tar", prefix="p")
    with tarfile.open(tmp_path / "t.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["p/a", "p/a/b", "p/a/" + "n" * 120]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", EPOCH)}
    assert [m.mode for m in members] == [0o755, 0o755, 0o644]
    assert not any(m.pax_headers for m in members)


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("a"), os.mkfifo])
def test_links_and_pipes_are_not_packed(tmp_path: Path, make: object) -> None:
    (tmp_path / "t").mkdir()
    make(tmp_path / "t" / "odd")  # type: ignore[operator]
    with pytest.raises(StoreError, match="odd: only files and folders"):
        pack_tree(tmp_path / "t", tmp_path / "t.tar")


# -- hostile tars -------------------------------------------------------------------------------------------------


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"evil", link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, content


Entries = Sequence[tuple[tarfile.TarInfo, bytes]]


def written(path: Path, members: Entries) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def as_tree(folder: Path, members: Entries) -> None:
    unpack_tree(written(folder / "evil.tar", members), folder / "out", "evil.tar")


def as_output(folder: Path, members: Entries) -> None:
    """As the Docker engine hands over what a build left."""
    with tarfile.open(written(folder / "evil.tar", [entry("out", tarfile.DIRTYPE), *below("out", members)])) as tar:
        (folder / "out").mkdir()
        try:
            unpack_below(tar, "out", folder / "out", "evil.tar")
        finally:
            if not any((folder / "out").iterdir()):
                (folder / "out").rmdir()


def as_root(folder: Path, members: Entries) -> None:
    unpack_root([written(folder / "evil.tar", members)], folder / "out", "evil.tar")


def as_upper_layer(folder: Path, members: Entries) -> None:
    """One member of an archive each: what is hostile together is so over two of them too."""
    layers = [written(folder / f"{number}.tar", [member]) for number, member in enumerate(members)]
    try:
        unpack_root(layers, folder / "out", "evil.tar")
    finally:
        for layer in layers:
            layer.unlink()
        (folder / "evil.tar").touch()


def below(top: str, members: Entries) -> Entries:
    for info, _ in members:
        if not info.name.startswith("/"):
            info.name = f"{top}/{info.name}"
        if info.islnk() and not info.linkname.startswith(("/", "..")):
            info.linkname = f"{top}/{info.linkname}"
    return members


Unpack = Callable[[Path, Entries], None]
HOSTILE: list[tuple[Callable[[], Entries], str]] = [
    (lambda: [entry("../evil")], "leads out"),
    (lambda: [entry("a/../../evil")], "leads out"),
    (lambda: [entry("/tmp/evil")], "leads out"),
    (lambda: [entry("..")], "leads out"),
    (lambda: [entry("a/" * 500_000 + "b")], "a name of 10000.. characters"),
    (lambda: [entry("d", tarfile.DIRTYPE), entry("d/../..", tarfile.DIRTYPE)], "leads out"),
    (lambda: [entry("a", tarfile.SYMTYPE, link="/etc"), entry("a/evil")], "neither|below a file"),
    (lambda: [entry("a", tarfile.SYMTYPE, link=".."), entry("a/b/evil", tarfile.DIRTYPE)], "neither|below a file"),
    (lambda: [entry("a", tarfile.SYMTYPE, link="/etc/passwd"), entry("a")], "neither|stands where"),
    (lambda: [entry("a", tarfile.SYMTYPE, link="/etc"), entry("a", tarfile.DIRTYPE)], "neither|stands where"),
    (lambda: [entry("a", tarfile.LNKTYPE, link="/etc/passwd")], "neither|leads out"),
    (lambda: [entry("a", tarfile.LNKTYPE, link="../evil.tar")], "neither|leads out"),
    (lambda: [entry("a", tarfile.LNKTYPE, link="b"), entry("b")], "neither|no file before"),
    (
        lambda: [entry("a", tarfile.SYMTYPE, link="/etc/passwd"), entry("b", tarfile.LNKTYPE, link="a"), entry("b")],
        "neither|no file before",
    ),
    (lambda: [entry("b"), entry("a", tarfile.LNKTYPE, link="b"), entry("a")], "neither|stands where|no file before"),
    (lambda: [entry("a", tarfile.CHRTYPE)], "neither"),
    (lambda: [entry("a", tarfile.BLKTYPE)], "neither"),
    (lambda: [entry("a", tarfile.FIFOTYPE)], "neither"),
    (lambda: [entry("a", tarfile.GNUTYPE_SPARSE)], "neither|damaged"),
    (lambda: [entry("a"), entry("a")], "stands where"),
    (lambda: [entry("a"), entry("./a", tarfile.DIRTYPE)], "stands where"),
    (lambda: [entry("a"), entry("a/b")], "below a file"),
    (lambda: [entry("a/b"), entry("a")], "below a file"),
    (lambda: [entry(".")], "stands where"),
]


@pytest.mark.parametrize("unpack", [as_tree, as_output, as_root, as_upper_layer])
@pytest.mark.parametrize(("members", "words"), HOSTILE)
def test_hostile_tars_are_refused_before_anything_is_written(
    tmp_path: Path, unpack: Unpack, members: Callable[[], Entries], words: str
) -> None:
    with pytest.raises(SourceError, match=words):
        unpack(tmp_path / "in", [entry("innocent"), *members()])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["evil.tar", "in"]


@pytest.mark.parametrize("unpack", [as_tree, as_output])
@pytest.mark.parametrize("link", ["innocent", "..", "/etc"])
def test_symbolic_links_are_for_roots_alone(tmp_path: Path, unpack: Unpack, link: str) -> None:
    with pytest.raises(SourceError, match="'(out/)?a' is neither"):
        unpack(tmp_path / "in", [entry("innocent"), entry("a", tarfile.SYMTYPE, link=link)])


def test_what_a_build_left_is_a_folder(tmp_path: Path) -> None:
    """And neither a file nor a link of that name, nor anything beside it."""
    for info, content in (entry("out"), entry("out", tarfile.SYMTYPE, link="/etc"), entry("outside")):
        with tarfile.open(written(tmp_path / "evil.tar", [(info, content)])) as tar:
            (tmp_path / "out").mkdir(exist_ok=True)
            with pytest.raises(SourceError, match="does not lie below out|neither"):
                unpack_below(tar, "out", tmp_path / "out", "evil.tar")
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.REGTYPE])
def test_a_root_has_folders_to_mount_on(tmp_path: Path, kind: bytes) -> None:
    """Made here, by whoever unpacks it; through a link of the image that would be anywhere."""
    members = [entry("opt", kind, link=str(tmp_path / "elsewhere"))]
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(SourceError, match="'opt/cache' lies below a file"):
        unpack_root([written(tmp_path / "evil.tar", members)], tmp_path / "out", "evil.tar", ["opt/cache"])
    with pytest.raises(SourceError, match="'opt' stands where"):
        unpack_root([written(tmp_path / "evil.tar", members)], tmp_path / "out", "evil.tar", ["opt"])
    assert not any((tmp_path / "elsewhere").iterdir())
    unpack_root([written(tmp_path / "good.tar", [entry("opt/x")])], tmp_path / "out", "good.tar", ["opt/cache", "tmp"])
    assert (tmp_path / "out" / "opt" / "cache").is_dir()


def test_a_root_is_what_its_layers_say(tmp_path: Path) -> None:
    """Links, modes and all, whatever the umask; special bits and others' right to write are dropped."""
    modes = {
        "usr/bin/sh": 0o755,
        "usr/bin/su": 0o6755,
        "etc/shadow": 0o640,
        "tmp": 0o1777,
        "usr/lib": 0o555,
        "x": 0o022,
    }
    lower = [entry("usr/lib", tarfile.DIRTYPE), entry("tmp", tarfile.DIRTYPE)]
    lower += [entry(name) for name in ("usr/bin/sh", "usr/bin/su", "etc/shadow", "x")]
    lower += [entry("bin", tarfile.SYMTYPE, link="usr/bin"), entry("mtab", tarfile.SYMTYPE, link="/proc/mounts")]
    lower += [entry("usr/bin/dash", tarfile.LNKTYPE, link="usr/bin/sh")]
    for info, _ in lower:
        info.mode = modes.get(info.name, 0o777)
    upper = [entry("usr", tarfile.DIRTYPE), entry("usr/lib/above")]
    layers = [written(tmp_path / "1.tar", lower), written(tmp_path / "2.tar", upper)]
    before = os.umask(0o077)
    try:
        unpack_root(layers, tmp_path / "out", "layers")
    finally:
        os.umask(before)
    out = tmp_path / "out"
    assert {name: stat.S_IMODE((out / name).stat().st_mode) for name in modes} == {
        "usr/bin/sh": 0o755,
        "usr/bin/su": 0o755,
        "etc/shadow": 0o640,
        "tmp": 0o755,
        "usr/lib": 0o755,
        "x": 0o600,
    }
    assert [os.readlink(out / name) for name in ("bin", "mtab")] == ["usr/bin", "/proc/mounts"]
    assert (out / "usr/bin/dash").samefile(out / "usr/bin/sh")
    assert (out / "bin/sh").read_bytes() == (out / "usr/lib/above").read_bytes() == b"evil"


def test_what_a_build_left_comes_over_as_it_is(tmp_path: Path) -> None:
    program, twin = entry("bin/tool"), entry("bin/twin", tarfile.LNKTYPE, link="bin/tool")
    program[0].mode = 0o4711
    as_output(tmp_path / "in", [program, twin, entry("empty", tarfile.DIRTYPE)])
    out = tmp_path / "in" / "out"
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == ["bin", "bin/tool", "bin/twin", "empty"]
    assert (out / "bin/twin").read_bytes() == b"evil"
    assert stat.S_IMODE((out / "bin/tool").stat().st_mode) == 0o711


@pytest.mark.parametrize("content", [b"", b"x" * 511, b"x" * 5000, b"\x1f\x8b" + b"x" * 2000])
def test_what_is_no_tar(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.tar").write_bytes(content)
    with pytest.raises(SourceError, match=r"t\.tar: damaged"):
        unpack_tree(tmp_path / "t.tar", tmp_path / "out", "t.tar")


def test_a_truncated_tar(tmp_path: Path) -> None:
    write_tree(tmp_path / "t", {"a": (b"x" * 5000, False)}, 1)
    pack_tree(tmp_path / "t", tmp_path / "t.tar")
    os.truncate(tmp_path / "t.tar", 2000)
    with pytest.raises(SourceError, match=r"t\.tar: damaged"):
        unpack_tree(tmp_path / "t.tar", tmp_path / "out", "t.tar")


def test_special_modes_are_dropped(tmp_path: Path) -> None:
    info, content = entry("su")
    info.mode = 0o6755
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.addfile(info, io.BytesIO(content))
    unpack_tree(tmp_path / "t.tar", tmp_path / "out", "t.tar")
    assert stat.S_IMODE((tmp_path / "out" / "su").stat().st_mode) == 0o555


# -- members ------------------------------------------------------------------------------------------------------

FILES = {
    "llm/SmolLM2-135M.Q4_1.gguf": b"weights" * 100,
    "llm/SmolLM2-135M.Q8_0.gguf": b"more",
    "llm/__init__.py": b"",
    "top.txt": b"top",
}


@pytest.fixture(params=["zip", "tar", "tar.gz", "tar.xz"])
def package(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"package.{request.param}"
    if request.param == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("llm/", "")
            for name, content in FILES.items():
                archive.writestr(name, content)
    else:
        mode = {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[request.param]
        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            for name, content in FILES.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            tar.addfile(*entry("llm/link.gguf", tarfile.SYMTYPE, link="/etc/passwd")[:1])
    return path


@pytest.mark.parametrize(
    "pattern", ["**/*Q4_1.gguf", "llm/*Q4_1.gguf", "*/SmolLM2-135M.Q4?1.gguf", "llm/SmolLM2-135M.Q4_1.gguf"]
)
def test_one_member_is_found(package: Path, pattern: str) -> None:
    with open_member(package, pattern, "package") as (member, content):
        assert (member.name, member.size) == ("llm/SmolLM2-135M.Q4_1.gguf", 700)
        assert content.read() == b"weights" * 100


def test_no_member_lists_near_candidates(package: Path) -> None:
    with (
        pytest.raises(SourceError, match="package: no member matches") as caught,
        open_member(package, "**/SmolLM-135M.Q4_1.gguf", "package"),
    ):
        pass
    assert caught.value.hint is not None and "llm/SmolLM2-135M.Q4_1.gguf" in caught.value.hint
    assert "__init__" not in caught.value.hint


def test_several_members_are_listed(package: Path) -> None:
    with (
        pytest.raises(SourceError, match=r"2 members match.*Q4_1\.gguf, llm/SmolLM2-135M\.Q8_0\.gguf"),
        open_member(package, "**/*.gguf", "p"),
    ):
        pass


def test_links_are_no_members(package: Path) -> None:
    with pytest.raises(SourceError, match="no member"), open_member(package, "**/link.gguf", "p"):
        pass


@pytest.mark.parametrize("damage", ["truncate", "flip", "noise"])
def test_a_damaged_package(package: Path, damage: str) -> None:
    content = bytearray(package.read_bytes())
    if damage == "truncate":
        package.write_bytes(content[: min(len(content) // 3, 900)])
    elif damage == "noise":
        package.write_bytes(random.Random(1).randbytes(3000))
    else:
        content[60] ^= 0xFF
        package.write_bytes(content)
    try:
        with open_member(package, "**/*Q4_1.gguf", "package") as (_, file):
            assert damage == "flip" and file.read() != b""  # a plain tar has no checksum over contents
    except SourceError as error:
        assert str(error).startswith("package: ")


def test_an_encrypted_member(tmp_path: Path) -> None:
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "x")
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(SourceError, match="encrypted"), open_member(path, "a", "p"):
        pass


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("**/x", ["x", "a/x", "a/b/x"], ["ax", "x/a"]),
        ("*.c", ["a.c", ".c"], ["a/b.c"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a"]),
        ("?[ab]", ["xa", "xb"], ["xc", "/a"]),
        ("[!a]", ["b"], ["a", "/"]),
        ("[]]", ["]"], ["a"]),
        ("[a-c]x", ["bx"], ["dx", "-x"]),
        ("a+(b).{1}", ["a+(b).{1}"], ["aab"]),
        ("[", ["["], ["a"]),
        ("a**/b", ["ab", "ax/b", "a/x/b"], ["axb", "a"]),
        ("**a*b", ["ab", "x/a/aXb"], ["a/b", "b"]),
        ("**/**/x", ["x", "a/x"], ["ax"]),
    ],
)
def test_globs(pattern: str, yes: list[str], no: list[str]) -> None:
    glob = Glob(pattern)
    assert [glob.matches(name) for name in yes + no] == [True] * len(yes) + [False] * len(no)


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(SourceError, match="not a pattern"):
        Glob("[z-a]")


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_pattern_or_refused(pattern: str, name: str) -> None:
    try:
        Glob(pattern).matches(name)
    except SourceError as error:
        assert "not a pattern" in str(error)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", ["**/" * 16 + "x", "*a" * 14 + "x", "**a" * 14 + "x", "**/*" * 20 + "x"])
def test_a_pattern_is_matched_in_one_pass(pattern: str) -> None:
    assert not any(Glob(pattern).matches(name) for name in ["a/" * 500, "a" * 1000, "/" * 1000])


@pytest.mark.timeout(60)
def test_names_that_are_nearly_right_are_looked_for_among_some_only(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as package:
        for number in range(200):
            package.writestr(f"{number}" + "ab" * 30_000, b"")
    with (
        pytest.raises(SourceError, match="no member matches"),
        open_member(tmp_path / "p.zip", "ba" * 500, "package"),
    ):
        pass


@given(st.text("ab/*", max_size=8), st.text("ab/", max_size=8))
def test_a_glob_takes_what_its_regular_expression_takes(pattern: str, name: str) -> None:
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*/|\*\*|\*)", pattern)
    expected = re.fullmatch("".join(tokens.get(part, part) for part in parts), name, re.DOTALL)
    assert Glob(pattern).matches(name) == bool(expected)
