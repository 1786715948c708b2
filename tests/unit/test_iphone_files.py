"""The virtual iPhone's file service and its apps, without any client library: each operation, and the ways out of the root."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from meltrepro.lab.iphone.afc import AfcFiles, Op, Status
from meltrepro.lab.iphone.apps import Apps, PackageRefused
from meltrepro.lab.iphone.faults import Break, Faults, How
from meltrepro.lab.iphone.frames import AFC_HEADER, afc_packet, read_afc, strings, zero_ended
from meltrepro.lab.iphone.stream import Mishaps, Stream, StreamEnded
from tests.support.iphones import ios_package


class Client:
    """Speaks to one folder's file service, word by word."""

    def __init__(self, root: Path, only: str = "") -> None:
        self.root = root
        self.mishaps = Mishaps()
        here, there = socket.socketpair()
        here.settimeout(10)
        self.socket = here
        self._stream = Stream(there, self.mishaps, "files")
        self._thread = threading.Thread(target=self._serve, args=(AfcFiles(root, self.mishaps, only),))
        self._thread.start()
        self._number = 0

    def _serve(self, files: AfcFiles) -> None:
        with contextlib.suppress(StreamEnded):
            files.serve(self._stream)

    def close(self) -> None:
        self.socket.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def ask(self, operation: int, arguments: bytes = b"", payload: bytes = b"") -> tuple[int, bytes]:
        """The operation of the answer, and what it has."""
        self._number += 1
        self.socket.sendall(afc_packet(self._number, operation, arguments, payload))
        header = read_afc(self._read(AFC_HEADER.size))
        assert header.number == self._number
        return header.operation, self._read(header.arguments + header.payload)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            assert piece, "it hung up"
            data += piece
        return data

    def do(self, operation: int, *arguments: int | str, payload: bytes = b"") -> Status:
        """How an operation ended."""
        kind, answer = self.ask(operation, _pack(*arguments), payload)
        assert kind == Op.status
        return Status(struct.unpack("<Q", answer)[0])

    def get(self, operation: int, *arguments: int | str) -> bytes:
        """What an operation yields."""
        kind, answer = self.ask(operation, _pack(*arguments))
        assert kind in (Op.data, Op.opened, Op.told), Status(struct.unpack("<Q", answer)[0])
        return answer

    def open(self, name: str, mode: int) -> int:
        return int(struct.unpack("<Q", self.get(Op.open, mode, name))[0])


def _pack(*arguments: int | str) -> bytes:
    return b"".join(
        struct.pack("<Q", each % 2**64) if isinstance(each, int) else zero_ended(each) for each in arguments
    )


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Client]:
    root = tmp_path / "root"
    root.mkdir()
    client = Client(root)
    yield client
    client.close()


def test_a_file_is_written_and_read_at_any_place(files: Client) -> None:
    handle = files.open("/a", 4)
    assert files.do(Op.write, handle, payload=b"0123456789") is Status.success
    assert files.do(Op.seek, handle, os.SEEK_SET, 2) is Status.success
    assert files.do(Op.write, handle, payload=b"ab") is Status.success
    assert struct.unpack("<Q", files.get(Op.tell, handle)) == (4,)
    assert files.get(Op.read, handle, 3) == b"456"
    assert files.do(Op.seek, handle, os.SEEK_END, -1) is Status.success
    assert files.get(Op.read, handle, 100) == b"9"
    assert files.get(Op.read, handle, 100) == b""
    assert files.do(Op.set_size, handle, 5) is Status.success
    assert files.do(Op.close, handle) is Status.success
    assert files.do(Op.close, handle) is Status.bad_argument
    assert (files.root / "a").read_bytes() == b"01ab4"


@pytest.mark.parametrize(
    ("mode", "written", "expected"),
    [
        (2, b"new", b"newold"),
        (3, b"new", b"new"),
        (4, b"new", b"new"),
        (5, b"new", b"oldoldnew"),
        (6, b"new", b"oldoldnew"),
    ],
)
def test_ways_to_open(files: Client, mode: int, written: bytes, expected: bytes) -> None:
    (files.root / "a").write_bytes(b"oldold")
    handle = files.open("a", mode)
    assert files.do(Op.write, handle, payload=written) is Status.success
    assert (files.root / "a").read_bytes() == expected


