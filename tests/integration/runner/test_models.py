"""Models that real runners refuse: damaged, cut short, hostile."""

from __future__ import annotations

import random
import struct
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.runner.contract import Runner

pytestmark = pytest.mark.integration


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def gguf(
    *, version: int = 3, n_tensors: int = 1, n_values: int = 1, values: bytes | None = None, rest: bytes = b""
) -> bytes:
    """The start of a GGUF file, by default with one harmless value and one tensor to come."""
    harmless = struct.pack("<Q1sIB", 1, b"k", 0, 0)
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_values) + (harmless if values is None else values) + rest


def tensor(name: bytes = b"t", extents: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    shape = struct.pack(f"<I{len(extents)}Q", len(extents), *extents)
    return struct.pack("<Q", len(name)) + name + shape + struct.pack("<IQ", kind, offset)


BAD_MODELS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not a GGUF file"),
    "text": (b"hello, I am a model" * 10, "is not a GGUF file"),
    "header alone": (b"GGUF", "cut short"),
    "version 1": (gguf(version=1), "version 1; versions 2 and 3 are supported"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 0), "version 50331648"),
    "no tensors": (gguf(n_tensors=0), "holds 0 tensors"),
    "no values": (gguf(n_values=0), "0 metadata values"),
    "too many tensors": (gguf(n_tensors=2**60), "cut short"),
    "too many values": (gguf(n_values=2**60), "cut short"),
    "endless key": (gguf(values=struct.pack("<Q", 2**63) + b"key"), "cut short"),
    "unknown value type": (
        gguf(values=struct.pack("<Q", 1) + b"k" + struct.pack("<I", 77)),
        "unknown type 77",
    ),
    "nested array": (gguf(values=struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 1)), "array of unknown type 9"),
    "endless array": (gguf(values=struct.pack("<Q1sIIQ", 1, b"k", 9, 12, 2**61)), "cut short"),
    "alignment 0": (
        gguf(values=struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 0)),
        "general.alignment of 0",
    ),
    "no dimensions": (gguf(rest=tensor(extents=())), "0 dimensions"),
    "five dimensions": (gguf(rest=tensor(extents=(1,) * 5)), "5 dimensions"),
    "unknown tensor type": (gguf(rest=tensor(kind=4)), "type 4, which this release does not know"),
    "tensor type of the future": (gguf(rest=tensor(kind=9999)), "type 9999"),
    "rows of half a block": (gguf(rest=tensor(kind=2, extents=(16,)) + bytes(64)), "rows of 16 values"),
    "data outside": (gguf(rest=tensor(extents=(1024,)) + bytes(200)), "cut short"),
    "overflowing extents": (gguf(rest=tensor(extents=(2**62, 2**62, 2**62, 2**62)) + bytes(200)), "cut short"),
    "data far outside": (gguf(rest=tensor(offset=2**63) + bytes(200)), "cut short"),
    "no architecture": (gguf(rest=tensor() + bytes(256)), "cannot be loaded; stderr says why"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_model(runner: Runner, name: str) -> None:
    content, message = BAD_MODELS[name]
    run = runner(model=str(write(runner.folder / "bad.gguf", content)))
    assert run.status == 3
    # What the file check lets through, the old release may answer with a crash; it must end the same way.
    died = name == "no architecture" and "the framework died of signal" in run.error["message"]
    assert died or message in run.error["message"]


def test_model_that_is_not_there(runner: Runner) -> None:
    for path, problem in ((runner.folder / "none.gguf", "No such file"), (runner.folder, "cannot be")):
        run = runner(model=str(path))
        assert run.status == 3
        assert problem in run.error["message"] and str(path) in run.error["message"]


@pytest.mark.parametrize("kept", [5, 24, 100, 4096, 1 << 20, 0.5, -1])
def test_truncated_model(runner: Runner, kept: float) -> None:
    whole = runner.model.read_bytes()
    size = int(len(whole) * kept) if isinstance(kept, float) else kept
    run = runner(model=str(write(runner.folder / "cut.gguf", whole[:size])))
    assert run.status == 3
    assert "cut short" in run.error["message"]


def test_flipped_bits_in_the_header_never_crash_the_runner(runner: Runner) -> None:
    """The header's first 8 KiB hold every kind of value; whatever it says, the runner ends by its own will."""
    dice = random.Random(f"{runner.bundle.facts['release']}")
    whole = bytearray(runner.model.read_bytes())
    path = runner.folder / "flipped.gguf"
    seen = Counter[int]()
    for _ in range(25):
        at, bit = dice.randrange(8, 8192), 1 << dice.randrange(8)
        whole[at] ^= bit
        path.write_bytes(whole)
        run = runner(model=str(path), max_tokens=1, warmup_tokens=0)
        whole[at] ^= bit
        assert run.status in (0, 3, 4, 5), (at, bit, run.stderr[-500:])
        assert run.events[-1]["e"] == ("done" if run.status == 0 else "error")
        seen[run.status] += 1
    assert seen[0]
