"""The operators of a model as loops for one CPU: every loop is laid out here, and nothing is searched for.

A matrix of codes is rows of words, each with the codes of `per` neighbours. A vector of words is masked for its first codes, then for
its second ones, and so on: what a mask leaves is a code times a power of two, by which the numbers that it is multiplied with are divided
before. So no code is shifted, and nothing is rounded by that. Numbers are therefore arranged by `_place`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tvm.script import tirx as T

WIDE = 16
"""Numbers of the widest vector: the blocks in which keys lie, whatever the CPU."""


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


def fitting(count: int, lanes: int) -> int:
    """The widest vector by which so many numbers can be divided."""
    while count % lanes:
        lanes //= 2
    return lanes


def _last(form: Form, j: Any) -> Any:
    """Whether the j-th codes end a word, where they would be negative: they alone are shifted."""
    return j == form.per - 1 if form.bits and 32 % form.bits == 0 else False


def _factor(form: Form, j: Any) -> Any:
    """What the numbers at the j-th code of a word are multiplied with; loops over j are unrolled, so that this is a constant."""
    exponent = T.int32(127) - T.Cast("int32", j) * form.bits
    return T.reinterpret("float32", T.shift_left(T.Select(_last(form, j), T.int32(127), exponent), T.int32(23)))


def _code(form: Form, word: Any, j: Any) -> Any:
    """The j-th code of a word over `_factor`."""
    if not form.bits:
        return T.Cast("float32", word)
    mask = T.shift_left(T.uint32((1 << form.bits) - 1), T.Cast("uint32", j) * T.uint32(form.bits))
    down = T.Select(_last(form, j), T.uint32(32 - form.bits), T.uint32(0))
    return T.Cast("float32", T.Cast("int32", T.shift_right(T.bitwise_and(word, mask), down)))


def _sum(buffer: Any, begin: Any, count: int) -> Any:
    """Of neighbours, halves first."""
    if count == 1:
        return buffer[begin]
    return _sum(buffer, begin, count // 2) + _sum(buffer, begin + count // 2, count // 2)


def _most(buffer: Any, begin: Any, count: int) -> Any:
    if count == 1:
        return buffer[begin]
    return T.max(_most(buffer, begin, count // 2), _most(buffer, begin + count // 2, count // 2))


def _scale(form: Form, scales: Any, begin: Any, lane: Any, lanes: int) -> Any:
    """The scale of a lane, of those that lie at `begin`; a select between broadcasts, for nothing is gathered."""
    found = scales[begin + (lanes - 1) // form.share] if lanes > form.share else scales[begin]
    for i in reversed(range((lanes - 1) // form.share if lanes > form.share else 0)):
        found = T.Select(lane < (i + 1) * form.share, scales[begin + i], found)
    return found


def _exp(x: Any) -> Any:
    """e to the x, below two units in the last place: a polynomial, so that vectors of it are quick and every C library has the same."""
    power = T.max(T.min(x, T.float32(88.0)), T.float32(-87.0)) * T.float32(1.4426950408889634)
    whole = T.floor(power + T.float32(0.5))
    part = power - whole
    found = T.float32(1.5252734e-5)
    for factor in (1.5403530e-4, 1.3333558e-3, 9.6181291e-3, 5.5504109e-2, 2.4022651e-1, 6.9314718e-1, 1.0):
        found = found * part + T.float32(factor)
    return found * T.reinterpret("float32", T.shift_left(T.Cast("int32", whole) + T.int32(127), T.int32(23)))


@lru_cache(None)
def vector_product(form: Form, lanes: int, module: str, rows: int = 4) -> Any:
    """A matrix times the numbers of one token, some rows at a time."""
    L = fitting(form.words, lanes)
    R, N, K, P, W, G = min(rows, form.rows), form.rows, form.columns, form.per, form.words, form.groups
    coded, blocks, share = form.bits > 0, W // L, form.share if form.bits else 1
    whole = N % R == 0

    @T.prim_func(s_tir=True, private=True)
    def gemv(
        x: T.Buffer((1, 1, K), "float32"), w: T.Buffer((N, W), form.stored), vs: T.handle, y: T.Buffer((1, 1, N), "float32")
    ):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True, "module": module})
        s = T.match_buffer(vs, (N, G if coded else W), form.number)
        arranged = T.alloc_buffer((W * P,), "float32", scope="global")
        shifted = T.alloc_buffer((W,), "float32", scope="global")
        for b in T.serial(blocks):
            for j in T.unroll(P):
                for l in T.serial(L):
                    if W * P == K:
                        arranged[(b * P + j) * L + l] = x[0, 0, (b * L + l) * P + j] * _factor(form, j)
                    else:
                        arranged[(b * P + j) * L + l] = T.if_then_else(
                            (b * L + l) * P + j < K, x[0, 0, (b * L + l) * P + j] * _factor(form, j), T.float32(0)
                        )
            if coded:
                for l in T.vectorized(L):
                    shifted[b * L + l] = T.float32(0)
                for j in T.unroll(P):
                    for l in T.vectorized(L):
                        shifted[b * L + l] = shifted[b * L + l] - arranged[(b * P + j) * L + l] * (
                            T.float32(form.middle) / _factor(form, j)
                        )
        for t in T.parallel((N + R - 1) // R):
            total = T.alloc_buffer((R * L,), "float32", scope="local")
            scales = T.alloc_buffer((max(R * G, 1),), "float32", scope="local")
            for r in T.unroll(R):
                for l in T.vectorized(L):
                    total[r * L + l] = T.float32(0)
                if coded:
                    for g in T.serial(G // 8):
                        for l in T.vectorized(8):
                            scales[r * G + g * 8 + l] = T.Cast("float32", s[T.min(t * R + r, N - 1), g * 8 + l])
                    if G % 8 > 0:
                        for l in T.vectorized(G % 8):
                            scales[r * G + G // 8 * 8 + l] = T.Cast("float32", s[T.min(t * R + r, N - 1), G // 8 * 8 + l])
            for b in T.serial(blocks):
                part = T.alloc_buffer((R * L,), "float32", scope="local")
                if coded:
                    for r in T.unroll(R):
                        for l in T.vectorized(L):
                            part[r * L + l] = shifted[b * L + l]
                    for j in T.unroll(P):
                        for r in T.unroll(R):
                            for l in T.vectorized(L):
                                part[r * L + l] = part[r * L + l] + arranged[(b * P + j) * L + l] * _code(
                                    form, w[t * R + r if whole else T.min(t * R + r, N - 1), b * L + l], j
                                )
                    for r in T.unroll(R):
                        for l in T.vectorized(L):
                            total[r * L + l] = total[r * L + l] + part[r * L + l] * _scale(
                                form, scales, r * G + b * L // share, l, L
                            )
                else:
                    for r in T.unroll(R):
                        for l in T.vectorized(L):
                            total[r * L + l] = total[r * L + l] + arranged[b * L + l] * _code(
                                form, w[t * R + r if whole else T.min(t * R + r, N - 1), b * L + l], 0
                            )
            for r in T.unroll(R):
                if L == 16:
                    for l in T.vectorized(8):
                        total[r * L + l] = total[r * L + l] + total[r * L + 8 + l]
                if L >= 8:
                    for l in T.vectorized(4):
                        total[r * L + l] = total[r * L + l] + total[r * L + 4 + l]
                if whole:
                    y[0, 0, t * R + r] = _sum(total, r * L, min(L, 4))
                else:
                    if t * R + r < N:
                        y[0, 0, t * R + r] = _sum(total, r * L, min(L, 4))

    return gemv


@lru_cache(None)
def matrix_product(form: Form, lanes: int, module: str) -> Any:
    """A matrix times the numbers of many tokens, of which a vector holds one number each.

    Some rows of the matrix become floats, with which all tokens are multiplied: so no vector is summed up.
    """
    L, M, R = fitting(form.words, lanes), lanes, 12
    N, K, P, W, G = form.rows, form.columns, form.per, form.words, form.groups
    C = W * P
    coded, blocks, share = form.bits > 0, W // L, form.share if form.bits else 1

    @T.prim_func(s_tir=True, private=True)
    def gemm(vx: T.handle, w: T.Buffer((N, W), form.stored), vs: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True, "module": module})
        m = T.int64()
        x = T.match_buffer(vx, (1, m, K), "float32")
        y = T.match_buffer(vy, (1, m, N), "float32")
        s = T.match_buffer(vs, (N, G if coded else W), form.number)
        arranged = T.alloc_buffer(((m + (M - 1)) // M, C, M), "float32", scope="global")
        for i in T.parallel((m + (M - 1)) // M):
            for b in T.serial(blocks):
                for j in T.unroll(P):
                    for k in T.serial(L):
                        for l in T.serial(M):
                            if C == K:
                                arranged[i, (b * P + j) * L + k, l] = (
                                    x[0, T.min(i * M + l, m - 1), (b * L + k) * P + j] * _factor(form, j)
                                )
                            else:
                                arranged[i, (b * P + j) * L + k, l] = T.if_then_else(
                                    (b * L + k) * P + j < K,
                                    x[0, T.min(i * M + l, m - 1), (b * L + k) * P + j] * _factor(form, j),
                                    T.float32(0),
                                )
        for t in T.parallel((N + (R - 1)) // R):
            numbers = T.alloc_buffer((R * C,), "float32", scope="global")
            scales = T.alloc_buffer((WIDE,), "float32", scope="local")
            for r in T.serial(R):
                for b in T.serial(blocks):
                    if coded:
                        for g in T.unroll((L + share - 1) // share):
                            scales[g] = T.Cast("float32", s[T.min(t * R + r, N - 1), b * L // share + g])
                    for j in T.unroll(P):
                        for l in T.vectorized(L):
                            if coded:
                                numbers[r * C + (b * P + j) * L + l] = (
                                    _code(form, w[T.min(t * R + r, N - 1), b * L + l], j)
                                    - T.float32(form.middle) / _factor(form, j)
                                ) * _scale(form, scales, 0, l, L)
                            else:
                                numbers[r * C + b * L + l] = _code(form, w[T.min(t * R + r, N - 1), b * L + l], 0)
            for i in T.serial((m + (M - 1)) // M):
                total = T.alloc_buffer((R * M,), "float32", scope="local")
                tile = T.alloc_buffer((R * M,), "float32", scope="local")
                for r in T.unroll(R):
                    for l in T.vectorized(M):
                        total[r * M + l] = T.float32(0)
                for k in T.serial(C):
                    for r in T.unroll(R):
                        for l in T.vectorized(M):
                            total[r * M + l] = total[r * M + l] + arranged[i, k, l] * numbers[r * C + k]
                for r in T.unroll(R):
                    for l in T.vectorized(M):
                        tile[r * M + l] = total[r * M + l]
                for l in T.serial(T.min(M, m - i * M)):
                    for r in T.unroll(R):
                        if N % R == 0:
                            y[0, i * M + l, t * R + r] = tile[r * M + l]
                        else:
                            if t * R + r < N:
                                y[0, i * M + l, t * R + r] = tile[r * M + l]

    return gemm


@lru_cache(None)
def embedding(form: Form) -> Any:
    """The rows of tokens."""
    N, K, P, W, G, coded, group = form.rows, form.columns, form.per, form.words, form.groups, form.bits > 0, form.group

    @T.prim_func(s_tir=True, private=True)
    def rows(vt: T.handle, w: T.Buffer((N, W), form.stored), vs: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        token = T.match_buffer(vt, (1, n), "int32")
        y = T.match_buffer(vy, (1, n, K), "float32")
        s = T.match_buffer(vs, (N, G if coded else W), form.number)
        for i in T.parallel(n):
            for k in T.serial(K):
                if coded:
                    y[0, i, k] = (
                        T.Cast(
                            "float32",
                            T.Cast(
                                "int32",
                                T.bitwise_and(
                                    T.shift_right(w[token[0, i], k // P], T.Cast("uint32", k % P * form.bits)),
                                    T.uint32((1 << form.bits) - 1),
                                ),
                            ),
                        )
                        - T.float32(form.middle)
                    ) * T.Cast("float32", s[token[0, i], k // group])
                else:
                    y[0, i, k] = T.Cast("float32", w[token[0, i], k])

    return rows


@lru_cache(None)
def norm(width: int, epsilon: float, lanes: int, module: str, number: str, added: bool) -> Any:
    """The root mean square made 1; with `added` of a sum, which goes on as well."""
    L = fitting(width, lanes)

    @T.prim_func(s_tir=True, private=True)
    def rms(va: T.handle, vb: T.handle, w: T.Buffer((width,), number), vy: T.handle, vz: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True, "module": module})
        n = T.int64()
        a = T.match_buffer(va, (1, n, width), "float32")
        b = T.match_buffer(vb, (1, n, width), "float32")
        y = T.match_buffer(vy, (1, n, width), "float32")
        z = T.match_buffer(vz, (1, n, width), "float32")
        for i in T.serial(n):
            total = T.alloc_buffer((L,), "float32", scope="local")
            factor = T.alloc_buffer((1,), "float32", scope="local")
            for l in T.vectorized(L):
                total[l] = T.float32(0)
            for k in T.serial(width // L):
                for l in T.vectorized(L):
                    z[0, i, k * L + l] = a[0, i, k * L + l] + b[0, i, k * L + l] if added else a[0, i, k * L + l]
                for l in T.vectorized(L):
                    total[l] = total[l] + z[0, i, k * L + l] * z[0, i, k * L + l]
            factor[0] = T.float32(1) / T.sqrt(_sum(total, 0, L) * T.float32(1 / width) + T.float32(epsilon))
            for k in T.serial(width // L):
                for l in T.vectorized(L):
                    y[0, i, k * L + l] = z[0, i, k * L + l] * factor[0] * T.Cast("float32", w[k * L + l])

    return rms


@lru_cache(None)
def last(width: int) -> Any:
    """The sum of two at the last token."""

    @T.prim_func(s_tir=True, private=True)
    def row(va: T.handle, vb: T.handle, y: T.Buffer((1, 1, width), "float32")):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        a = T.match_buffer(va, (1, n, width), "float32")
        b = T.match_buffer(vb, (1, n, width), "float32")
        for k in T.serial(width):
            y[0, 0, k] = a[0, n - 1, k] + b[0, n - 1, k]

    return row


@lru_cache(None)
def gated(width: int, lanes: int) -> Any:
    """SiLU of the first half times the second."""
    L = fitting(width, lanes)

    @T.prim_func(s_tir=True, private=True)
    def silu(vx: T.handle, vy: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        x = T.match_buffer(vx, (1, n, 2 * width), "float32")
        y = T.match_buffer(vy, (1, n, width), "float32")
        for i in T.parallel(n):
            for k in T.serial(width // L):
                for l in T.vectorized(L):
                    y[0, i, k * L + l] = (
                        x[0, i, k * L + l] / (T.float32(1) + _exp(T.float32(0) - x[0, i, k * L + l])) * x[0, i, width + k * L + l]
                    )

    return silu


@lru_cache(None)
def angles(half: int) -> Any:
    """Cosines and sines of the tokens' positions."""

    @T.prim_func(s_tir=True, private=True)
    def rotations(vt: T.handle, steps: T.Buffer((half,), "float32"), position: T.int64, vc: T.handle, vs: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        T.match_buffer(vt, (1, n), "int32")
        c = T.match_buffer(vc, (n, half), "float32")
        s = T.match_buffer(vs, (n, half), "float32")
        for i in T.serial(n):
            for d in T.serial(half):
                c[i, d] = T.Cast("float32", T.cos(T.Cast("float64", position + i) * T.Cast("float64", steps[d])))
                s[i, d] = T.Cast("float32", T.sin(T.Cast("float64", position + i) * T.Cast("float64", steps[d])))

    return rotations


@lru_cache(None)
def rotation(heads: int, kv_heads: int, head: int, layers: int) -> Any:
    """Queries rotated and scaled; keys, rotated, and values put into their cache.

    Keys lie in blocks of `WIDE` positions, a number of all of them side by side, so that scores of neighbours are one vector.
    """
    half, scale = head // 2, head**-0.5

    @T.prim_func(s_tir=True, private=True)
    def rotate(vx: T.handle, vc: T.handle, vs: T.handle, vkv: T.handle, layer: T.int64, position: T.int64, vq: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        size = T.int64()
        x = T.match_buffer(vx, (1, n, (heads + 2 * kv_heads) * head), "float32")
        c = T.match_buffer(vc, (n, half), "float32")
        s = T.match_buffer(vs, (n, half), "float32")
        kv = T.match_buffer(vkv, (layers, 2, kv_heads, size), "float32")
        q = T.match_buffer(vq, (1, n, heads * head), "float32")
        for i in T.serial(n):
            for h in T.serial(heads):
                for d in T.vectorized(half):
                    q[0, i, h * head + d] = (
                        x[0, i, h * head + d] * c[i, d] - x[0, i, h * head + half + d] * s[i, d]
                    ) * T.float32(scale)
                for d in T.vectorized(half):
                    q[0, i, h * head + half + d] = (
                        x[0, i, h * head + half + d] * c[i, d] + x[0, i, h * head + d] * s[i, d]
                    ) * T.float32(scale)
            for h in T.serial(kv_heads):
                for d in T.serial(half):
                    kv[layer, 0, h, ((position + i) // WIDE * head + d) * WIDE + (position + i) % WIDE] = (
                        x[0, i, (heads + h) * head + d] * c[i, d] - x[0, i, (heads + h) * head + half + d] * s[i, d]
                    )
                    kv[layer, 0, h, ((position + i) // WIDE * head + half + d) * WIDE + (position + i) % WIDE] = (
                        x[0, i, (heads + h) * head + half + d] * c[i, d] + x[0, i, (heads + h) * head + d] * s[i, d]
                    )
                for d in T.vectorized(head):
                    kv[layer, 1, h, (position + i) * head + d] = x[0, i, (heads + kv_heads + h) * head + d]

    return rotate


@lru_cache(None)
def attention(heads: int, kv_heads: int, head: int, layers: int, lanes: int, queries: int) -> Any:
    """Softmax of the scores of all keys up to each query's own, times the values; some queries of a head at a time."""
    Q, shared = queries, heads // kv_heads
    L = fitting(head, lanes)
    parts = fitting(head // L, max(8 // Q, 1))  # vectors of values that are summed up at once
    halves = WIDE // lanes

    @T.prim_func(s_tir=True, private=True)
    def attend(vq: T.handle, vkv: T.handle, layer: T.int64, position: T.int64, vo: T.handle):
        T.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = T.int64()
        size = T.int64()
        q = T.match_buffer(vq, (1, n, heads * head), "float32")
        kv = T.match_buffer(vkv, (layers, 2, kv_heads, size), "float32")
        o = T.match_buffer(vo, (1, n, heads * head), "float32")
        for h in T.parallel(heads):
            scores = T.alloc_buffer((Q, (position + n + (WIDE - 1)) // WIDE * WIDE), "float32", scope="global")
            for block in T.serial((n + (Q - 1)) // Q):
                total = T.alloc_buffer((Q,), "float32", scope="local")
                for b in T.serial((position + T.min(block * Q + Q, n) + (WIDE - 1)) // WIDE):
                    dot = T.alloc_buffer((Q * WIDE,), "float32", scope="local")
                    for u in T.unroll(Q * halves):
                        for l in T.vectorized(lanes):
                            dot[u * lanes + l] = T.float32(0)
                    for d in T.serial(head):
                        for u in T.unroll(halves):
                            for i in T.unroll(Q):
                                for l in T.vectorized(lanes):
                                    dot[i * WIDE + u * lanes + l] = (
                                        dot[i * WIDE + u * lanes + l]
                                        + q[0, T.min(block * Q + i, n - 1), h * head + d]
                                        * kv[layer, 0, h // shared, (b * head + d) * WIDE + u * lanes + l]
                                    )
                    for i in T.unroll(Q):
                        for u in T.unroll(halves):
                            for l in T.vectorized(lanes):
                                scores[i, b * WIDE + u * lanes + l] = dot[i * WIDE + u * lanes + l]
                for i in T.unroll(Q):
                    vector = T.alloc_buffer((lanes,), "float32", scope="local")
                    most = T.alloc_buffer((1,), "float32", scope="local")
                    for l in T.vectorized(lanes):
                        vector[l] = T.float32(-3e38)
                    for b in T.serial((position + T.min(block * Q + Q, n) + (lanes - 1)) // lanes):
                        for l in T.vectorized(lanes):
                            vector[l] = T.max(
                                vector[l],
                                T.Select(b * lanes + l <= position + block * Q + i, scores[i, b * lanes + l], T.float32(-3e38)),
                            )
                    most[0] = _most(vector, 0, lanes)
                    for l in T.vectorized(lanes):
                        vector[l] = T.float32(0)
                    for b in T.serial((position + T.min(block * Q + Q, n) + (lanes - 1)) // lanes):
                        for l in T.vectorized(lanes):
                            scores[i, b * lanes + l] = T.Select(
                                b * lanes + l <= position + block * Q + i,
                                _exp(scores[i, b * lanes + l] - most[0]),
                                T.float32(0),
                            )
                        for l in T.vectorized(lanes):
                            vector[l] = vector[l] + scores[i, b * lanes + l]
                    total[i] = T.float32(1) / _sum(vector, 0, lanes)
                for p in T.serial(head // L // parts):
                    sums = T.alloc_buffer((Q * parts * L,), "float32", scope="local")
                    for u in T.unroll(Q * parts):
                        for l in T.vectorized(L):
                            sums[u * L + l] = T.float32(0)
                    for j in T.serial(position + T.min(block * Q + Q, n)):
                        for u in T.unroll(parts):
                            for i in T.unroll(Q):
                                for l in T.vectorized(L):
                                    sums[(i * parts + u) * L + l] = (
                                        sums[(i * parts + u) * L + l]
                                        + scores[i, j] * kv[layer, 1, h // shared, j * head + (p * parts + u) * L + l]
                                    )
                    for i in T.unroll(Q):
                        if block * Q + i < n:
                            for u in T.unroll(parts):
                                for l in T.vectorized(L):
                                    o[0, block * Q + i, h * head + (p * parts + u) * L + l] = sums[(i * parts + u) * L + l] * total[i]

    return attend
