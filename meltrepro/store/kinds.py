"""What a file really is, told by how it begins: downloads end in web pages, pointers and packed files as often as in models."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from meltrepro.words import shorten, visible

_HEAD = 4096
_DOWNLOAD = "give the address of the file itself: on Hugging Face that has /resolve/ in place of /blob/ or /tree/"
_UNPACK = "unpack it, and name the model file that is in it"
_CONVERT = "convert it to the framework's own format first, or name the folder of a checkpoint in safetensors format"
_AGAIN = "get the file again from where it came from"
_LFS = b"version https://git-lfs.github.com/spec/"
_HTML = re.compile(rb"<(!doctype html|html|head|body|\?xml|!--)", re.IGNORECASE)


@dataclass(frozen=True)
class FileKind:
    """What a file is, as the end of a sentence, and what to do."""

    what: str
    hint: str


_PACKED = {
    b"\x1f\x8b": "a file packed by gzip",
    b"\xfd7zXZ\0": "a file packed by xz",
    b"BZh": "a file packed by bzip2",
    b"\x28\xb5\x2f\xfd": "a file packed by zstd",
    b"\x04\x22\x4d\x18": "a file packed by lz4",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
}
_FORMATS = {
    b"GGUF": "a GGUF file",
    b"lmgg": "a file in llama.cpp's oldest format (GGML), which nothing reads any more",
    b"tjgg": "a file in an old format of llama.cpp (GGJT), which nothing reads any more",
    b"fmgg": "a file in an old format of llama.cpp (GGMF), which nothing reads any more",
    b"algg": "a LoRA adapter in an old format of llama.cpp",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"\x93NUMPY": "an array of NumPy",
    b"\x7fELF": "a program",
    b"%PDF": "a PDF document",
}
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def kind_of(path: Path) -> FileKind | None:
    """What a file is by its beginning; `None` where that says nothing. Raises `OSError`."""
    with path.open("rb") as file:
        head, size = file.read(_HEAD), path.stat().st_size
    return _empty(head, size) or _text(head) or _archive(head) or _weights(head, size)


def _empty(head: bytes, size: int) -> FileKind | None:
    if not head:
        return FileKind("an empty file", _AGAIN)
    if head.startswith(b"\0\x05\x16\x07"):
        return FileKind(
            "what macOS keeps beside a file (._ before its name)", "name the file without ._ before its name"
        )
    if not head.strip(b"\0"):
        return FileKind(f"{size:,} bytes that begin with zeros, as an unfinished download does", _AGAIN)
    return None


def _text(head: bytes) -> FileKind | None:
    if head.startswith(_LFS):
        found = re.search(rb"^size (\d{1,15})$", head, re.MULTILINE)
        of = f", which stands for a file of {int(found[1]):,} bytes" if found else ""
        return FileKind(
            f"a pointer of git-lfs{of}", "run git lfs pull where it was cloned, or download the file itself"
        )
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _HTML.match(start):
        return FileKind("a web page", f"{_DOWNLOAD}, and a gated one needs a login")
    if start[:1] in (b"{", b"[") and _is_text(start):
        shown = shorten(visible(" ".join(start.decode("utf-8", "replace").split())), 80)
        return FileKind(f"JSON, as servers answer with: {shown}", _DOWNLOAD)
    if _is_text(head):
        shown = shorten(visible(" ".join(head.decode("utf-8", "replace").split())), 60)
        return FileKind(f"a text: {shown}", _AGAIN)
    return None


def _archive(head: bytes) -> FileKind | None:
    if head.startswith(b"PK\x03\x04"):
        if b"data.pkl" in head:
            return FileKind("a checkpoint of PyTorch", _CONVERT)
        return FileKind("a zip archive", _UNPACK)
    packed = next((what for magic, what in _PACKED.items() if head.startswith(magic)), None)
    if packed is None and head[257:262] == b"ustar":
        packed = "a tar archive"
    return FileKind(packed, _UNPACK) if packed is not None else None


def _weights(head: bytes, size: int) -> FileKind | None:
    known = next((what for magic, what in _FORMATS.items() if head.startswith(magic)), None)
    if known is not None:
        return FileKind(known, _CONVERT)
    if head.startswith(_OLD_TORCH):
        return FileKind("a checkpoint of PyTorch", _CONVERT)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 2:
        return FileKind("a pickle of Python, as old checkpoints of PyTorch are", _CONVERT)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return FileKind("weights in safetensors format, one file of a checkpoint", _CONVERT)
    if head[4:8] == b"TFL3":
        return FileKind("a model of TensorFlow Lite", _CONVERT)
    if head[:1] == b"\x08" and 0 < head[1] < 32 and head[2:3] in (b"\x12", b":", b"B"):
        return FileKind("a model in ONNX format", _CONVERT)
    return None


def _is_text(head: bytes) -> bool:
    """Whether bytes are a text of some length; its last character may be cut off."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4 or error.start == 0:
            return False
        text = head[: error.start].decode("utf-8")
    return len(text) > 3 and all(character.isprintable() or character in "\t\r\n\f" for character in text)
