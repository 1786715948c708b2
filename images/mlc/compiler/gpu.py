"""The model of llama.py for GPUs: operators as expressions, which dlight lays out for a device, and TVM's paged keys and values.

Arithmetic is of 32 bits, as on CPUs, and weights are the very same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from products import Form
from tvm import relax, s_tir, te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache, RopeMode, TIRPagedKVCache
from tvm.script import tirx as tir
from tvm.target import Target

FLOAT, PAGE, MERGE = "float32", 16, "tir_attention_merge_state"
_LIMITS = {"max_threads_per_block": 256, "thread_warp_size": 1}
DEVICES: Mapping[str, Mapping[str, Any]] = {
    "opencl": {"kind": "opencl", **_LIMITS},
    "adreno": {"kind": "opencl", "device": "adreno", "max_threads_per_block": 512, "thread_warp_size": 1},
    "cuda": {"kind": "cuda", "arch": "sm_87", "max_threads_per_block": 1024, "thread_warp_size": 32},
    "metal": {"kind": "metal", "max_threads_per_block": 256, "thread_warp_size": 32},
}
"""As TVM knows them: what any OpenCL device has, and three others."""
_USUAL = {
    "centred": False,
    "gelu": False,
    "embedding_scale": 1.0,
    "qkv_bias": False,
    "qk_norm": False,
    "parallel": False,
}
"""What a model of the Llama family is."""


class Matrix(nn.Module):
    """Codes with their scales, or floats."""

    def __init__(self, form: Form) -> None:
        self.form = form
        if form.bits:
            self.q_weight = nn.Parameter((form.rows, form.words), form.stored)
            self.q_scale = nn.Parameter((form.rows, form.groups), form.number)
        else:
            self.weight = nn.Parameter((form.rows, form.columns), form.number)

    def _stored(self) -> list[nn.Tensor]:
        return [self.q_weight, self.q_scale] if self.form.bits else [self.weight]

    def _number(self, stored: Any, row: Any, column: Any) -> Any:
        form = self.form
        if not form.bits:
            return stored[0][row, column].astype(FLOAT)
        shift = tirx.Cast("uint32", column % form.per * form.bits)
        code = tirx.bitwise_and(tirx.shift_right(stored[0][row, column // form.per], shift), _mask(form))
        return (code.astype(FLOAT) - tirx.const(form.middle, FLOAT)) * stored[1][row, column // form.group].astype(
            FLOAT
        )

    def times(self, x: nn.Tensor, module: str, added: nn.Tensor | None = None) -> nn.Tensor:
        rows, columns, count = self.form.rows, self.form.columns, x.shape[1]

        def product(x: Any, *rest: Any) -> Any:
            stored = rest[: len(self._stored())]
            numbers = te.compute((rows, columns), lambda n, k: self._number(stored, n, k), name="numbers")
            k = te.reduce_axis((0, columns), name="k")
            shape = (1, count, rows)
            found = te.compute(shape, lambda b, i, n: te.sum(x[b, i, k] * numbers[n, k], axis=k), name="NT_matmul")
            if added is None:
                return found
            return te.compute(shape, lambda b, i, n: found[b, i, n] + rest[-1][b, i, n], name="sum")

        kind = "vector" if isinstance(count, int) else "matrix"
        more = [] if added is None else [added]
        return _op(product, f"{kind}_product_{self.form.name}__{module}", x, *self._stored(), *more)

    def rows(self, tokens: nn.Tensor) -> nn.Tensor:
        def take(tokens: Any, *stored: Any) -> Any:
            shape = (1, tokens.shape[1], self.form.columns)
            return te.compute(shape, lambda b, i, k: self._number(stored, tokens[b, i], k), name="rows")

        return _op(take, "rows__token_embd", tokens, *self._stored())


class Norm(nn.Module):
    def __init__(self, model: Mapping[str, Any]) -> None:
        self.width, self.epsilon = model["width"], model["epsilon"]
        self.weight = nn.Parameter((self.width,), model["number"])

    def of(self, x: nn.Tensor, module: str) -> nn.Tensor:
        def norm(x: Any, weight: Any) -> Any:
            k = te.reduce_axis((0, self.width), name="k")
            squares = te.compute(x.shape[:2], lambda b, i: te.sum(x[b, i, k] * x[b, i, k], axis=k), name="squares")

            def normal(b: Any, i: Any, n: Any) -> Any:
                mean = squares[b, i] * tirx.const(1 / self.width, FLOAT) + tirx.const(self.epsilon, FLOAT)
                return x[b, i, n] * tirx.rsqrt(mean) * weight[n].astype(FLOAT)

            return te.compute(x.shape, normal, name="normal")

        return _op(norm, f"norm__{module}", x, self.weight)


class Layer(nn.Module):
    def __init__(self, model: Mapping[str, Any], forms: Mapping[str, Form], name: str) -> None:
        self.model = model
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        for module, names in ((self.self_attn, ("qkv_proj", "o_proj")), (self.mlp, ("gate_up_proj", "down_proj"))):
            place = "self_attn" if module is self.self_attn else "mlp"
            for each in names:
                setattr(module, each, Matrix(forms[f"{name}.{place}.{each}"]))
        self.input_layernorm, self.post_attention_layernorm = Norm(model), Norm(model)

    def forward(self, x: nn.Tensor, steps: nn.Tensor, positions: nn.Tensor, cache: PagedKVCache, layer: int) -> Any:
        heads, both, head = (self.model[each] for each in ("heads", "kv_heads", "head"))
        count, inner = x.shape[1], self.model["inner"]
        qkv = self.self_attn.qkv_proj.times(self.input_layernorm.of(x, "attn_norm"), "attn_qkv")
        turned = _op(_rotation(heads, both, head), "rotate__attn_qk", qkv, steps, positions)
        attended = cache.attention_with_fused_qkv(layer, turned, heads, sm_scale=head**-0.5)
        x = self.self_attn.o_proj.times(nn.op.reshape(attended, (1, count, heads * head)), "attn_output", x)
        gated = self.mlp.gate_up_proj.times(self.post_attention_layernorm.of(x, "ffn_norm"), "ffn_gate_up")
        return self.mlp.down_proj.times(_op(_gated(inner), "silu__ffn_gated", gated), "ffn_down", x)


class Body(nn.Module):
    def __init__(self, model: Mapping[str, Any], forms: Mapping[str, Form]) -> None:
        self.embed_tokens = Matrix(forms["model.embed_tokens"])
        self.layers = nn.ModuleList([Layer(model, forms, f"model.layers.{i}") for i in range(model["layers"])])
        self.norm = Norm(model)
        self.inv_freq = nn.Parameter((model["head"] // 2,), FLOAT)


class Llama(nn.Module):
    """`decode` takes one token, `prefill` any number, of those that the cache was told of; both give the logits of the last."""

    def __init__(self, model: Mapping[str, Any], target: Target) -> None:
        usual = {**_USUAL, "rotated": model["head"]}
        if odd := [name for name in usual if model[name] != usual[name]]:
            sys.exit(f"there is code for GPUs of models of the Llama family alone, and this one differs: {odd}")
        forms = {name: Form(**form) for name, form in model["matrices"].items()}
        self.sizes, self.target = model, target
        self.model = Body(model, forms)
        self.lm_head = Matrix(forms["lm_head"]) if "lm_head" in forms else None

    def decode(self, tokens: nn.Tensor, cache: PagedKVCache) -> tuple[nn.Tensor, PagedKVCache]:
        positions = cache.get_query_positions(tokens.shape[1])
        stream = self.model.embed_tokens.rows(tokens)
        for i, layer in enumerate(self.model.layers):
            stream = layer(stream, self.model.inv_freq, positions, cache, i)
        normal = self.model.norm.of(_op(_last, "last__last_position", stream), "output_norm")
        return (self.lm_head or self.model.embed_tokens).times(normal, "output"), cache

    prefill = decode

    def create_cache(self, sequences: Any, total: Any, chunk: Any, page: Any, window: Any) -> PagedKVCache:
        sizes = self.sizes
        return TIRPagedKVCache(
            attn_kind="mha",
            max_batch_size=sequences,
            max_total_seq_len=total,
            prefill_chunk_size=chunk,
            page_size=PAGE,
            support_sliding_window=window,
            layer_partition=relax.ShapeExpr([0, sizes["layers"]]),
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            num_key_value_heads=sizes["kv_heads"],
            qk_head_dim=sizes["head"],
            v_head_dim=sizes["head"],
            mla_original_qk_head_dim=0,
            mla_original_v_head_dim=0,
            rope_mode=RopeMode.NONE,
            rope_scale=1,
            rope_theta=10000,
            rope_scaling={},
            rope_ext_factors=relax.prim_value(0),
            rotary_dim=sizes["head"],
            enable_disaggregation=False,
            dtype=FLOAT,
            target=self.target,
        )

    def module(self) -> tuple[Any, list[str]]:
        """As functions of Relax, and the names of the weights in the order in which these take them."""
        modes = {"param_mode": "packed", "effect_mode": "none"}
        numbers = dict.fromkeys(("sequences", "total", "chunk", "page", "window"), int)
        functions: dict[str, Any] = {
            name: {"tokens": nn.spec.Tensor((1, count), "int32"), "cache": nn.spec.Object(PagedKVCache), "$": modes}
            for name, count in (("prefill", "count"), ("decode", 1))
        }
        functions["create_cache"] = {**numbers, "$": {**modes, "param_mode": "none"}}
        module, parameters = self.export_tvm(spec=functions)[:2]
        merged = _merged(self.sizes["head"]).with_attr("global_symbol", MERGE)
        module.update_func(module.get_global_var(MERGE), merged)
        return module, [name for name, _ in parameters]


def _op(expression: Any, name: str, *args: nn.Tensor) -> Any:
    return nn.op.tensor_expr_op(expression, name, list(args))


def _mask(form: Form) -> Any:
    return tirx.const((1 << form.bits) - 1, "uint32")


def _rotation(heads: int, both: int, head: int) -> Any:
    """Queries and keys turned by their positions, values as they are, a head in a row."""
    half = head // 2

    def rotate(x: Any, steps: Any, positions: Any) -> Any:
        def turned(b: Any, i: Any, h: Any, d: Any) -> Any:
            angle = positions[i].astype(FLOAT) * steps[d % half]
            here, there = x[b, i, h * head + d], x[b, i, h * head + (d + half) % head]
            sign = tirx.Select(d < half, tirx.const(-1, FLOAT), tirx.const(1, FLOAT))
            return tirx.if_then_else(h < heads + both, here * tirx.cos(angle) + sign * there * tirx.sin(angle), here)

        return te.compute((1, x.shape[1], heads + 2 * both, head), turned, name="turned")

    return rotate


def _gated(width: int) -> Any:
    def silu(x: Any) -> Any:
        def gate(b: Any, i: Any, k: Any) -> Any:
            return x[b, i, k] / (tirx.const(1, FLOAT) + tirx.exp(-x[b, i, k])) * x[b, i, width + k]

        return te.compute((1, x.shape[1], width), gate, name="gated")

    return silu


def _last(x: Any) -> Any:
    return te.compute((1, 1, x.shape[2]), lambda b, _, k: x[b, x.shape[1] - 1, k], name="last")


def _merged(head: int) -> Any:
    """Attention to two parts of a context made one, in place.

    TVM's own has threads that read what others of their group have overwritten, unless they run in step.
    """

    @tir.prim_func(s_tir=True)
    def merge(v: tir.handle, s: tir.handle, v_other: tir.handle, s_other: tir.handle):
        tir.func_attr({"tirx.is_scheduled": True})
        n = tir.int32()
        heads = tir.int32()
        values = tir.match_buffer(v, (n, heads, head), FLOAT)
        sums = tir.match_buffer(s, (n, heads), FLOAT)
        other_values = tir.match_buffer(v_other, (n, heads, head), FLOAT)
        other_sums = tir.match_buffer(s_other, (n, heads), FLOAT)
        for i in tir.thread_binding(n, thread="blockIdx.x"):
            for h in tir.thread_binding(heads, thread="blockIdx.y"):
                for d in tir.thread_binding(head, thread="threadIdx.x"):
                    both = tir.alloc_buffer((3,), FLOAT, scope="local")
                    both[2] = tir.max(sums[i, h], other_sums[i, h])
                    both[0] = tir.exp2(sums[i, h] - both[2])
                    both[1] = tir.exp2(other_sums[i, h] - both[2])
                    values[i, h, d] = (values[i, h, d] * both[0] + other_values[i, h, d] * both[1]) / (
                        both[0] + both[1]
                    )
                    tir.tvm_storage_sync("shared")
                    if d == 0:
                        sums[i, h] = tir.log2(both[0] + both[1]) + both[2]

    return merge


def passes(kind: str) -> list[Any]:
    """As those for CPUs, with operators laid out by dlight's rules; its tiles of matrices end TVM where CUDA or Metal is meant."""
    t, rules = relax.transform, s_tir.dlight.gpu
    tiles = [rules.Matmul()] if kind == "opencl" else []
    others = [rules.GEMV(), rules.Reduction(), rules.GeneralReduction(), rules.Fallback()]
    return [
        *(
            t.LegalizeOps(),
            t.FoldConstant(),
            t.DeadCodeElimination(),
            s_tir.dlight.ApplyDefaultSchedule(*tiles, *others),
        ),
        *(t.RewriteDataflowReshape(), t.ToNonDataflow(), t.RemovePurityChecking(), t.CallTIRRewrite()),
        *(t.StaticPlanBlockMemory(), t.LowerAllocTensor(), t.KillAfterLastUse(), t.LowerRuntimeBuiltin()),
        *(t.ComputePrimValue(), t.VMShapeLower(), t.AttachGlobalSymbol()),
    ]
