"""Numbers of a GGUF file as engines take them: codes one by one, and rounded by nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp.header import GgufHeader, Tensor, called
from meltrepro.frameworks.prebuilt.llama import TYPES, refused_type

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Codes:
    """A matrix of quantized numbers: (code - middle) * scale, where the middle is 8 or 128."""

    codes: Array
    """Bytes, [rows, blocks, bytes of a block]; of 4 bits two to a byte, the lower half first."""
    scales: Array
    """[rows, blocks]"""
    bits: int
    block: int

    @property
    def rows(self) -> int:
        return int(self.codes.shape[0])

    @property
    def columns(self) -> int:
        return int(self.scales.shape[1]) * self.block


def _scale(blocks: Array) -> Array:
    """The 16-bit float in these bytes, one a block."""
    found: Array = np.ascontiguousarray(blocks).view("<f2")[..., 0].astype(np.float32)
    return found


def paired(codes: Array) -> Array:
    """Two codes to a byte: neighbours, the lower half first."""
    found: Array = codes[..., 0::2] | codes[..., 1::2] << 4
    return found


def _q4_0(blocks: Array) -> Codes:
    packed = blocks[:, :, 2:]
    codes = np.concatenate([packed & 15, packed >> 4], axis=2)
    return Codes(paired(codes), _scale(blocks[:, :, :2]), 4, 32)


def _q8_0(blocks: Array) -> Codes:
    return Codes(blocks[:, :, 2:] ^ 0x80, _scale(blocks[:, :, :2]), 8, 32)


def _q6_k(blocks: Array) -> Codes:
    """Codes of 6 bits, 16 to a scale, as codes of 8: a 16-bit scale times one of 8 bits is a 32-bit float, exactly."""
    rows, count, _ = blocks.shape
    low = blocks[:, :, :128].reshape(rows, count, 2, 2, 32)
    high = blocks[:, :, 128:192].reshape(rows, count, 2, 1, 32)
    halves = np.concatenate([low & 15, low >> 4], axis=3)
    upper = np.concatenate([high >> shift & 3 for shift in (0, 2, 4, 6)], axis=3)
    codes = (halves | upper << 4) + np.uint8(128 - 32)
    scales = blocks[:, :, 192:208].view(np.int8).astype(np.float32) * _scale(blocks[:, :, 208:])[..., None]
    return Codes(codes.reshape(rows, count * 16, 16), scales.reshape(rows, count * 16), 8, 16)


_CODES: Mapping[str, tuple[int, int, Callable[[Array], Codes]]] = {
    "Q4_0": (32, 18, _q4_0),
    "Q8_0": (32, 34, _q8_0),
    "Q6_K": (256, 210, _q6_k),
}
"""Numbers and bytes of a block of each type whose codes can be kept, and how."""
_FLOATS = {"F32": "<f4", "F16": "<f2"}
assert {*_CODES, *_FLOATS} == TYPES


class GgufNumbers:
    """The tensors of a GGUF file, read one by one."""

    def __init__(self, path: Path, header: GgufHeader) -> None:
        self._path, self._header = path, header
        self.tensors: Mapping[str, Tensor] = {each.name: each for each in header.tensors}

    def numbers(self, name: str) -> Array:
        """A tensor of floats, the row last; raises `ModelError` where it has codes."""
        tensor = self.tensors[name]
        if tensor.type_name not in _FLOATS:
            raise ModelError(f"{called(self._path)}: {name} is {tensor.type_name}, expected floats")
        found: Array = self._bytes(tensor).view(_FLOATS[tensor.type_name]).reshape(tensor.dimensions[::-1])
        return found

    def read(self, name: str) -> Codes | Array:
        """A matrix as it is: its codes, or its floats; raises `ModelError` for a type that cannot be taken over."""
        tensor = self.tensors[name]
        if tensor.type_name in _FLOATS:
            return self.numbers(name)
        if tensor.type_name not in _CODES:
            raise ModelError(refused_type(tensor), hint="name a quantization: it is then quantized anew")
        block, size, take = _CODES[tensor.type_name]
        columns, rows = tensor.dimensions
        return take(self._bytes(tensor).reshape(rows, columns // block, size))

    def _bytes(self, tensor: Tensor) -> Array:
        assert tensor.size is not None, "of a known type"
        place = self._header.data + tensor.offset
        found: Array = np.memmap(self._path, np.uint8, "r", place, (tensor.size,))
        return found
