"""A model file that is written anew holds what its source holds, read by another library; what differs is an error."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import gguf as library
import pytest

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp.untie import compare, untie
from tests.support.ggufs import (
    ARRAY,
    BOOL,
    DOUBLE,
    F32,
    I8,
    I16,
    I32,
    I64,
    Q4_0,
    REAL,
    STRING,
    TIED,
    U8,
    U16,
    U32,
    U64,
    Value,
    gguf,
    numbers,
    payload,
    text,
)


def tensors(path: Path) -> dict[str, tuple[object, ...]]:
    """Every tensor as gguf's own reader sees it."""
    return {
        each.name: (each.tensor_type, each.shape.tolist(), each.data.tobytes())
        for each in library.GGUFReader(path).tensors
    }


def rewritten(folder: Path, content: bytes) -> tuple[Path, Path]:
    source, copy = folder / "source.gguf", folder / "copy.gguf"
    source.write_bytes(content)
    assert untie(source, copy)
    return source, copy


@pytest.mark.parametrize("alignment", [1, 2, 4, 8, 16, 32, 64, 128, 4096])
def test_every_tensor_of_a_copy_is_that_of_its_source_whatever_the_alignment(tmp_path: Path, alignment: int) -> None:
    source, copy = rewritten(tmp_path, gguf(tensors=TIED, alignment=alignment))
    before, after = tensors(source), tensors(copy)
    assert after.pop("output.weight") == before["token_embd.weight"]
    assert after == before
    reader = library.GGUFReader(copy)
    assert all(int(each.data_offset) % alignment == 0 for each in reader.tensors)
    assert reader.alignment == alignment


def test_an_alignment_that_is_written_though_it_is_the_usual_one(tmp_path: Path) -> None:
    source, copy = rewritten(tmp_path, gguf({"general.alignment": (U32, 32)}, TIED))
    assert tensors(copy).keys() == tensors(source).keys() | {"output.weight"}


VALUES: dict[str, Value] = {
    "a.u8": (U8, 255),
    "a.i8": (I8, -128),
    "a.u16": (U16, 65535),
    "a.i16": (I16, -32768),
    "a.u32": (U32, 2**32 - 1),
    "a.i32": (I32, -(2**31)),
    "a.u64": (U64, 2**64 - 1),
    "a.i64": (I64, -(2**63)),
    "a.float": (REAL, 0.1),
    "a.double": (DOUBLE, 0.1),
    "a.nan": (REAL, float("nan")),
    "a.true": (BOOL, True),
    "a.text": (STRING, "ä\n\0\u2028"),
    "a.empty": (STRING, ""),
    "a.bytes": (STRING, b"\xff\xfe\x80"),
    "a.long": (STRING, "x" * 100_000),
    "a.texts": (ARRAY, (STRING, ["a", "", b"\xc3", "b" * 3000])),
    "a.bools": (ARRAY, (BOOL, [True, False, True])),
    "a.doubles": (ARRAY, (DOUBLE, [0.1, float("inf")])),
    "a.u64s": (ARRAY, (U64, [0, 2**64 - 1])),
    "tokenizer.ggml.tokens": (ARRAY, (STRING, [f"token{i}" for i in range(70_000)])),
    **{
        f"none.{kind}": (ARRAY, (kind, []))
        for kind in (U8, I8, U16, I16, U32, I32, REAL, BOOL, STRING, U64, I64, DOUBLE)
    },
}


def raw(content: bytes, key: str) -> bytes:
    """A value as it stands in a file, with its type."""
    kind, value = VALUES[key]
    written = text(key) + struct.pack("<I", kind) + payload(kind, value)
    return written if written in content else b""


@pytest.mark.parametrize("alignment", [16, 32])
def test_every_kind_of_value_is_kept_byte_by_byte(tmp_path: Path, alignment: int) -> None:
    """Also what is empty, and what is no text in any encoding."""
    _, copy = rewritten(tmp_path, gguf(VALUES, TIED, alignment=alignment))
    content = copy.read_bytes()
    assert [key for key in VALUES if not raw(content, key)] == []
    with copy.open("rb") as file:
        count = struct.unpack("<IIQQ", file.read(24))[3]
    assert count == len(VALUES) + 1 + (alignment != 32)


