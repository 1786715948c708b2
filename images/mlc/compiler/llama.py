"""A model of the Llama family or a relative of these operators, with MLC's names of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kernels
import products
from products import Form
from tvm import relax, tirx, transform
from tvm.relax.frontend import nn

FLOAT = "float32"


def _tensor(*shape: Any) -> nn.Tensor:
    return nn.Tensor.placeholder(shape, FLOAT)


class Matrix(nn.Module):
    """Codes with their scales, or floats."""

    def __init__(self, form: Form, lanes: int) -> None:
        self.form, self.lanes = form, lanes
        if form.bits:
            self.q_weight = nn.Parameter((form.rows, form.words), form.stored)
            self.q_scale = nn.Parameter((form.rows, form.groups), form.number)
        else:
            self.weight = nn.Parameter((form.rows, form.columns), form.number)

    def stored(self) -> list[nn.Tensor]:
        """What every operator takes: where there are no scales, floats stand in for them and are not read."""
        return [self.q_weight, self.q_scale] if self.form.bits else [self.weight, self.weight]

    def times(self, x: nn.Tensor, module: str) -> nn.Tensor:
        one = isinstance(x.shape[1], int)
        kernel = (products.vector_product if one else products.matrix_product)(self.form, self.lanes, module)
        name = f"{'vector' if one else 'matrix'}_product_{self.form.name}__{module}"
        return nn.op.tensor_ir_op(kernel, name, [x, *self.stored()], _tensor(1, x.shape[1], self.form.rows))

    def rows(self, tokens: nn.Tensor, scale: float) -> nn.Tensor:
        out = _tensor(1, tokens.shape[1], self.form.columns)
        return nn.op.tensor_ir_op(
            products.embedding(self.form, scale), "rows__token_embd", [tokens, *self.stored()], out
        )


class Norm(nn.Module):
    def __init__(self, model: Mapping[str, Any], lanes: int) -> None:
        self.width, self.epsilon, self.lanes, self.number = model["width"], model["epsilon"], lanes, model["number"]
        self.centred = model["centred"]
        self.weight = nn.Parameter((self.width,), self.number)
        if self.centred:
            self.bias = nn.Parameter((self.width,), self.number)

    def of_sum(self, a: nn.Tensor, b: nn.Tensor | None, module: str) -> list[nn.Tensor]:
        """The sum normalized, and the sum."""
        kernel = kernels.norm(self.width, self.epsilon, self.lanes, module, self.number, b is not None, self.centred)
        args = [a, a if b is None else b, self.weight, self.bias if self.centred else self.weight]
        return nn.op.tensor_ir_op(kernel, f"norm__{module}", args, [_tensor(*a.shape), _tensor(*a.shape)])


class Attention(nn.Module):
    def __init__(self, model: Mapping[str, Any], forms: Mapping[str, Form], name: str, lanes: int) -> None:
        self.model, self.lanes = model, lanes
        self.qkv_proj = Matrix(forms[f"{name}.qkv_proj"], lanes)
        if model["qkv_bias"]:
            self.qkv_proj.bias = nn.Parameter((self.qkv_proj.form.rows,), model["number"])
        self.o_proj = Matrix(forms[f"{name}.o_proj"], lanes)
        if model["qk_norm"]:
            self.qk_norm = nn.Parameter((model["heads"] + model["kv_heads"], model["head"]), model["number"])

    def projected(self, x: nn.Tensor) -> nn.Tensor:
        """Queries, keys and values before they are rotated."""
        qkv, model = self.qkv_proj.times(x, "attn_qkv"), self.model
        if model["qkv_bias"]:
            kernel = kernels.biased(qkv.shape[2], model["number"])
            qkv = nn.op.tensor_ir_op(kernel, "add__attn_qkv", [qkv, self.qkv_proj.bias], _tensor(*qkv.shape))
        if model["qk_norm"]:
            sizes = [model[each] for each in ("heads", "kv_heads", "head", "epsilon")]
            kernel = kernels.heads_norm(*sizes, self.lanes, model["number"], model["centred"])
            qkv = nn.op.tensor_ir_op(kernel, "norm__attn_qk_norm", [qkv, self.qk_norm], _tensor(*qkv.shape))
        return qkv

    def forward(self, x: nn.Tensor, turns: list[nn.Tensor], kv: nn.Tensor, layer: int, position: Any) -> Any:
        sizes = [self.model[each] for each in ("heads", "kv_heads", "head", "layers")]
        count, number = x.shape[1], tirx.IntImm("int64", layer)
        inner = _tensor(1, count, sizes[0] * sizes[2])
        q, kv = nn.op.tensor_ir_inplace_op(
            kernels.rotation(*sizes, self.model["rotated"]),
            "rotate__attn_qk",
            [self.projected(x), *turns, kv, number, position],
            [-1, 3],
            [inner, _tensor(*kv.shape)],
        )
        queries = 1 if isinstance(count, int) else 4
        kernel = kernels.attention(*sizes, self.lanes, queries)
        attended = nn.op.tensor_ir_op(kernel, "attend__attention", [q, kv, number, position], inner)
        return self.o_proj.times(attended, "attn_output"), kv


class FeedForward(nn.Module):
    def __init__(self, model: Mapping[str, Any], forms: Mapping[str, Form], name: str, lanes: int) -> None:
        self.inner, self.gelu, self.lanes = model["inner"], model["gelu"], lanes
        self.gate_up_proj = Matrix(forms[f"{name}.gate_up_proj"], lanes)
        self.down_proj = Matrix(forms[f"{name}.down_proj"], lanes)

    def forward(self, x: nn.Tensor) -> nn.Tensor:
        both, out = self.gate_up_proj.times(x, "ffn_gate_up"), _tensor(1, x.shape[1], self.inner)
        kernel, name = kernels.gated(self.inner, self.lanes, self.gelu), "gelu" if self.gelu else "silu"
        gated = nn.op.tensor_ir_op(kernel, f"{name}__ffn_gated", [both], out)
        return self.down_proj.times(gated, "ffn_down")


class Layer(nn.Module):
    def __init__(self, model: Mapping[str, Any], forms: Mapping[str, Form], name: str, lanes: int) -> None:
        self.self_attn = Attention(model, forms, f"{name}.self_attn", lanes)
        self.mlp = FeedForward(model, forms, f"{name}.mlp", lanes)
        self.input_layernorm = Norm(model, lanes)
        self.post_attention_layernorm = None if model["parallel"] else Norm(model, lanes)

    def forward(self, stream: Any, added: Any, turns: Any, kv: Any, layer: int, position: Any) -> Any:
        """The stream, what is to be added to it, and the cache."""
        normal, stream = self.input_layernorm.of_sum(stream, added, "attn_norm")
        attended, kv = self.self_attn(normal, turns, kv, layer, position)
        if self.post_attention_layernorm is None:
            beside, kernel = self.mlp(normal), kernels.both(normal.shape[2])
            return stream, nn.op.tensor_ir_op(kernel, "add__layer", [attended, beside], _tensor(*normal.shape)), kv
        normal, stream = self.post_attention_layernorm.of_sum(stream, attended, "ffn_norm")
        return stream, self.mlp(normal), kv


class Body(nn.Module):
    def __init__(self, model: Mapping[str, Any], forms: Mapping[str, Form], lanes: int) -> None:
        self.embed_tokens = Matrix(forms["model.embed_tokens"], lanes)
        self.layers = nn.ModuleList([Layer(model, forms, f"model.layers.{i}", lanes) for i in range(model["layers"])])
        self.norm = Norm(model, lanes)
        self.inv_freq = nn.Parameter((model["rotated"] // 2,), FLOAT)


class Llama(nn.Module):
    """`decode` takes one token, `prefill` any number; both put them behind `position` of the cache and give the logits of the last."""

    def __init__(self, model: Mapping[str, Any], lanes: int) -> None:
        forms = {name: Form(**form) for name, form in model["matrices"].items()}
        self.sizes = model
        self.model = Body(model, forms, lanes)
        self.lm_head = Matrix(forms["lm_head"], lanes) if "lm_head" in forms else None

    def decode(self, tokens: nn.Tensor, kv: nn.Tensor, position: Any) -> tuple[nn.Tensor, nn.Tensor]:
        half, count = self.sizes["rotated"] // 2, tokens.shape[1]
        turns = nn.op.tensor_ir_op(
            kernels.angles(half),
            "angles__rotations",
            [tokens, self.model.inv_freq, position],
            [_tensor(count, half), _tensor(count, half)],
        )
        stream, added = self.model.embed_tokens.rows(tokens, self.sizes["embedding_scale"]), None
        for i, layer in enumerate(self.model.layers):
            stream, added, kv = layer(stream, added, turns, kv, i, position)
        width = self.sizes["width"]
        final = nn.op.tensor_ir_op(kernels.last(width), "last__last_position", [stream, added], _tensor(1, 1, width))
        normal, _ = self.model.norm.of_sum(final, None, "output_norm")
        head = self.lm_head or self.model.embed_tokens
        return head.times(normal, "output"), kv

    prefill = decode

    def module(self) -> tuple[Any, list[str]]:
        """As functions of Relax, and the names of the weights in the order in which these take them."""
        cache = nn.spec.Tensor((self.sizes["layers"], 2, self.sizes["kv_heads"], "size"), FLOAT)
        modes = {"param_mode": "packed", "effect_mode": "none"}
        functions = {
            name: {"tokens": nn.spec.Tensor((1, count), "int32"), "kv": cache, "position": int, "$": modes}
            for name, count in (("prefill", "count"), ("decode", 1))
        }
        module, parameters = self.export_tvm(spec=functions)[:2]
        return module, [name for name, _ in parameters]


def _sizes_in_order() -> Any:
    """What a function computes of sizes stands in the order of their places: TVM goes by where its objects happen to lie."""

    def sort(module: Any, _: Any) -> Any:
        for name, function in module.functions_items():
            if name.name_hint.startswith("shape_func") and isinstance(function.body, tirx.SeqStmt):
                stores = sorted(function.body.seq, key=lambda store: int(store.indices[0]))
                module.update_func(name, function.with_body(tirx.SeqStmt(stores)))
        return module

    return transform.module_pass(sort, opt_level=0)


def passes() -> list[Any]:
    """From operators to calls of the virtual machine; memory is planned, and used again."""
    t = relax.transform
    return [
        *(t.LegalizeOps(), t.DeadCodeElimination(), t.ToNonDataflow(), t.RemovePurityChecking(), t.CallTIRRewrite()),
        *(t.StaticPlanBlockMemory(), t.LowerAllocTensor(), t.KillAfterLastUse(), t.LowerRuntimeBuiltin()),
        *(t.ComputePrimValue(), t.VMShapeLower(), _sizes_in_order(), t.AttachGlobalSymbol()),
    ]
