"""What a model does besides products with matrices; every loop is laid out here, and nothing is searched for."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from tvm.script import tirx as tir
from vectors import exponential, fitting, most_of, sum_of

WIDE = 16
"""Positions in a block of keys, whatever the CPU: the numbers of the widest vector."""


@lru_cache(None)
def norm(width: int, epsilon: float, lanes: int, module: str, number: str, added: bool, centred: bool) -> Any:
    """The root mean square made 1; with `added` of a sum, which goes on as well, and `centred` around the mean, with a bias."""
    vec = fitting(width, lanes)

    @tir.prim_func(s_tir=True, private=True)
    def norms(
        va: tir.handle,
        vb: tir.handle,
        w: tir.Buffer((width,), number),
        bias: tir.Buffer((width,), number),
        vy: tir.handle,
        vz: tir.handle,
    ):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True, "module": module})
        n = tir.int64()
        a = tir.match_buffer(va, (1, n, width), "float32")
        b = tir.match_buffer(vb, (1, n, width), "float32")
        y = tir.match_buffer(vy, (1, n, width), "float32")
        z = tir.match_buffer(vz, (1, n, width), "float32")
        for i in tir.serial(n):
            total = tir.alloc_buffer((vec,), "float32", scope="global")
            factor = tir.alloc_buffer((2,), "float32", scope="global")  # and the mean
            for lane in tir.vectorized(vec):
                total[lane] = tir.float32(0)
            for k in tir.serial(width // vec):
                for lane in tir.vectorized(vec):
                    z[0, i, k * vec + lane] = (
                        a[0, i, k * vec + lane] + b[0, i, k * vec + lane] if added else a[0, i, k * vec + lane]
                    )
                for lane in tir.vectorized(vec):
                    total[lane] = total[lane] + (
                        z[0, i, k * vec + lane] if centred else z[0, i, k * vec + lane] * z[0, i, k * vec + lane]
                    )
            if centred:
                factor[1] = sum_of(total, 0, vec) * tir.float32(1 / width)
                for lane in tir.vectorized(vec):
                    total[lane] = tir.float32(0)
                for k in tir.serial(width // vec):
                    for lane in tir.vectorized(vec):
                        total[lane] = total[lane] + (z[0, i, k * vec + lane] - factor[1]) * (
                            z[0, i, k * vec + lane] - factor[1]
                        )
            factor[0] = tir.float32(1) / tir.sqrt(sum_of(total, 0, vec) * tir.float32(1 / width) + tir.float32(epsilon))
            for k in tir.serial(width // vec):
                for lane in tir.vectorized(vec):
                    if centred:
                        y[0, i, k * vec + lane] = (z[0, i, k * vec + lane] - factor[1]) * factor[0] * tir.Cast(
                            "float32", w[k * vec + lane]
                        ) + tir.Cast("float32", bias[k * vec + lane])
                    else:
                        y[0, i, k * vec + lane] = (
                            z[0, i, k * vec + lane] * factor[0] * tir.Cast("float32", w[k * vec + lane])
                        )

    return norms


@lru_cache(None)
def heads_norm(heads: int, kv_heads: int, head: int, epsilon: float, lanes: int, number: str, centred: bool) -> Any:
    """The heads of queries and keys normalized one by one, with factors of each; values as they are."""
    vec = fitting(head, lanes)

    @tir.prim_func(s_tir=True, private=True)
    def norms(vx: tir.handle, w: tir.Buffer((heads + kv_heads, head), number), vy: tir.handle):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = tir.int64()
        x = tir.match_buffer(vx, (1, n, (heads + 2 * kv_heads) * head), "float32")
        y = tir.match_buffer(vy, (1, n, (heads + 2 * kv_heads) * head), "float32")
        for i in tir.serial(n):
            for h in tir.serial(heads + kv_heads):
                total = tir.alloc_buffer((1,), "float32", scope="global")
                factor = tir.alloc_buffer((2,), "float32", scope="global")  # and the mean
                factor[1] = tir.float32(0)
                total[0] = tir.float32(0)
                if centred:
                    for d in tir.serial(head):
                        factor[1] = factor[1] + x[0, i, h * head + d] * tir.float32(1 / head)
                for d in tir.serial(head):
                    total[0] = total[0] + (x[0, i, h * head + d] - factor[1]) * (x[0, i, h * head + d] - factor[1])
                factor[0] = tir.float32(1) / tir.sqrt(total[0] * tir.float32(1 / head) + tir.float32(epsilon))
                for k in tir.serial(head // vec):
                    for lane in tir.vectorized(vec):
                        y[0, i, h * head + k * vec + lane] = (
                            (x[0, i, h * head + k * vec + lane] - factor[1])
                            * factor[0]
                            * tir.Cast("float32", w[h, k * vec + lane])
                        )
            for d in tir.serial(kv_heads * head):
                y[0, i, (heads + kv_heads) * head + d] = x[0, i, (heads + kv_heads) * head + d]

    return norms


@lru_cache(None)
def biased(width: int, number: str) -> Any:
    """With what is added to every token's."""

    @tir.prim_func(s_tir=True, private=True)
    def add(vx: tir.handle, bias: tir.Buffer((width,), number), vy: tir.handle):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = tir.int64()
        x = tir.match_buffer(vx, (1, n, width), "float32")
        y = tir.match_buffer(vy, (1, n, width), "float32")
        for i, k in tir.grid(n, width):
            y[0, i, k] = x[0, i, k] + tir.Cast("float32", bias[k])

    return add


