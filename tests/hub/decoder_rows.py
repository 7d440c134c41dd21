"""The decoder families, and what of each is tried."""

from __future__ import annotations

from typing import Any

from parity import Row

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def row(name: str, architecture: str, **settings: Any) -> Row:
    return Row(name, architecture, SIZES | settings)


LINEAR = {"rope_type": "linear", "factor": 3.0}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}

ROWS: tuple[Row, ...] = (
    row("llama", "LlamaForCausalLM"),
    row("llama, tied, biases", "LlamaForCausalLM", tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    row("llama, one key head, wide heads", "LlamaForCausalLM", num_key_value_heads=1, head_dim=10),
    row("llama, other base", "LlamaForCausalLM", rope_parameters={"rope_type": "default", "rope_theta": 77.0}),
    row(
        "llama, linear", "LlamaForCausalLM", rope_parameters={"rope_type": "linear", "factor": 3.0, "rope_theta": 99.0}
    ),
    row(
        "llama 3.1",
        "LlamaForCausalLM",
        rope_parameters=LLAMA3 | {"rope_theta": 500.0, "original_max_position_embeddings": 24},
    ),
    row("llama, yarn", "LlamaForCausalLM", rope_parameters=YARN | {"rope_theta": 100.0}, head_dim=16),
)
