"""The one table of GGUF, both ways: what llama.cpp calls a checkpoint's settings and tensors, and how it keeps them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

# What llama.cpp calls a setting (after the architecture's name) -> what a config.json calls it.
LLAMA_LIKE = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
GPT2 = {
    "block_count": "n_layer",
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
GEMMA = {
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
# Settings that say nothing that the config has not said already.
REDUNDANT = frozenset({"rope.dimension_count", "attention.value_length", "attention.sliding_window_pattern"})


OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
INSIDE = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
PRE = INSIDE | {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
SANDWICH = INSIDE | {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


@dataclass(frozen=True)
class Architecture:
    """What an architecture's GGUF files differ in from the checkpoint they were made from.

    model_type, class_name: of the config.json. fixed: said by the architecture. settings: llama.cpp's names and those
    there. outside, inside: tensors of the model and of its layers, llama.cpp's names and those of the
    checkpoint; layers: what those of the checkpoint's layers begin with.
    interleaved: rows of the query and key projections stand pairwise for the rotation, not in halves.
    plus_one: weights of norms are stored with 1 added. turned: the checkpoint has matrices of layers the other way
    around.
    """

    model_type: str
    class_name: str
    fixed: Mapping[str, Any]
    settings: Mapping[str, str] = field(default_factory=lambda: LLAMA_LIKE)
    outside: Mapping[str, str] = field(default_factory=lambda: OUTSIDE)
    inside: Mapping[str, str] = field(default_factory=lambda: PRE)
    layers: str = "model.layers."
    interleaved: bool = False
    plus_one: bool = False
    turned: bool = False


GELU = {"hidden_activation": "gelu_pytorch_tanh"}
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(
        "llama", "LlamaForCausalLM", {"hidden_act": "silu", "attention_bias": False}, interleaved=True
    ),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", {"hidden_act": "silu"}),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", {"hidden_act": "silu", "attention_bias": False}),
    "gemma": Architecture("gemma", "GemmaForCausalLM", GELU, plus_one=True),
    "gemma2": Architecture("gemma2", "Gemma2ForCausalLM", GELU, LLAMA_LIKE | GEMMA, inside=SANDWICH, plus_one=True),
    "gemma3": Architecture(
        "gemma3_text",
        "Gemma3ForCausalLM",
        GELU | {"rope_local_base_freq": 10_000.0},
        LLAMA_LIKE | GEMMA,
        inside=SANDWICH,
        plus_one=True,
    ),
    "gpt2": Architecture(
        "gpt2",
        "GPT2LMHeadModel",
        {"activation_function": "gelu_new"},
        GPT2,
        {
            "token_embd.weight": "transformer.wte.weight",
            "position_embd.weight": "transformer.wpe.weight",
            "output_norm.weight": "transformer.ln_f.weight",
            "output_norm.bias": "transformer.ln_f.bias",
            "output.weight": "lm_head.weight",
        },
        {
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        layers="transformer.h.",
        turned=True,
    ),
}

LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, whose scores are scaled by (D / heads) ** -0.5 rather than by their heads' width."""

FACTORS = "rope_freqs.weight"
"""What the frequency of each rotated pair is divided by, in place of the scaling in Llama 3's config."""


def name_of(tensor: str, kind: Architecture) -> str | None:
    """The name that a tensor has in the checkpoint, or None where we do not know it."""
    if tensor in kind.outside:
        return kind.outside[tensor]
    parts = tensor.split(".")
    if len(parts) != 4 or parts[0] != "blk":
        return None
    _, layer, part, what = parts
    return f"{kind.layers}{layer}.{kind.inside[part]}.{what}" if part in kind.inside else None


def original_name(theirs: str, kind: Architecture) -> str:
    """`name_of` backwards."""
    outside = {name: tensor for tensor, name in kind.outside.items()}
    if theirs in outside:
        return outside[theirs]
    layer, _, rest = theirs.removeprefix(kind.layers).partition(".")
    part, _, what = rest.rpartition(".")
    inside = {name: tensor for tensor, name in kind.inside.items()}
    return f"blk.{layer}.{inside[part]}.{what}"


def in_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows of a projection whose rotated pairs stand side by side, with the pairs' first halves before their second.

    Shape: [heads * d, ...] -> the same.
    """
    width = rows.shape[0] // heads
    return rows.view(heads, width // 2, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def in_pairs(rows: Tensor, heads: int) -> Tensor:
    """`in_halves` backwards."""
    width = rows.shape[0] // heads
    return rows.view(heads, 2, width // 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


Moved = Callable[[Tensor], Tensor]


def moves(theirs: str, kind: Architecture, settings: Mapping[str, Any]) -> tuple[Moved, Moved]:
    """How a tensor of the checkpoint is kept in the file, and back; by its name in the checkpoint."""
    inside = theirs.startswith(kind.layers)
    for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
        if kind.interleaved and f".self_attn.{part}." in theirs:
            count = int(settings[heads])
            return partial(in_pairs, heads=count), partial(in_halves, heads=count)
    if kind.plus_one and theirs.endswith("norm.weight"):
        return (lambda weight: weight + 1.0), (lambda weight: weight - 1.0)
    if kind.turned and inside:
        turn: Moved = lambda matrix: matrix.t().contiguous() if matrix.dim() == 2 else matrix  # noqa: E731
        return turn, turn
    return (lambda tensor: tensor), (lambda tensor: tensor)
