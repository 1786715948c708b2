"""GGUF files from anywhere: what is no model is said to be none, in words and in time; what is one is kept as it is."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp.gguf import check, parameters, scan
from meltrepro.frameworks.llamacpp.header import TYPES
from meltrepro.frameworks.llamacpp.untie import untie
from tests.support.examples import examples

VOCABULARY = ["a", "b", "ä" * 20]


def model(path: Path, *, output: bool = False, architecture: str = "llama") -> bytes:
    """A small model as llama.cpp's own library writes it."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_token_list(VOCABULARY)
    writer.add_token_scores([0.5, 1.5, 2.5])
    for number, name in enumerate(["token_embd.weight", "blk.0.attn_q.weight", *(["output.weight"] if output else [])]):
        writer.add_tensor(name, np.arange(128, dtype=np.float32).reshape(4, 32) + number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return model(tmp_path_factory.mktemp("gguf") / "m.gguf")


def read(path: Path) -> tuple[dict[str, object], dict[str, bytes]]:
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return fields, {tensor.name: tensor.data.tobytes() for tensor in reader.tensors}


def test_the_output_matrix_is_written_out_and_nothing_else_changes(tmp_path: Path) -> None:
    model(tmp_path / "tied")
    assert untie(tmp_path / "tied", tmp_path / "untied")
    fields, tensors = read(tmp_path / "tied")
    assert read(tmp_path / "untied") == (fields, {**tensors, "output.weight": tensors["token_embd.weight"]})
    assert fields["tokenizer.ggml.tokens"] == VOCABULARY
    assert untie(tmp_path / "tied", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "untied").read_bytes()


def test_weights_are_counted(tmp_path: Path) -> None:
    model(tmp_path / "m", output=True)
    assert parameters(tmp_path / "m") == 3 * 128


def test_a_file_that_has_one_is_left_alone(tmp_path: Path) -> None:
    model(tmp_path / "m", output=True)
    assert not untie(tmp_path / "m", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04" + bytes(60), "is not a GGUF file: it begins with b'PK\\x03\\x04', expected b'GGUF'"),
        (b"", "is not a GGUF file: it begins with b''"),
        (b"<!DOCTYPE html><html>Sign in to download", "is not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(16), "is a GGUF file of version 1; versions 2 and 3 are supported"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "is a GGUF file of version 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "is a GGUF file without tensors, or a truncated one"),
        (b"GGUF" + struct.pack("<IQ", 3, 5), "is a GGUF file without tensors, or a truncated one"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        check(path)
    assert said in caught.value.message


def header(*, tensors: int = 1, pairs: int = 1, rest: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + rest + bytes(64)


KEY = struct.pack("<Q", 1) + b"k"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header(pairs=2**62), f"{2**62} entries in the 64 bytes that are left"),
        (header(tensors=2**40, pairs=0), f"{2**40} entries"),
        (header(rest=struct.pack("<Q", 2**63)), f"something of {2**63} bytes"),
        (header(rest=KEY + struct.pack("<IIQ", 9, 8, 2**40)), f"{2**40} entries"),
        (header(rest=KEY + struct.pack("<IIQ", 9, 6, 2**61)), "something of"),
        (header(rest=KEY + struct.pack("<IIQ", 9, 9, 1)), "an array of type 9"),
        (header(rest=KEY + struct.pack("<I", 99)), "a value of type 99"),
        (header(pairs=0, rest=KEY + struct.pack("<I", 77)), "a tensor of 77 dimensions"),
        (header(pairs=0, rest=KEY + struct.pack("<I", 0)), "a tensor of 0 dimensions"),
    ],
)
def test_counts_are_not_believed(tmp_path: Path, content: bytes, said: str) -> None:
    """A reader that believes one of them loops until its memory is used up."""
    path = tmp_path / "m"
    path.write_bytes(content)
    for reading in (scan, parameters, lambda path: untie(path, tmp_path / "out")):
        with pytest.raises(ModelError, match="truncated or damaged GGUF file") as caught:
            reading(path)
        assert said in caught.value.message
        assert caught.value.hint
    assert not (tmp_path / "out").exists()


def attempt(content: bytes, folder: Path) -> bool:
    """Whether a file could be rewritten; one that could not is an error in words, and in no time."""
    path, began = folder / "damaged", time.monotonic()
    path.write_bytes(content)
    try:
        untie(path, folder / "out")
    except ModelError:
        return False
    finally:
        assert time.monotonic() - began < 20
    return True


def test_every_truncation_is_noticed(good: bytes, tmp_path: Path) -> None:
    assert attempt(good, tmp_path)
    for length in range(24, len(good) - 128 * 4, 11):
        assert not attempt(good[:length], tmp_path), length


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(150))
@given(st.lists(st.tuples(st.integers(4, 700), st.integers(0, 255)), min_size=1, max_size=3))
def test_any_bytes_end_in_a_model_or_in_words(good: bytes, tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(good)
    for place, value in changes:
        damaged[place] = value
    attempt(bytes(damaged), tmp_path)


def test_a_file_without_an_architecture(tmp_path: Path) -> None:
    path = tmp_path / "m"
    tensor = struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, 32, 0, 0)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor + bytes(512))
    with pytest.raises(ModelError, match="general.architecture"):
        untie(path, tmp_path / "out")


def test_types_have_the_names_and_sizes_of_the_library() -> None:
    known = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: TYPES.get(number) for number in known} == known
