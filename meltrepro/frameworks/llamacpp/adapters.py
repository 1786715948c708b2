"""LoRA adapters as GGUF files: what one is, and whether it is one for a model, told by both headers.

llama.cpp looks too, when the device has loaded the model; here it is known before anything is measured, and said in a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp import gguf
from meltrepro.frameworks.llamacpp.header import ARCHITECTURE, GgufHeader, Tensor, called, shown
from meltrepro.frameworks.llamacpp.options import OLD

_TYPE, _KIND, _ALPHA = "general.type", "adapter.type", "adapter.lora.alpha"
_INVOCATION = "adapter.alora.invocation_tokens"
_FLOAT_32 = 6
_A, _B = ".lora_a", ".lora_b"
_EMBEDDING = "token_embd.weight"
_OTHER = "name an adapter of this very model"
_MAKE = "make one of a PEFT adapter with llama.cpp's convert_lora_to_gguf.py"


def refusal(release: str) -> str | None:
    """Why a release takes no adapters of this format; `None` where it does."""
    if release != OLD:
        return None
    return f"release {release} reads none as GGUF: its own format (ggla) says neither architecture nor shapes"


def check(adapter: Path, model: Path | None) -> None:
    """Raise `ModelError` where a file is no LoRA adapter, or none for a model's file."""
    name, found = called(adapter), gguf.scan(adapter)
    if found.text(_TYPE) != "adapter":
        what = shown(found.text(_TYPE) or "nothing of it")
        raise ModelError(f"{name} is no adapter: its header says {what} ({_TYPE}), expected adapter", hint=_MAKE)
    if found.text(_KIND) != "lora":
        what = shown(found.text(_KIND) or "no kind")
        raise ModelError(f"{name} is an adapter of another kind: {what} ({_KIND}), expected lora", hint=_MAKE)
    if found.holds(_INVOCATION):
        raise ModelError(
            f"{name} is an activated LoRA, which counts from certain tokens on ({_INVOCATION}); here an adapter counts for all",
            hint="name a LoRA adapter without invocation tokens",
        )
    alpha = found.values.get(_ALPHA)
    if alpha is None or alpha.kind != _FLOAT_32:
        raise ModelError(f"{name} is a damaged adapter: it has no number {_ALPHA}", hint=_MAKE)
    if not found.tensors:
        raise ModelError(f"{name} is an adapter without tensors, or a truncated one", hint=_MAKE)
    gguf.require_end(name, found)
    pairs = dict(_pairs(name, found))
    if model is not None:
        _require_fit(name, found, pairs, gguf.check(model))


def _pairs(name: str, found: GgufHeader) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """The two matrices of each weight, by its name; norms are passed over, as llama.cpp does."""
    tensors = {each.name: each for each in found.tensors}
    for each in found.tensors:
        weight = each.name.removesuffix(_A).removesuffix(_B)
        if weight == each.name:
            if not each.name.endswith("_norm.weight"):
                raise ModelError(
                    f"{name} is no LoRA adapter: its tensor {shown(each.name)} is no {_A} or {_B}", hint=_MAKE
                )
            continue
        a, b = tensors.get(weight + _A), tensors.get(weight + _B)
        if a is None or b is None:
            missing = _A if a is None else _B
            raise ModelError(f"{name} is a damaged adapter: {shown(weight)} has no {missing}", hint=_MAKE)
        yield weight, (a, b)


def _require_fit(name: str, found: GgufHeader, pairs: dict[str, tuple[Tensor, Tensor]], model: GgufHeader) -> None:
    """Raise `ModelError` where an adapter's matrices are not for a model's."""
    if found.architecture != model.architecture:
        theirs, ours = shown(model.architecture or "none"), shown(found.architecture or "none")
        raise ModelError(
            f"{name} is an adapter for architecture {ours}, and the model's is {theirs} ({ARCHITECTURE})", hint=_OTHER
        )
    weights = {each.name: each for each in model.tensors}
    for weight, (a, b) in pairs.items():
        if weight not in weights:
            raise ModelError(f"{name} changes {shown(weight)}, which the model does not have", hint=_OTHER)
        if (why := _misfit(weights[weight], a, b)) is not None:
            raise ModelError(f"{name} does not fit {shown(weight)} of the model: {why}", hint=_OTHER)


def _misfit(weight: Tensor, a: Tensor, b: Tensor) -> str | None:
    """Why two matrices cannot be added to a weight as their product; those of the embedding stand the other way round."""
    ins, outs, *experts = (*weight.dimensions, 1)[: max(len(weight.dimensions), 2)]
    (a_in, a_out, *a_more), (b_in, b_out, *b_more) = (_whole(each, 2 + len(experts)) for each in (a, b))
    rank, wanted = (a_in, (a_out, b_out)) if weight.name == _EMBEDDING else (a_out, (b_out, a_in))
    if b_in == rank and wanted == (outs, ins) and a_more == b_more == experts:
        return None
    shapes = (" x ".join(map(str, each.dimensions)) for each in (weight, a, b))
    return "it has {} numbers, {} and {} were added to it".format(*shapes)


def _whole(tensor: Tensor, count: int) -> tuple[int, ...]:
    """The extents of a tensor, of which those that are 1 may not be written."""
    return (*tensor.dimensions, *[1] * max(count - len(tensor.dimensions), 0))
