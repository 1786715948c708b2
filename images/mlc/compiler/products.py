"""Matrices, as codes or as floats, times numbers; every loop is laid out here, and nothing is searched for.

A matrix of codes is rows of words, each with the codes of `per` neighbours. A vector of words is masked for its first codes, then for
its second ones, and so on: what a mask leaves is a code times a power of two, by which the numbers that it is multiplied with are divided
before. So hardly a code is shifted, and nothing is rounded by that. Numbers are arranged for it beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm.script import tirx as tir
from vectors import fitting, sum_of


@dataclass(frozen=True)
class Form:
    """How a matrix is stored: as codes, or as floats where `bits` is 0."""

    rows: int
    columns: int
    number: str
    """Type of the scales; of floats their own."""
    bits: int = 0
    group: int = 0
    """Numbers that share a scale."""
    middle: int = 0
    """The code that stands for 0."""

    @property
    def per(self) -> int:
        """Codes of a word."""
        return 32 // self.bits if self.bits else 1

    @property
    def groups(self) -> int:
        return -(-self.columns // self.group) if self.bits else 0

    @property
    def words(self) -> int:
        """Words of a row."""
        return self.groups * self.group // self.per if self.bits else self.columns

    @property
    def share(self) -> int:
        """Words that share a scale."""
        return self.group // self.per

    @property
    def stored(self) -> str:
        return "uint32" if self.bits else self.number

    @property
    def name(self) -> str:
        return f"codes{self.bits}x{self.group}" if self.bits else self.number


def _last(form: Form, j: Any) -> Any:
    """Whether the j-th codes end a word, where they would be negative: they alone are shifted."""
    return j == form.per - 1 if form.bits and 32 % form.bits == 0 else False


def _factor(form: Form, j: Any) -> Any:
    """What the numbers at the j-th code of a word are multiplied with; loops over j are unrolled, so that this is a constant."""
    exponent = tir.int32(127) - tir.Cast("int32", j) * form.bits
    return tir.reinterpret(
        "float32", tir.shift_left(tir.Select(_last(form, j), tir.int32(127), exponent), tir.int32(23))
    )


def _code(form: Form, word: Any, j: Any) -> Any:
    """The j-th code of a word over `_factor`."""
    if not form.bits:
        return tir.Cast("float32", word)
    mask = tir.shift_left(tir.uint32((1 << form.bits) - 1), tir.Cast("uint32", j) * tir.uint32(form.bits))
    down = tir.Select(_last(form, j), tir.uint32(32 - form.bits), tir.uint32(0))
    return tir.Cast("float32", tir.Cast("int32", tir.shift_right(tir.bitwise_and(word, mask), down)))


def _prefetch(word: Any) -> Any:
    """Into every cache, to be read."""
    how = (tir.int32(0), tir.int32(3), tir.int32(1))
    return tir.call_llvm_intrin("void", "llvm.prefetch.p0", tir.address_of(word), *how)


def _scale(form: Form, scales: Any, begin: Any, lane: Any, lanes: int) -> Any:
    """The scale of a lane, of those that lie at `begin`; a select between broadcasts, for nothing is gathered."""
    found = scales[begin + (lanes - 1) // form.share] if lanes > form.share else scales[begin]
    for i in reversed(range((lanes - 1) // form.share if lanes > form.share else 0)):
        found = tir.Select(lane < (i + 1) * form.share, scales[begin + i], found)
    return found


@lru_cache(None)
def vector_product(form: Form, lanes: int, module: str) -> Any:
    """A matrix times the numbers of one token, some rows at a time; what comes next is fetched ahead, for nothing is read twice."""
    some, ahead = 2, 8
    vec = fitting(form.words, lanes)
    rows, columns, per, words, groups = form.rows, form.columns, form.per, form.words, form.groups
    coded, blocks, share = form.bits > 0, words // vec, form.share if form.bits else 1
    whole = rows % some == 0

    @tir.prim_func(s_tir=True, private=True)
    def gemv(
        x: tir.Buffer((1, 1, columns), "float32"),
        w: tir.Buffer((rows, words), form.stored),
        vs: tir.handle,
        y: tir.Buffer((1, 1, rows), "float32"),
    ):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True, "module": module})
        s = tir.match_buffer(vs, (rows, groups if coded else words), form.number)
        arranged = tir.alloc_buffer((words * per,), "float32", scope="global")
        shifted = tir.alloc_buffer((words,), "float32", scope="global")
        for b in tir.serial(blocks):
            for j in tir.unroll(per):
                for lane in tir.serial(vec):
                    if words * per == columns:
                        arranged[(b * per + j) * vec + lane] = x[0, 0, (b * vec + lane) * per + j] * _factor(form, j)
                    else:
                        arranged[(b * per + j) * vec + lane] = tir.if_then_else(
                            (b * vec + lane) * per + j < columns,
                            x[0, 0, (b * vec + lane) * per + j] * _factor(form, j),
                            tir.float32(0),
                        )
            if coded:
                for lane in tir.vectorized(vec):
                    shifted[b * vec + lane] = tir.float32(0)
                for j in tir.unroll(per):
                    for lane in tir.vectorized(vec):
                        shifted[b * vec + lane] = shifted[b * vec + lane] - arranged[(b * per + j) * vec + lane] * (
                            tir.float32(form.middle) / _factor(form, j)
                        )
        for t in tir.parallel((rows + some - 1) // some):
            total = tir.alloc_buffer((some * vec,), "float32", scope="global")
            scales = tir.alloc_buffer((max(some * groups, 1),), "float32", scope="global")
            for r in tir.unroll(some):
                for lane in tir.vectorized(vec):
                    total[r * vec + lane] = tir.float32(0)
                if coded:
                    for g in tir.serial(groups // 8):
                        for lane in tir.vectorized(8):
                            scales[r * groups + g * 8 + lane] = tir.Cast(
                                "float32", s[tir.min(t * some + r, rows - 1), g * 8 + lane]
                            )
                    if groups % 8 > 0:
                        for lane in tir.vectorized(groups % 8):
                            scales[r * groups + groups // 8 * 8 + lane] = tir.Cast(
                                "float32", s[tir.min(t * some + r, rows - 1), groups // 8 * 8 + lane]
                            )
            for b in tir.serial(blocks):
                part = tir.alloc_buffer((some * vec,), "float32", scope="global")
                for r in tir.unroll(some):
                    tir.evaluate(_prefetch(w[tir.min(t * some + r + ahead, rows - 1), b * vec]))
                if coded:
                    for r in tir.unroll(some):
                        for lane in tir.vectorized(vec):
                            part[r * vec + lane] = shifted[b * vec + lane]
                    for j in tir.unroll(per):
                        for r in tir.unroll(some):
                            for lane in tir.vectorized(vec):
                                part[r * vec + lane] = part[r * vec + lane] + arranged[
                                    (b * per + j) * vec + lane
                                ] * _code(
                                    form,
                                    w[t * some + r if whole else tir.min(t * some + r, rows - 1), b * vec + lane],
                                    j,
                                )
                    for r in tir.unroll(some):
                        for lane in tir.vectorized(vec):
                            total[r * vec + lane] = total[r * vec + lane] + part[r * vec + lane] * _scale(
                                form, scales, r * groups + b * vec // share, lane, vec
                            )
                else:
                    for r in tir.unroll(some):
                        for lane in tir.vectorized(vec):
                            total[r * vec + lane] = total[r * vec + lane] + arranged[b * vec + lane] * _code(
                                form, w[t * some + r if whole else tir.min(t * some + r, rows - 1), b * vec + lane], 0
                            )
            for r in tir.unroll(some):
                if vec == 16:
                    for lane in tir.vectorized(8):
                        total[r * vec + lane] = total[r * vec + lane] + total[r * vec + 8 + lane]
                if vec >= 8:
                    for lane in tir.vectorized(4):
                        total[r * vec + lane] = total[r * vec + lane] + total[r * vec + 4 + lane]
                if whole:
                    y[0, 0, t * some + r] = sum_of(total, r * vec, min(vec, 4))
                else:
                    if t * some + r < rows:
                        y[0, 0, t * some + r] = sum_of(total, r * vec, min(vec, 4))

    return gemv


@lru_cache(None)
def matrix_product(form: Form, lanes: int, module: str) -> Any:
    """A matrix times the numbers of many tokens, of which a vector holds one number each.

    Some rows of the matrix become floats, with which all tokens are multiplied: so no vector is summed up.
    """
    vec, many, some = fitting(form.words, lanes), lanes, 12
    rows, columns, per, words, groups = form.rows, form.columns, form.per, form.words, form.groups
    padded = words * per
    coded, blocks, share = form.bits > 0, words // vec, form.share if form.bits else 1

    @tir.prim_func(s_tir=True, private=True)
    def gemm(vx: tir.handle, w: tir.Buffer((rows, words), form.stored), vs: tir.handle, vy: tir.handle):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True, "module": module})
        m = tir.int64()
        x = tir.match_buffer(vx, (1, m, columns), "float32")
        y = tir.match_buffer(vy, (1, m, rows), "float32")
        s = tir.match_buffer(vs, (rows, groups if coded else words), form.number)
        arranged = tir.alloc_buffer(((m + (many - 1)) // many, padded, many), "float32", scope="global")
        for i in tir.parallel((m + (many - 1)) // many):
            for b in tir.serial(blocks):
                for j in tir.unroll(per):
                    for k in tir.serial(vec):
                        for lane in tir.serial(many):
                            if padded == columns:
                                arranged[i, (b * per + j) * vec + k, lane] = x[
                                    0, tir.min(i * many + lane, m - 1), (b * vec + k) * per + j
                                ] * _factor(form, j)
                            else:
                                arranged[i, (b * per + j) * vec + k, lane] = tir.if_then_else(
                                    (b * vec + k) * per + j < columns,
                                    x[0, tir.min(i * many + lane, m - 1), (b * vec + k) * per + j] * _factor(form, j),
                                    tir.float32(0),
                                )
        for t in tir.parallel((rows + (some - 1)) // some):
            numbers = tir.alloc_buffer((some * padded,), "float32", scope="global")
            scales = tir.alloc_buffer((vec,), "float32", scope="global")
            for r in tir.serial(some):
                for b in tir.serial(blocks):
                    if coded:
                        for g in tir.unroll((vec + share - 1) // share):
                            scales[g] = tir.Cast("float32", s[tir.min(t * some + r, rows - 1), b * vec // share + g])
                    for j in tir.unroll(per):
                        for lane in tir.vectorized(vec):
                            if coded:
                                numbers[r * padded + (b * per + j) * vec + lane] = (
                                    _code(form, w[tir.min(t * some + r, rows - 1), b * vec + lane], j)
                                    - tir.float32(form.middle) / _factor(form, j)
                                ) * _scale(form, scales, 0, lane, vec)
                            else:
                                numbers[r * padded + b * vec + lane] = _code(
                                    form, w[tir.min(t * some + r, rows - 1), b * vec + lane], 0
                                )
            for i in tir.serial((m + (many - 1)) // many):
                total = tir.alloc_buffer((some * many,), "float32", scope="global")
                tile = tir.alloc_buffer((some * many,), "float32", scope="global")
                for r in tir.unroll(some):
                    for lane in tir.vectorized(many):
                        total[r * many + lane] = tir.float32(0)
                for k in tir.serial(padded):
                    for r in tir.unroll(some):
                        for lane in tir.vectorized(many):
                            total[r * many + lane] = (
                                total[r * many + lane] + arranged[i, k, lane] * numbers[r * padded + k]
                            )
                for r in tir.unroll(some):
                    for lane in tir.vectorized(many):
                        tile[r * many + lane] = total[r * many + lane]
                for lane in tir.serial(tir.min(many, m - i * many)):
                    for r in tir.unroll(some):
                        if rows % some == 0:
                            y[0, i * many + lane, t * some + r] = tile[r * many + lane]
                        else:
                            if t * some + r < rows:
                                y[0, i * many + lane, t * some + r] = tile[r * many + lane]

    return gemm


@lru_cache(None)
def embedding(form: Form, scale: float) -> Any:
    """The rows of tokens, scaled."""
    rows, columns, per, words, groups, coded, group = (
        form.rows,
        form.columns,
        form.per,
        form.words,
        form.groups,
        form.bits > 0,
        form.group,
    )

    @tir.prim_func(s_tir=True, private=True)
    def embed(vt: tir.handle, w: tir.Buffer((rows, words), form.stored), vs: tir.handle, vy: tir.handle):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = tir.int64()
        token = tir.match_buffer(vt, (1, n), "int32")
        y = tir.match_buffer(vy, (1, n, columns), "float32")
        s = tir.match_buffer(vs, (rows, groups if coded else words), form.number)
        for i in tir.parallel(n):
            for k in tir.serial(columns):
                if coded:
                    y[0, i, k] = (
                        tir.Cast(
                            "float32",
                            tir.Cast(
                                "int32",
                                tir.bitwise_and(
                                    tir.shift_right(w[token[0, i], k // per], tir.Cast("uint32", k % per * form.bits)),
                                    tir.uint32((1 << form.bits) - 1),
                                ),
                            ),
                        )
                        - tir.float32(form.middle)
                    ) * tir.Cast("float32", s[token[0, i], k // group])
                else:
                    y[0, i, k] = tir.Cast("float32", w[token[0, i], k])
                if scale != 1:
                    y[0, i, k] = y[0, i, k] * tir.float32(scale)

    return embed
