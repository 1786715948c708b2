"""The virtual iPhone's packets: what is written can be read, and what a stranger writes cannot surprise."""

from __future__ import annotations

import contextlib
import plistlib
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltrepro.lab.iphone import afc, archive, dtx, frames
from meltrepro.lab.iphone.frames import Malformed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def _refuses(read: Callable[[bytes], Any], data: bytes) -> None:
    """Either it is understood or it is `Malformed`; nothing else comes out."""
    with contextlib.suppress(Malformed):
        read(data)


# -- usbmuxd ------------------------------------------------------------------------------------------------------------


def test_a_packet_of_usbmuxd_has_its_whole_length_first() -> None:
    packet = frames.mux_packet({"MessageType": "Result", "Number": 0}, 7)
    assert struct.unpack("<IIII", packet[:16]) == (len(packet), 1, 8, 7)
    assert plistlib.loads(packet[16:]) == {"MessageType": "Result", "Number": 0}
    assert frames.mux_length(packet[:16]) == len(packet) - 16
    assert frames.read_mux(packet[:16], packet[16:]) == frames.MuxPacket(8, 7, {"MessageType": "Result", "Number": 0})


@pytest.mark.parametrize("length", [0, 15, 2**32 - 1])
def test_a_length_that_cannot_be_is_malformed(length: int) -> None:
    with pytest.raises(Malformed):
        frames.mux_length(struct.pack("<IIII", length, 1, 8, 1))


def test_a_packet_of_the_binary_protocol_has_no_body() -> None:
    assert frames.read_mux(struct.pack("<IIII", 20, 0, 3, 1), b"\1\2\3\4") == frames.MuxPacket(3, 1, {})


# -- property lists -----------------------------------------------------------------------------------------------------


def test_a_property_list_stands_behind_its_length() -> None:
    data = frames.service_plist({"Request": "QueryType"})
    assert frames.service_length(data[:4]) == len(data) - 4
    assert frames.read_plist(data[4:]) == {"Request": "QueryType"}


def test_hosts_may_send_property_lists_in_binary() -> None:
    assert frames.read_plist(plistlib.dumps({"a": 1}, fmt=plistlib.FMT_BINARY)) == {"a": 1}


def test_a_property_list_must_be_a_dictionary() -> None:
    with pytest.raises(Malformed, match="list"):
        frames.read_plist(plistlib.dumps([1]))


def test_a_property_list_that_would_fill_the_memory_is_malformed() -> None:
    with pytest.raises(Malformed):
        frames.service_length(b"\xff\xff\xff\xff")


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: b"bplist00" + data))
def test_any_bytes_are_a_property_list_or_malformed(data: bytes) -> None:
    _refuses(frames.read_plist, data)


@given(st.data())
def test_a_damaged_property_list_is_one_or_malformed(data: st.DataObject) -> None:
    whole = bytearray(
        plistlib.dumps({"a": [1, "b", b"c", {"d": 2.5}]}, fmt=data.draw(st.sampled_from(plistlib.PlistFormat)))
    )
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    _refuses(frames.read_plist, bytes(whole))


# -- files --------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=60), st.binary(max_size=60))
def test_a_file_operation_is_read_as_it_was_written(
    number: int, operation: int, arguments: bytes, payload: bytes
) -> None:
    packet = frames.afc_packet(number, operation, arguments, payload)
    assert packet.startswith(b"CFA6LPAA")
    header = frames.read_afc(packet[:40])
    assert (header.number, header.operation) == (number, operation)
    assert (header.arguments, header.payload) == (len(arguments), len(payload))
    assert packet[40:] == arguments + payload


@given(
    st.binary(min_size=40, max_size=40) | st.binary(min_size=32, max_size=32).map(lambda rest: frames.AFC_MAGIC + rest)
)
def test_any_header_of_a_file_operation_has_lengths_that_fit_or_is_malformed(data: bytes) -> None:
    try:
        header = frames.read_afc(data)
    except Malformed:
        return
    assert 0 <= header.arguments <= frames.LARGEST_PLIST and header.payload >= 0


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_strings_end_with_zeros(texts: list[str]) -> None:
    assert frames.strings(frames.zero_ended(*texts)) == texts


@given(st.binary())
def test_any_bytes_are_strings(data: bytes) -> None:
    assert b"\0".join(text.encode("utf-8", "surrogateescape") for text in frames.strings(data)) == data.removesuffix(
        b"\0"
    )


def test_numbers_of_operations_are_the_protocols() -> None:
    assert (afc.Op.open, afc.Op.opened, afc.Op.write, afc.Op.rename) == (
        0x0D,
        0x0E,
        0x10,
        0x18,
    )
    assert (afc.Status.not_found, afc.Status.denied, afc.Status.no_space) == (8, 10, 18)


# -- archives -----------------------------------------------------------------------------------------------------------


@given(VALUES)
def test_an_archive_is_read_as_it_was_written(value: Any) -> None:
    assert archive.unpack(archive.pack(value)) == value


def test_an_archive_has_cocoas_form() -> None:
    known = plistlib.loads(archive.pack({"a": [1]}))
    assert (known["$archiver"], known["$version"], known["$objects"][0]) == ("NSKeyedArchiver", 100000, "$null")
    root = known["$objects"][known["$top"]["root"].data]
    assert known["$objects"][root["$class"].data]["$classname"] == "NSDictionary"
    assert known["$objects"][root["NS.keys"][0].data] == "a"


