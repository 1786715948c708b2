"""Makes tiny checkpoints with random weights by `transformers`, and says what it answers: random_models.py TEXT COUNT.

Runs on the interpreter of llama.cpp's converter, which has torch. Reads the tokenizer's files in /source, writes a folder for each
architecture below /out/model, whose `answer.json` has the greedy tokens and the least margin by which one was the likeliest.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

SIZES = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2}
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 64}),
    "qwen3-moe": ("qwen3_moe", {**EXPERTS, "moe_intermediate_size": 64, "norm_topk_prob": True, "head_dim": 32}),
    "llama-3": ("llama", {"rope_theta": 500000.0, "rope_scaling": LLAMA_3}),
    "mistral": ("mistral", {"sliding_window": None}),
    "gemma-3": (
        "gemma3_text",
        {"num_hidden_layers": 7, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16},
    ),
    "phi-3": ("phi3", {"sliding_window": None}),
    "phi-4-mini": (
        "phi3",
        {
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 256,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0 + i / 12 for i in range(12)],
                "long_factor": [1.0 + i for i in range(12)],
            },
        },
    ),
    "smollm3": ("smollm3", {}),
    "olmo-2": ("olmo2", {}),
    "olmoe": ("olmoe", {**EXPERTS, "num_key_value_heads": 4, "norm_topk_prob": False}),
    "granite": (
        "granite",
        {"embedding_multiplier": 6.0, "residual_multiplier": 0.4, "attention_multiplier": 0.1, "logits_scaling": 4.0},
    ),
}
"""By name the type of the model and how it differs."""


def randomize(model: Any, kind: str) -> None:
    """Numbers such that every part tells: matrices keep the size of what they multiply, norms and biases are no ones and zeros."""
    import torch

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, values in model.named_parameters():
            numbers = torch.randn(values.shape, generator=generator)
            if "embed" in name:
                numbers *= 0.03 if "gemma" in kind else 1.0
            elif values.dim() > 1:
                numbers *= 2 * values.shape[-1] ** -0.5
            else:
                around = 0.0 if "gemma" in kind or "bias" in name else 1.0
                numbers = around + 0.3 * numbers
            values.copy_(numbers)


def main() -> None:
    """Make all of them."""
    os.environ.update(USE_TORCH="1", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HOME="/out")
    tempfile.tempdir = "/out"
    text, count = sys.argv[1], int(sys.argv[2])
    sys.path[:0] = ["/bundle/packages"]
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained("/source")
    prompt = tokenizer(text, add_special_tokens=False).input_ids
    for name, (kind, changes) in CONFIGURATIONS.items():
        config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **{**SIZES, **changes})
        make: Any = AutoModelForCausalLM.from_config
        model = make(config, dtype=torch.float32, attn_implementation="eager").eval()
        randomize(model, kind)
        tokens, margins = list(prompt), []
        with torch.no_grad():
            for _ in range(count):
                likeliest = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].topk(2)
                margins.append(float(likeliest.values[0] - likeliest.values[1]))
                tokens.append(int(likeliest.indices[0]))
        folder = Path("/out/model", name)
        model.save_pretrained(folder)
        answer = {"prompt": prompt, "tokens": tokens[len(prompt) :], "margin": min(margins)}
        (folder / "answer.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