def test_what_is_not_there_and_what_cannot_be(files: Client) -> None:
    (files.root / "folder/inner").mkdir(parents=True)
    (files.root / "file").write_text("x")
    assert files.do(Op.open, 1, "nothing") is Status.not_found
    assert files.do(Op.open, 1, "folder") is Status.is_folder
    assert files.do(Op.open, 9, "file") is Status.bad_argument
    assert files.do(Op.read_folder, "nothing") is Status.not_found
    assert files.do(Op.read_folder, "file") is Status.not_found
    assert files.do(Op.remove, "folder") is Status.not_empty
    assert files.do(Op.remove, "/") is Status.denied
    assert files.do(Op.remove_all, "/") is Status.denied
    assert files.do(Op.read, 77, 1) is Status.bad_argument
    assert files.do(Op.write, 77, payload=b"lost" * 1000) is Status.bad_argument
    assert files.do(Op.read_folder) is Status.bad_argument
    assert files.do(Op.rename, "file") is Status.bad_argument
    assert files.do(0x7777, "file") is Status.unsupported
    assert files.do(Op.remove_all, "folder") is Status.success
    assert sorted(os.listdir(files.root)) == ["file"]


def test_folders_names_and_times(files: Client) -> None:
    assert files.do(Op.make_folder, "a/b c/ü") is Status.success
    assert strings(files.get(Op.read_folder, "a/b c")) == [".", "..", "ü"]
    (files.root / "a/x").write_bytes(b"12345")
    assert files.do(Op.set_time, 1_700_000_000 * 10**9, "a/x") is Status.success
    told = strings(files.get(Op.file_info, "a/x"))
    info = dict(zip(told[::2], told[1::2], strict=True))
    assert (info["st_size"], info["st_ifmt"], info["st_mtime"]) == ("5", "S_IFREG", str(1_700_000_000 * 10**9))
    assert files.do(Op.rename, "a/x", "a/y") is Status.success
    assert files.do(Op.truncate, 2, "a/y") is Status.success
    assert (files.root / "a/y").read_bytes() == b"12"


@pytest.mark.parametrize("name", ["../secret", "/../../secret", "a/../../secret", "link/secret", "there"])
def test_there_is_no_way_out(files: Client, name: str) -> None:
    secret = files.root.parent / "secret"
    secret.write_text("secret")
    (files.root / "link").symlink_to("..")
    (files.root / "there").symlink_to("../secret")
    (files.root / "a").mkdir()
    files.ask(Op.open, _pack(2, name))  # refused, or a file of that name inside
    files.do(Op.write, 1, payload=b"changed")
    files.do(Op.truncate, 0, name)
    files.do(Op.rename, name, "taken")
    files.do(Op.remove_all, name)
    assert secret.read_text() == "secret"


def test_links_stay_inside(files: Client) -> None:
    (files.root / "a").write_text("a")
    assert files.do(Op.link, 2, "a", "inside") is Status.success
    assert files.do(Op.link, 2, "../secret", "outside") is Status.denied
    assert files.do(Op.link, 2, "/etc/passwd", "outside") is Status.denied
    told = strings(files.get(Op.file_info, "inside"))
    assert told[told.index("LinkTarget") + 1] == "a"
    (files.root / "loop").symlink_to("loop")
    assert files.do(Op.open, 1, "loop") in (Status.denied, Status.io)


def test_a_window_of_the_container(tmp_path: Path) -> None:
    for name in ("Documents", "Library"):
        (tmp_path / name).mkdir()
    client = Client(tmp_path, only="Documents")
    assert client.do(Op.make_folder, "Documents/a") is Status.success
    for name in ("/", "Library", "Documents/../Library", "DocumentsX"):
        assert client.do(Op.read_folder, name) is Status.denied
    client.close()