def test_an_empty_array_is_no_fault(tmp_path: Path) -> None:
    """As converters leave `general.tags` where a model has none."""
    _, copy = rewritten(tmp_path, gguf({"general.tags": (ARRAY, (STRING, []))}, TIED[:1]))
    assert "general.tags" in library.GGUFReader(copy).fields


def test_the_same_bytes_as_ever_come_out(tmp_path: Path) -> None:
    """They are part of the identity of models, which locks name."""
    values: dict[str, Value] = {
        "llama.context_length": (U32, 128),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, ["a", "b", "ä"])),
        "tokenizer.ggml.scores": (ARRAY, (REAL, [0.5, 1.5, 2.5])),
        "tokenizer.ggml.add_bos_token": (BOOL, True),
    }
    quantized = ("blk.0.ffn_up.weight", (64, 3), Q4_0, bytes(range(108)))
    for version in (2, 3):
        _, copy = rewritten(tmp_path, gguf(values, [*TIED, quantized], version=version))
        digest = hashlib.sha256(copy.read_bytes()).hexdigest()
        assert digest == "13bfddc9ae99975d125cade142080c81158f93354ca9b61e1a35bb8d5da2fb35"


def test_the_architecture_comes_first_wherever_the_source_has_it(tmp_path: Path) -> None:
    content = gguf({"a": (U8, 1), "general.architecture": (STRING, "llama")}, TIED, architecture=None)
    _, copy = rewritten(tmp_path, content)
    assert copy.read_bytes()[24:].startswith(text("general.architecture"))


# -- what is compared -------------------------------------------------------------------------------------------------


def changed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new, 1)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (changed(numbers(9, 100), numbers(9, 101)), "the tensor blk.0.attn_norm.weight has other numbers"),
        (
            changed(struct.pack("<IQQ", 2, 8, 5), struct.pack("<IQQ", 2, 5, 8)),
            "the tensor blk.0.attn_q.weight has another shape",
        ),
        (changed(b"attn_q", b"attn_k"), "one of them has no blk.0.attn_"),
        (changed(b"hello", b"hullo"), "the value of general.name is another"),
        (changed(b"general.name", b"general.nama"), "one of them has no general.nam"),
        (
            changed(struct.pack("<I", U16) + struct.pack("<H", 7), struct.pack("<I", I16) + struct.pack("<H", 7)),
            "the value of a.short",
        ),
        (lambda content: content[:-96] + numbers(24, 1), "the tensor output.weight has other numbers"),
    ],
)
def test_a_copy_that_differs_is_told(tmp_path: Path, fault: Callable[[bytes], bytes], said: str) -> None:
    values: dict[str, Value] = {"general.name": (STRING, "hello"), "a.short": (U16, 7)}
    source, copy = rewritten(tmp_path, gguf(values, TIED))
    compare(source, copy)
    wrong = fault(copy.read_bytes())
    assert wrong != copy.read_bytes()
    copy.write_bytes(wrong)
    with pytest.raises(ModelError, match=r"copy\.gguf is not a faithful copy of its source") as caught:
        compare(source, copy)
    assert said in caught.value.message
    assert caught.value.hint


def test_a_copy_that_is_cut_off_is_told(tmp_path: Path) -> None:
    source, copy = rewritten(tmp_path, gguf(tensors=TIED))
    copy.write_bytes(copy.read_bytes()[:-4])
    with pytest.raises(ModelError, match="truncated"):
        compare(source, copy)


def test_nothing_is_written_of_a_source_that_is_cut_off(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(gguf(tensors=TIED)[:-30])
    with pytest.raises(ModelError, match="truncated"):
        untie(source, tmp_path / "copy.gguf")
    assert not (tmp_path / "copy.gguf").exists()


def test_what_has_a_type_that_nobody_knows_is_not_copied(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(gguf(tensors=[("token_embd.weight", (8, 3), 77, numbers(24)), ("x", (8,), F32, numbers(8))]))
    with pytest.raises(ModelError, match=r"tensor token_embd.weight is \(type 77\)"):
        untie(source, tmp_path / "copy.gguf")
