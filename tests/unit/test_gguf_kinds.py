"""What was given as a model and is none is called by its name, with the way to the model itself."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp.gguf import check, describe, shard
from meltrepro.frameworks.llamacpp.module import FRAMEWORK
from meltrepro.frameworks.llamacpp.options import Options
from tests.support.checkpoints import llama_tensors, write_safetensors
from tests.support.ggufs import F32, I32, STRING, TIED, U16, U32, Value, gguf, model, numbers

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4683073184\n"


def zipped(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, b"x" * 100)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.gguf"))
    return content.getvalue()


def safetensors(folder: Path) -> bytes:
    write_safetensors(folder / "x.safetensors", llama_tensors(8))
    return (folder / "x.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("content", "what", "step"),
    [
        (b"", "an empty file", "get the file again"),
        (bytes(5000), "5,000 bytes that begin with zeros", "get the file again"),
        (LFS, "a pointer of git-lfs, which stands for a file of 4,683,073,184 bytes", "git lfs pull"),
        (LFS.replace(b"\n", b"\r\n"), "a pointer of git-lfs", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>Sign in", "a web page", "/resolve/"),
        (b"\xef\xbb\xbf \r\n<HTML><head>", "a web page", "/resolve/"),
        (b"\n\n<!-- hi --><html>", "a web page", "/resolve/"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "a web page", "/resolve/"),
        (b'{"error": "Repository not found"}', 'JSON, as servers answer with: {"error": "Repository not found"}', "/resolve/"),
        (b"Entry not found", "a text: Entry not found", "get the file again"),
        ("Zugriff verweigert: bitte anmelden \u00e4".encode(), "a text: Zugriff verweigert", "get the file again"),
        (gzip.compress(model()), "a file packed by gzip", "unpack it"),
        (lzma.compress(model()), "a file packed by xz", "unpack it"),
        (b"\x28\xb5\x2f\xfd" + bytes(40), "a file packed by zstd", "unpack it"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(40), "a 7z archive", "unpack it"),
        (zipped("model.gguf"), "a zip archive", "unpack it"),
        (zipped("archive/data.pkl"), "a checkpoint of PyTorch", "safetensors"),
        (tarred(), "a tar archive", "unpack it"),
        (pickle.dumps({"a": [1]}, protocol=2), "a pickle of Python", "safetensors"),
        (pickle.dumps({"a": [1]}, protocol=4), "a pickle of Python", "safetensors"),
        (b"\x08\x08\x12\x07pytorch" + bytes(40), "a model in ONNX format", "convert"),
        (b"\x1c\0\0\0TFL3" + bytes(40), "a model of TensorFlow Lite", "convert"),
        (b"tjgg\x03\0\0\0" + bytes(40), "an old format of llama.cpp (GGJT)", "convert"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(40), "what macOS keeps beside a file", "without ._"),
        (b"\x7fELF\x02\x01" + bytes(40), "a program", "convert"),
    ],
)  # fmt: skip
def test_what_is_none_is_called_by_its_name(tmp_path: Path, content: bytes, what: str, step: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        check(path)
    assert caught.value.message.startswith("m.gguf is not a GGUF file: it begins with ")
    assert what in caught.value.message
    assert step in (caught.value.hint or "")
    assert "\n" not in caught.value.one_line


def test_weights_of_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(tmp_path))
    with pytest.raises(ModelError, match="weights in safetensors format") as caught:
        check(path)
    assert "folder of a checkpoint" in (caught.value.hint or "")


def test_a_file_for_a_big_endian_machine(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(tensors=TIED, order=">"))
    with pytest.raises(ModelError, match="which is 3 on a big-endian machine") as caught:
        check(path)
    assert "gguf-convert-endian" in (caught.value.hint or "")


# -- parts of models --------------------------------------------------------------------------------------------------


def part(number: int, count: int, *, kind: int = U16, tensors: bool = True) -> bytes:
    split: dict[str, Value] = {
        "split.no": (kind, number),
        "split.count": (kind, count),
        "split.tensors.count": (I32, 3),
    }
    return gguf(split, TIED[:1] if tensors else [])


@pytest.mark.parametrize("kind", [U16, U32, I32])
def test_a_part_of_a_split_model(tmp_path: Path, kind: int) -> None:
    for number in (0, 1):
        path = tmp_path / f"m-{number + 1:05}-of-00002.gguf"
        path.write_bytes(part(number, 2, kind=kind))
        with pytest.raises(ModelError) as caught:
            check(path)
        assert caught.value.message == f"{path.name} is file {number + 1} of 2 of a split model (split.count 2)"
        assert "llama-gguf-split --merge m-00001-of-00002.gguf OUT" in (caught.value.hint or "")
    assert "not here" not in (caught.value.hint or "")
    (tmp_path / "m-00001-of-00002.gguf").unlink()
    with pytest.raises(ModelError) as caught:
        check(path)
    assert "1 file not here" in (caught.value.hint or "")


def test_a_first_part_without_tensors_and_one_of_another_name(tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(part(0, 3, tensors=False))
    with pytest.raises(ModelError, match=r"file 1 of 3 of a split model \(split.count 3\)") as caught:
        check(path)
    assert "llama-gguf-split --merge" in (caught.value.hint or "")


def test_parts_that_were_joined_by_cat(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(part(0, 2) + part(1, 2))
    with pytest.raises(ModelError, match="2 files joined by cat of a split model") as caught:
        check(path)
    assert "--merge" in (caught.value.hint or "")
    path.write_bytes(model() + model("other"))
    with pytest.raises(ModelError, match="holds more than one GGUF file, one behind the other"):
        check(path)


def test_a_merged_model_that_still_says_one_of_one(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(part(0, 1))
    check(path)
    path.write_bytes(part(0, 0))
    check(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("m-00001-of-00002.gguf", "file 1 of 2 of a split model"),
        ("Q4_K_M/m-00012-of-00099.GGUF", "file 12 of 99 of a split model"),
        ("m-00001-of-00001.gguf", None),
        ("m.gguf", None),
        ("m-00001-of-00002.gguf.txt", None),
    ],
)
def test_names_of_parts(name: str, said: str | None) -> None:
    assert shard(name) == said


# -- files that end or go on in the wrong place -----------------------------------------------------------------------


def test_a_download_that_ended_early(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    whole = gguf(tensors=TIED)
    path.write_bytes(whole[:-64])
    with pytest.raises(
        ModelError, match="truncated GGUF file: it has [0-9,]+ bytes, and its tensor blk.0.attn_q.weight"
    ):
        check(path)
    path.write_bytes(whole + bytes(10_000))
    check(path)
    assert f"{10_000:,} bytes behind its end" in describe(path)


def test_what_else_is_written_as_gguf(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for content, said in (
        (gguf({"general.type": (STRING, "adapter")}, TIED), "a LoRA adapter"),
        (gguf({"general.type": (STRING, "imatrix")}, TIED), "an importance matrix"),
        (gguf({}, TIED, architecture="clip"), "reads pictures"),
        (gguf({"tokenizer.ggml.model": (STRING, "gpt2")}), "without tensors"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=said) as caught:
            check(path)
        assert caught.value.hint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gguf(tensors=[*TIED, TIED[0]]), "names the tensor token_embd.weight twice"),
        (gguf(tensors=[("x", (7,), 2, bytes(18))]), "rows of 7 numbers, and Q4_0 holds them by 32"),
        (gguf({"general.alignment": (U32, 24)}, TIED), "an alignment of 24"),
        (gguf({"general.alignment": (U32, 0)}, TIED), "an alignment of 0"),
        (gguf({"general.alignment": (U16, 32)}, TIED), "an alignment of 32"),
        (gguf(tensors=[("x", (2**32, 2**32), F32, numbers(4))]), f"{2**32} x {2**32} numbers"),
        (gguf(tensors=TIED, alignment=4).replace(struct.pack("<IQ", 0, 96), struct.pack("<IQ", 0, 97)), "no multiple of 4"),
    ],
)  # fmt: skip
def test_headers_that_cannot_be(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        check(path)
    assert said in caught.value.message


def test_a_file_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    pre: dict[str, Value] = {"tokenizer.ggml.model": (STRING, "gpt2"), "tokenizer.ggml.pre": (STRING, "qwen2")}
    path.write_bytes(gguf(pre, [*TIED, ("q", (32,), 2, bytes(18))], architecture="qwen3"))
    said = f"GGUF 3, qwen3, tokenizer gpt2 (qwen2), 4 tensors (3 F32, 1 Q4_0), {path.stat().st_size} B"
    assert describe(path) == said
    path.write_bytes(json.dumps({"error": "no"}).encode())
    assert "JSON" in describe(path)


def test_what_a_file_says_of_itself_cannot_steer_a_terminal_or_forge_a_line(tmp_path: Path) -> None:
    path, evil = tmp_path / "m.gguf", b"\x1b[2Jqwen\xff\nerror: all is well " + b"x" * 300
    release = FRAMEWORK.releases()["2024-02-27"]
    for content in (
        gguf({"general.architecture": (STRING, evil)}, TIED, architecture=None),
        gguf({"tokenizer.ggml.model": (STRING, evil), "llama.block_count": (U32, 1)}, TIED),
        gguf(tensors=[(evil.decode("latin-1"), (8,), F32, numbers(8))] * 2),
    ):
        path.write_bytes(content)
        said = describe(path)
        with contextlib.suppress(ModelError):
            said += FRAMEWORK.look(Options(), path, release).refusal or ""
        assert "\x1b" not in said and "\n" not in said and "x" * 80 not in said
        assert said.encode(), "nothing in it is half a character"
