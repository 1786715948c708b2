"""Vectors of floats: how wide they may be, and what is made of them."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as tir


def fitting(count: int, lanes: int) -> int:
    """The widest vector by which so many numbers can be divided."""
    while count % lanes:
        lanes //= 2
    return lanes


def sum_of(buffer: Any, begin: Any, count: int) -> Any:
    """Of neighbours, halves first."""
    if count == 1:
        return buffer[begin]
    return sum_of(buffer, begin, count // 2) + sum_of(buffer, begin + count // 2, count // 2)


def most_of(buffer: Any, begin: Any, count: int) -> Any:
    if count == 1:
        return buffer[begin]
    return tir.max(most_of(buffer, begin, count // 2), most_of(buffer, begin + count // 2, count // 2))


def exponential(x: Any) -> Any:
    """e to the x, below two units in the last place: a polynomial, so that vectors of it are quick and every padded library has the same."""
    power = tir.max(tir.min(x, tir.float32(88.0)), tir.float32(-87.0)) * tir.float32(1.4426950408889634)
    whole = tir.floor(power + tir.float32(0.5))
    part = power - whole
    found = tir.float32(1.5252734e-5)
    for factor in (1.5403530e-4, 1.3333558e-3, 9.6181291e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1.0):
        found = found * part + tir.float32(factor)
    return found * tir.reinterpret("float32", tir.shift_left(tir.Cast("int32", whole) + tir.int32(127), tir.int32(23)))