def test_an_error_keeps_its_text_and_cause() -> None:
    error = archive.Error("domain", 3, "why", archive.Error("deeper", 7, "really"))
    assert archive.unpack(archive.pack(error)) == archive.Error("domain", 3, "why")
    assert b"really" in archive.pack(error)


def test_an_archive_that_holds_itself_is_malformed() -> None:
    objects = ["$null", {"NS.objects": [plistlib.UID(1)], "$class": plistlib.UID(2)}, {"$classname": "NSArray"}]
    data = plistlib.dumps({"$top": {"root": plistlib.UID(1)}, "$objects": objects}, fmt=plistlib.FMT_BINARY)
    with pytest.raises(Malformed, match="too deep"):
        archive.unpack(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_archive_or_malformed(data: bytes) -> None:
    _refuses(archive.unpack, data)


@given(st.data())
def test_a_damaged_archive_is_one_or_malformed(data: st.DataObject) -> None:
    whole = bytearray(archive.pack({"a": [1, None, {"b": b"c"}], "d": True}))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    _refuses(archive.unpack, bytes(whole))


# -- DTX ----------------------------------------------------------------------------------------------------------------


def _read(data: bytes) -> dtx.Message | None:
    fragment, more = dtx.read_fragment(data[:32])
    assert more == 0
    return dtx.Assembly().add(fragment, data[32:])


@given(
    st.sampled_from([dtx.Kind.call, dtx.Kind.value, dtx.Kind.ok]),
    st.integers(-(2**31), 2**31 - 1),
    st.text(min_size=1),
    st.lists(VALUES, max_size=3),
    st.booleans(),
)
def test_a_message_is_read_as_it_was_written(
    kind: dtx.Kind, channel: int, value: str, arguments: list[Any], asks: bool
) -> None:
    message = dtx.Message(kind, channel, value, tuple(arguments), 5, 0, asks)
    assert _read(dtx.write_message(message)) == message


def _with_plain_number() -> bytes:
    """A call as clients send it: of its arguments, a number is not archived."""
    packed, name = archive.pack(["b", None, {"y": 1}]), archive.pack("a:b:")
    row = struct.pack("<IIi", 10, 3, -3) + struct.pack("<III", 10, 2, len(packed)) + packed
    arguments = struct.pack("<IIQ", 0x1F0, 0, len(row)) + row
    return struct.pack("<IIII", dtx.Kind.call, len(arguments), len(arguments) + len(name), 0) + arguments + name


def test_plain_numbers_are_arguments_too() -> None:
    data = _with_plain_number()
    read = dtx.read_message(dtx.Fragment(0, 1, len(data), 1, 0, 1, True), data)
    assert read.value == "a:b:" and read.arguments == (-3, ["b", None, {"y": 1}])


def test_an_answer_belongs_to_its_question() -> None:
    question = dtx.Message(dtx.Kind.call, 4, "a", (), 9, 0, True)
    assert question.answer() == dtx.Message(dtx.Kind.ok, 4, None, (), 9, 1)
    assert question.answer(7).kind is dtx.Kind.value
    assert question.answer(archive.Error("d", 1, "t")).kind is dtx.Kind.error


@given(st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_a_message_in_parts_is_the_same_message(sizes: list[int]) -> None:
    message = dtx.Message(dtx.Kind.call, 2, "launch", ("org.example", {"A": "b" * 200}), 6, 0, True)
    whole = dtx.write_message(message)[32:]
    bodies, place = [], 0
    for size in sizes:
        bodies.append(whole[place : place + size])
        place += size
    bodies.append(whole[place:])
    count = len(bodies) + 1
    parts = dtx.Assembly()
    header = dtx.FRAGMENT.pack(dtx.MAGIC, 32, 0, count, len(whole), 6, 0, 2, 1)
    first, _ = dtx.read_fragment(header)
    assert first.body == 0 and parts.add(first, b"") is None
    for index, body in enumerate(bodies, start=1):
        fragment, _ = dtx.read_fragment(dtx.FRAGMENT.pack(dtx.MAGIC, 32, index, count, len(body), 6, 0, 2, 1))
        assert fragment.body == len(body)
        found = parts.add(fragment, body)
        assert (found is None) == (index < count - 1)
    assert found == message


@pytest.mark.parametrize(
    "header",
    [
        (0, 32, 0, 1, 16, 1, 0, 0, 0),
        (dtx.MAGIC, 31, 0, 1, 16, 1, 0, 0, 0),
        (dtx.MAGIC, 32, 1, 1, 16, 1, 0, 0, 0),
        (dtx.MAGIC, 32, 0, 1, 2**31, 1, 0, 0, 0),
    ],
    ids=["magic", "short", "part", "large"],
)
def test_a_header_that_cannot_be_is_malformed(header: tuple[int, ...]) -> None:
    with pytest.raises(Malformed):
        dtx.read_fragment(dtx.FRAGMENT.pack(*header))


@given(st.binary(max_size=120))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    fragment = dtx.Fragment(0, 1, len(data), 1, 0, 0, False)
    _refuses(lambda raw: dtx.read_message(fragment, raw), data)


@given(st.data())
def test_a_damaged_message_is_one_or_malformed(data: st.DataObject) -> None:
    written = dtx.write_message(dtx.Message(dtx.Kind.call, 1, "a:b:", ("x", None, {"y": 1})))[32:]
    whole = bytearray(data.draw(st.sampled_from([written, _with_plain_number()])))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    fragment = dtx.Fragment(0, 1, len(whole), 1, 0, 1, True)
    _refuses(lambda raw: dtx.read_message(fragment, raw), bytes(whole))