@lru_cache(None)
def both(width: int) -> Any:
    """The sum of two."""

    @tir.prim_func(s_tir=True, private=True)
    def add(va: tir.handle, vb: tir.handle, vy: tir.handle):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = tir.int64()
        a = tir.match_buffer(va, (1, n, width), "float32")
        b = tir.match_buffer(vb, (1, n, width), "float32")
        y = tir.match_buffer(vy, (1, n, width), "float32")
        for i, k in tir.grid(n, width):
            y[0, i, k] = a[0, i, k] + b[0, i, k]

    return add


@lru_cache(None)
def last(width: int) -> Any:
    """The sum of two at the last token."""

    @tir.prim_func(s_tir=True, private=True)
    def row(va: tir.handle, vb: tir.handle, y: tir.Buffer((1, 1, width), "float32")):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = tir.int64()
        a = tir.match_buffer(va, (1, n, width), "float32")
        b = tir.match_buffer(vb, (1, n, width), "float32")
        for k in tir.serial(width):
            y[0, 0, k] = a[0, n - 1, k] + b[0, n - 1, k]

    return row


@lru_cache(None)
def gated(width: int, lanes: int, gelu: bool) -> Any:
    """SiLU, or GELU by the hyperbolic tangent, of the first half times the second: x over 1 + e to the -x, or to the -2 z.

    z is the tangent's argument, the root of 2 / pi times x + 0.044715 x^3 (Hendrycks and Gimpel, arXiv 1606.08415).
    """
    vec, root = fitting(width, lanes), math.sqrt(8 / math.pi)

    @tir.prim_func(s_tir=True, private=True)
    def gate(vx: tir.handle, vy: tir.handle):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = tir.int64()
        x = tir.match_buffer(vx, (1, n, 2 * width), "float32")
        y = tir.match_buffer(vy, (1, n, width), "float32")
        for i in tir.parallel(n):
            for k in tir.serial(width // vec):
                for lane in tir.vectorized(vec):
                    y[0, i, k * vec + lane] = (
                        x[0, i, k * vec + lane]
                        / (
                            tir.float32(1)
                            + exponential(
                                tir.float32(0)
                                - x[0, i, k * vec + lane]
                                * (
                                    tir.float32(root)
                                    + tir.float32(root * 0.044715) * x[0, i, k * vec + lane] * x[0, i, k * vec + lane]
                                    if gelu
                                    else tir.float32(1)
                                )
                            )
                        )
                        * x[0, i, width + k * vec + lane]
                    )

    return gate


@lru_cache(None)
def angles(half: int) -> Any:
    """Cosines and sines of the tokens' positions."""

    @tir.prim_func(s_tir=True, private=True)
    def rotations(
        vt: tir.handle, steps: tir.Buffer((half,), "float32"), position: tir.int64, vc: tir.handle, vs: tir.handle
    ):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = tir.int64()
        tir.match_buffer(vt, (1, n), "int32")
        c = tir.match_buffer(vc, (n, half), "float32")
        s = tir.match_buffer(vs, (n, half), "float32")
        for i in tir.serial(n):
            for d in tir.serial(half):
                c[i, d] = tir.Cast(
                    "float32", tir.cos(tir.Cast("float64", position + i) * tir.Cast("float64", steps[d]))
                )
                s[i, d] = tir.Cast(
                    "float32", tir.sin(tir.Cast("float64", position + i) * tir.Cast("float64", steps[d]))
                )

    return rotations


@lru_cache(None)
def rotation(heads: int, kv_heads: int, head: int, layers: int, rotated: int) -> Any:
    """Queries rotated, as far as heads are, and scaled; keys, rotated, and values put into their cache.

    Keys lie in blocks of `WIDE` positions, a number of all of them side by side, so that scores of neighbours are one vector.
    """
    half, scale = rotated // 2, head**-0.5

    @tir.prim_func(s_tir=True, private=True)
    def rotate(
        vx: tir.handle,
        vc: tir.handle,
        vs: tir.handle,
        vkv: tir.handle,
        layer: tir.int64,
        position: tir.int64,
        vq: tir.handle,
    ):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = tir.int64()
        size = tir.int64()
        x = tir.match_buffer(vx, (1, n, (heads + 2 * kv_heads) * head), "float32")
        c = tir.match_buffer(vc, (n, half), "float32")
        s = tir.match_buffer(vs, (n, half), "float32")
        kv = tir.match_buffer(vkv, (layers, 2, kv_heads, size), "float32")
        q = tir.match_buffer(vq, (1, n, heads * head), "float32")
        for i in tir.serial(n):
            for h in tir.serial(heads):
                for d in tir.vectorized(half):
                    q[0, i, h * head + d] = (
                        x[0, i, h * head + d] * c[i, d] - x[0, i, h * head + half + d] * s[i, d]
                    ) * tir.float32(scale)
                for d in tir.vectorized(half):
                    q[0, i, h * head + half + d] = (
                        x[0, i, h * head + half + d] * c[i, d] + x[0, i, h * head + d] * s[i, d]
                    ) * tir.float32(scale)
                if rotated < head:
                    for d in tir.serial(head - rotated):
                        q[0, i, h * head + rotated + d] = x[0, i, h * head + rotated + d] * tir.float32(scale)
            for h in tir.serial(kv_heads):
                for d in tir.serial(half):
                    kv[layer, 0, h, ((position + i) // WIDE * head + d) * WIDE + (position + i) % WIDE] = (
                        x[0, i, (heads + h) * head + d] * c[i, d] - x[0, i, (heads + h) * head + half + d] * s[i, d]
                    )
                    kv[layer, 0, h, ((position + i) // WIDE * head + half + d) * WIDE + (position + i) % WIDE] = (
                        x[0, i, (heads + h) * head + half + d] * c[i, d] + x[0, i, (heads + h) * head + d] * s[i, d]
                    )
                if rotated < head:
                    for d in tir.serial(head - rotated):
                        kv[
                            layer, 0, h, ((position + i) // WIDE * head + rotated + d) * WIDE + (position + i) % WIDE
                        ] = x[0, i, (heads + h) * head + rotated + d]
                for d in tir.vectorized(head):
                    kv[layer, 1, h, (position + i) * head + d] = x[0, i, (heads + kv_heads + h) * head + d]

    return rotate


@lru_cache(None)
def attention(heads: int, kv_heads: int, head: int, layers: int, lanes: int, queries: int) -> Any:
    """Softmax of the scores of all keys up to each query's own, times the values; some queries of a head at a time."""
    shared = heads // kv_heads
    vec = fitting(head, lanes)
    parts = fitting(head // vec, max(8 // queries, 1))  # vectors of values that are summed up at once
    halves = WIDE // lanes

    @tir.prim_func(s_tir=True, private=True)
    def attend(vq: tir.handle, vkv: tir.handle, layer: tir.int64, position: tir.int64, vo: tir.handle):
        tir.func_attr({"tirx.is_scheduled": True, "tirx.noalias": True})
        n = tir.int64()
        size = tir.int64()
        q = tir.match_buffer(vq, (1, n, heads * head), "float32")
        kv = tir.match_buffer(vkv, (layers, 2, kv_heads, size), "float32")
        o = tir.match_buffer(vo, (1, n, heads * head), "float32")
        for h in tir.parallel(heads):
            scores = tir.alloc_buffer((queries, (position + n + (WIDE - 1)) // WIDE * WIDE), "float32", scope="global")
            for block in tir.serial((n + (queries - 1)) // queries):
                total = tir.alloc_buffer((queries,), "float32", scope="global")
                for b in tir.serial((position + tir.min(block * queries + queries, n) + (WIDE - 1)) // WIDE):
                    dot = tir.alloc_buffer((queries * WIDE,), "float32", scope="global")
                    for u in tir.unroll(queries * halves):
                        for lane in tir.vectorized(lanes):
                            dot[u * lanes + lane] = tir.float32(0)
                    for d in tir.serial(head):
                        for u in tir.unroll(halves):
                            for i in tir.unroll(queries):
                                for lane in tir.vectorized(lanes):
                                    dot[i * WIDE + u * lanes + lane] = (
                                        dot[i * WIDE + u * lanes + lane]
                                        + q[0, tir.min(block * queries + i, n - 1), h * head + d]
                                        * kv[layer, 0, h // shared, (b * head + d) * WIDE + u * lanes + lane]
                                    )
                    for i in tir.unroll(queries):
                        for u in tir.unroll(halves):
                            for lane in tir.vectorized(lanes):
                                scores[i, b * WIDE + u * lanes + lane] = dot[i * WIDE + u * lanes + lane]
                for i in tir.unroll(queries):
                    vector = tir.alloc_buffer((lanes,), "float32", scope="global")
                    most = tir.alloc_buffer((1,), "float32", scope="global")
                    for lane in tir.vectorized(lanes):
                        vector[lane] = tir.float32(-3e38)
                    for b in tir.serial((position + tir.min(block * queries + queries, n) + (lanes - 1)) // lanes):
                        for lane in tir.vectorized(lanes):
                            vector[lane] = tir.max(
                                vector[lane],
                                tir.Select(
                                    b * lanes + lane <= position + block * queries + i,
                                    scores[i, b * lanes + lane],
                                    tir.float32(-3e38),
                                ),
                            )
                    most[0] = most_of(vector, 0, lanes)
                    for lane in tir.vectorized(lanes):
                        vector[lane] = tir.float32(0)
                    for b in tir.serial((position + tir.min(block * queries + queries, n) + (lanes - 1)) // lanes):
                        for lane in tir.vectorized(lanes):
                            scores[i, b * lanes + lane] = tir.Select(
                                b * lanes + lane <= position + block * queries + i,
                                exponential(scores[i, b * lanes + lane] - most[0]),
                                tir.float32(0),
                            )
                        for lane in tir.vectorized(lanes):
                            vector[lane] = vector[lane] + scores[i, b * lanes + lane]
                    total[i] = tir.float32(1) / sum_of(vector, 0, lanes)
                for p in tir.serial(head // vec // parts):
                    sums = tir.alloc_buffer((queries * parts * vec,), "float32", scope="global")
                    for u in tir.unroll(queries * parts):
                        for lane in tir.vectorized(vec):
                            sums[u * vec + lane] = tir.float32(0)
                    for j in tir.serial(position + tir.min(block * queries + queries, n)):
                        for u in tir.unroll(parts):
                            for i in tir.unroll(queries):
                                for lane in tir.vectorized(vec):
                                    sums[(i * parts + u) * vec + lane] = (
                                        sums[(i * parts + u) * vec + lane]
                                        + scores[i, j]
                                        * kv[layer, 1, h // shared, j * head + (p * parts + u) * vec + lane]
                                    )
                    for i in tir.unroll(queries):
                        if block * queries + i < n:
                            for u in tir.unroll(parts):
                                for lane in tir.vectorized(vec):
                                    o[0, block * queries + i, h * head + (p * parts + u) * vec + lane] = (
                                        sums[(i * parts + u) * vec + lane] * total[i]
                                    )

    return attend