def test_a_full_storage_takes_no_byte_more_and_keeps_the_connection(files: Client) -> None:
    files.mishaps.set(Faults(free=10))
    handle = files.open("a", 3)
    assert files.do(Op.write, handle, payload=b"12345678") is Status.success
    assert files.do(Op.write, handle, payload=b"x" * 100_000) is Status.no_space
    told = strings(files.get(Op.device_info))
    assert told[told.index("FSFreeBytes") + 1] == "2"
    assert files.do(Op.write, handle, payload=b"90") is Status.success
    assert (files.root / "a").read_bytes() == b"1234567890"


def test_what_is_lost_is_acknowledged(files: Client) -> None:
    files.mishaps.set(Faults(keeps=5))
    handle = files.open("a", 3)
    assert files.do(Op.write, handle, payload=b"1234") is Status.success
    assert files.do(Op.write, handle, payload=b"5678") is Status.success
    assert (files.root / "a").read_bytes() == b"12345"


def test_a_break_happens_at_its_message_and_so_often() -> None:
    mishaps = Mishaps()
    mishaps.set(Faults(breaks=(Break("files", How.cut, message=2, times=2),)))
    assert [mishaps.strike("files", number) for number in (1, 2, 3, 2, 2)] == [None, How.cut, None, How.cut, None]
    assert mishaps.strike("others", 2) is None
    mishaps.set(mishaps.now)
    assert mishaps.strike("files", 2) is How.cut, "set anew, it counts anew"


# -- packages -----------------------------------------------------------------------------------------------------------


def test_a_package_becomes_an_app(tmp_path: Path) -> None:
    ipa = ios_package(tmp_path / "a.ipa", "org.example.a", "run", {"run": b"#!/bin/sh\n", "data/x": b"1"})
    installed = Apps(tmp_path / "apps")
    app = installed.install(ipa)
    assert installed.get("org.example.a") == app == installed.all()[0]
    assert os.access(app.program[0], os.X_OK)
    assert (tmp_path / "apps/org.example.a/bundle/data/x").read_bytes() == b"1"
    (app.documents / "kept").write_text("kept")
    assert (installed.install(ipa).documents / "kept").exists(), "an update keeps what the app has stored"
    broken = ios_package(tmp_path / "b.ipa", "org.example.a", "run", {"other": b""})
    with pytest.raises(PackageRefused):
        installed.install(broken)
    assert os.access(app.program[0], os.X_OK), "what is not taken changes nothing"
    assert installed.remove("org.example.a") and not installed.remove("org.example.a")
    assert installed.all() == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"../../../escaped": b""}, "PackageExtractionFailed"),
        ({"embedded.mobileprovision": None}, "ApplicationVerificationFailed"),
        ({"Info.plist": None}, "MissingInfoPlist"),
        ({"Info.plist": b"nonsense"}, "PackageExtractionFailed"),
        ({"run": None}, "MissingBundleExecutable"),
    ],
)
def test_a_package_that_is_not_taken(tmp_path: Path, files: dict[str, bytes | None], said: str) -> None:
    whole = ios_package(tmp_path / "whole.ipa", "org.example.a", "run", {"run": b""})
    ipa = tmp_path / "a.ipa"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(ipa, "w") as sink:
        contents: dict[str, bytes | None] = {
            name.removeprefix("Payload/org.example.a.app/"): source.read(name) for name in source.namelist()
        }
        for name, data in (contents | files).items():
            if data is not None:
                sink.writestr(f"Payload/org.example.a.app/{name}", data)
    installed = Apps(tmp_path / "apps")
    with pytest.raises(PackageRefused, match=said):
        installed.install(ipa)
    assert installed.all() == []
    assert not (tmp_path / "escaped").exists() and not (tmp_path / "apps/escaped").exists()


@pytest.mark.parametrize("identifier", ["", "..", "a/b", ".hidden", "../../etc"])
def test_an_identifier_is_no_path(tmp_path: Path, identifier: str) -> None:
    installed = Apps(tmp_path / "apps")
    assert installed.get(identifier) is None
    with pytest.raises(ValueError):
        installed.put(identifier, ["/bin/true"])
