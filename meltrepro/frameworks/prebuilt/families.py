"""Families of models: how each differs from Llama's, as the files of llama.cpp have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_QUERIES_BIASED = ("attn_q.bias", "attn_k.bias", "attn_v.bias")
_HEADS_NORMED = ("attn_q_norm.weight", "attn_k_norm.weight")


@dataclass(frozen=True)
class Family:
    """Switches of one architecture; what a single model has of the parts that may be there, its tensors tell."""

    neighbours: bool = False
    """Numbers of a head that turn together are neighbours; else they are half of what turns apart."""
    centred: bool = False
    """Norms take the mean away first, and add a bias."""
    gelu: bool = False
    """Instead of SiLU, with the hyperbolic tangent."""
    scaled: bool = False
    """What tokens become is multiplied with the root of the width."""
    needs: tuple[str, ...] = ()
    """Tensors of a layer besides Llama's."""
    may_have: tuple[tuple[str, ...], ...] = ()
    """Those that stand or fall together, in all layers."""
    may_lack: tuple[str, ...] = ()

    @property
    def epsilon(self) -> str:
        """What llama.cpp calls that of the norms."""
        return f"attention.{'layer_norm' if self.centred else 'layer_norm_rms'}_epsilon"


FAMILIES: Mapping[str, Family] = {
    "llama": Family(neighbours=True),
    "qwen2": Family(needs=_QUERIES_BIASED),
    "qwen3": Family(needs=_HEADS_NORMED),
    "gemma": Family(gelu=True, scaled=True),
    "stablelm": Family(
        centred=True,
        needs=("attn_norm.bias", "ffn_norm.bias"),
        may_have=(_QUERIES_BIASED, _HEADS_NORMED),
        may_lack=("ffn_norm.weight", "ffn_norm.bias"),  # where attention and the rest of a layer are beside each other
    ),
}
"""By architecture. Gemma's norms hold the 1 that they are added to."""
