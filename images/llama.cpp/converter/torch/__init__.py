"""A stand-in for torch: the few operations that llama.cpp's converters use on dense language models, on numpy.

torch itself is built with CUDA where packages come from and takes half a gigabyte. A converter only reads, reshapes and
widens weights. Reshaping moves values, and every 16-bit float is exactly one 32-bit float, so there is one right answer
to each operation here. Sums in bfloat16 are taken in float32 and rounded to nearest, ties to even, as torch does.
Whatever is not here ends the conversion; nothing is approximated.
"""

from __future__ import annotations

import contextlib

import numpy as np


class DType:
    """An element type; `bits` is how numpy stores it."""

    def __init__(self, name, bits):
        self.name, self.bits = name, np.dtype(bits)

    @property
    def itemsize(self):
        return self.bits.itemsize

    def __repr__(self):
        return f"torch.{self.name}"


float64, float32, float16 = DType("float64", "<f8"), DType("float32", "<f4"), DType("float16", "<f2")
bfloat16 = DType("bfloat16", "<u2")
int64, int32, int16, int8 = DType("int64", "<i8"), DType("int32", "<i4"), DType("int16", "<i2"), DType("int8", "i1")
uint8, bool = DType("uint8", "u1"), DType("bool", "?")
float8_e4m3fn, float8_e5m2 = DType("float8_e4m3fn", "u1"), DType("float8_e5m2", "u1")
dtype = DType
_NUMBERS = (float64, float32, float16, bfloat16)


class Tensor:
    """An array with a torch type; a meta tensor has a shape and no elements."""

    def __init__(self, array, kind, meta=False):
        self._array, self.dtype, self._meta = array, kind, meta

    @property
    def shape(self):
        return self._array.shape

    @property
    def ndim(self):
        return self._array.ndim

    def dim(self):
        return self._array.ndim

    def size(self, axis=None):
        return self.shape if axis is None else self.shape[axis]

    def numel(self):
        return self._array.size

    def _like(self, array):
        return Tensor(array, self.dtype, self._meta)

    def reshape(self, *shape):
        return self._like(self._array.reshape(*shape))

    def view(self, *what):
        if len(what) == 1 and isinstance(what[0], DType):
            return Tensor(self._array.view(what[0].bits), what[0], self._meta)
        return self.reshape(*what)

    def swapaxes(self, first, second):
        return self._like(self._array.swapaxes(first, second))

    transpose = swapaxes

    def squeeze(self):
        return self._like(self._array.squeeze())

    def unsqueeze(self, axis):
        return self._like(np.expand_dims(self._array, axis))

    def to(self, kind):
        if kind is self.dtype:
            return self
        if self._meta:
            return empty(self.shape, kind, "meta")
        if self.dtype not in _NUMBERS or kind is not float32:
            raise NotImplementedError(
                f"from {self.dtype} to {kind}: the stand-in for torch widens floats to float32 only"
            )
        if self.dtype is bfloat16:
            return Tensor((self._array.astype("<u4") << 16).view("<f4"), float32)
        return Tensor(self._array.astype("<f4"), float32)

    def float(self):
        return self.to(float32)

    def __add__(self, number):
        if self._meta:
            return self
        if self.dtype is not bfloat16:
            return self._like((self._array + self.dtype.bits.type(number)).astype(self.dtype.bits))
        return Tensor(_round((self.to(float32)._array + np.float32(number)).view("<u4")), bfloat16)

    def numpy(self):
        if self.dtype is bfloat16:
            raise TypeError("numpy has no bfloat16")
        return self._array


def _round(bits):
    """The upper halves of float32 numbers, rounded to nearest, ties to even."""
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def from_numpy(array):
    kinds = {kind.bits: kind for kind in (float64, float32, float16, int64, int32, int16, int8, uint8, bool)}
    return Tensor(array, kinds[array.dtype])


def empty(size, dtype, device):
    if device != "meta":
        raise NotImplementedError("the stand-in for torch makes meta tensors only")
    return Tensor(np.broadcast_to(np.zeros((), dtype.bits), size), dtype, meta=True)


def inference_mode():
    return contextlib.nullcontext()


def __getattr__(name):
    raise AttributeError(f"the stand-in for torch has no {name}: this kind of model cannot be converted with it")
