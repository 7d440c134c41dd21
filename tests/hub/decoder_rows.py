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

QWEN_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
CAPS: dict[str, Any] = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
GEMMA2_BARE: dict[str, Any] = {
    "head_dim": 8,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "layer_types": ["full_attention", "full_attention"],
    "attention_bias": True,
}
HALF = {"rope_type": "default", "rope_theta": 99.0, "partial_rotary_factor": 0.5}
OWN_BASES = "olmo-3, a base for each kind of layers"
"""The row that only transformers 5 has words for."""
LLAMA3_SHORT = LLAMA3 | {"rope_theta": 500.0, "original_max_position_embeddings": 24}


def gpt2(name: str, **settings: Any) -> Row:
    sizes = {"vocab_size": 61, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 64}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return Row(name, "GPT2LMHeadModel", sizes | tokens | settings)


def neox(name: str, **settings: Any) -> Row:
    without = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
    return Row(name, "GPTNeoXForCausalLM", without | {"num_attention_heads": 2} | settings)


def falcon(name: str, **settings: Any) -> Row:
    without = {key: value for key, value in SIZES.items() if key not in ("num_key_value_heads", "intermediate_size")}
    return Row(name, "FalconForCausalLM", without | settings)


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
    # --- Mistral, Mixtral
    row("mistral, a window shorter than the text", "MistralForCausalLM", sliding_window=5),
    row("mistral, no window, wide heads", "MistralForCausalLM", sliding_window=None, head_dim=6),
    row("mixtral", "MixtralForCausalLM", num_local_experts=5, num_experts_per_tok=2, sliding_window=6),
    row("mixtral, one expert active", "MixtralForCausalLM", num_local_experts=3, num_experts_per_tok=1),
    # --- SmolLM2 is a Llama; SmolLM3
    row("smollm2", "LlamaForCausalLM", tie_word_embeddings=True, num_attention_heads=8, num_key_value_heads=1),
    row("smollm3", "SmolLM3ForCausalLM", num_hidden_layers=4, no_rope_layers=[1, 0, 1, 1]),
    row(
        "smollm3, windows where there are no positions",
        "SmolLM3ForCausalLM",
        num_hidden_layers=4,
        no_rope_layer_interval=2,
        use_sliding_window=True,
        sliding_window=4,
        tie_word_embeddings=False,
    ),
    # --- Qwen
    row("qwen2", "Qwen2ForCausalLM"),
    row("qwen2, tied, yarn", "Qwen2ForCausalLM", tie_word_embeddings=True, rope_parameters=YARN | {"rope_theta": 77.0}),
    row(
        "qwen2, windows in its last layers",
        "Qwen2ForCausalLM",
        num_hidden_layers=3,
        use_sliding_window=True,
        sliding_window=5,
        max_window_layers=1,
    ),
    row("qwen3", "Qwen3ForCausalLM", head_dim=10),
    row(
        "qwen3, biases, windows",
        "Qwen3ForCausalLM",
        head_dim=8,
        attention_bias=True,
        layer_types=["sliding_attention", "full_attention"],
        use_sliding_window=True,
        sliding_window=3,
    ),
    row("qwen3-moe", "Qwen3MoeForCausalLM", head_dim=12, **QWEN_EXPERTS),
    row(
        "qwen3-moe, some layers without experts",
        "Qwen3MoeForCausalLM",
        num_hidden_layers=4,
        norm_topk_prob=True,
        mlp_only_layers=[1],
        decoder_sparse_step=2,
        use_sliding_window=True,
        sliding_window=6,
        **QWEN_EXPERTS,
    ),
    # --- Gemma
    row("gemma", "GemmaForCausalLM", head_dim=10),
    row("gemma, one key head", "GemmaForCausalLM", head_dim=8, num_key_value_heads=1, hidden_act="gelu"),
    row("gemma 2", "Gemma2ForCausalLM", head_dim=10, sliding_window=5, query_pre_attn_scalar=13, **CAPS),
    row("gemma 2, no caps", "Gemma2ForCausalLM", **GEMMA2_BARE),
    row(
        "gemma 3",
        "Gemma3ForCausalLM",
        head_dim=10,
        num_hidden_layers=4,
        sliding_window=5,
        query_pre_attn_scalar=7,
        sliding_window_pattern=3,
        rope_parameters={
            "full_attention": LINEAR | {"rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
    ),
    # --- Phi-3, OLMo-2 and 3, GLM-4
    row("phi-3", "Phi3ForCausalLM"),
    row(
        "phi-3, window, part of a head",
        "Phi3ForCausalLM",
        sliding_window=5,
        rope_parameters=HALF,
    ),
    row("olmo-2", "Olmo2ForCausalLM", num_key_value_heads=4),
    row("olmo-2, grouped", "Olmo2ForCausalLM", attention_bias=True, rope_parameters=LLAMA3_SHORT),
    row("olmo-3", "Olmo3ForCausalLM", num_hidden_layers=4, num_key_value_heads=4, sliding_window=5),
    row(
        "olmo-3, yarn where there is no window",
        "Olmo3ForCausalLM",
        sliding_window=3,
        layer_types=["full_attention", "sliding_attention"],
        attention_bias=True,
        rope_parameters={
            "full_attention": YARN | {"rope_theta": 500_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500_000.0},
        },
    ),
    row(
        OWN_BASES,
        "Olmo3ForCausalLM",
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        tie_word_embeddings=True,
        rope_parameters={
            "full_attention": LLAMA3_SHORT,
            "sliding_attention": LINEAR | {"rope_theta": 50.0},
        },
    ),
    row("glm-4", "Glm4ForCausalLM", head_dim=12),
    row(
        "glm-4, all of a head, no biases",
        "Glm4ForCausalLM",
        head_dim=8,
        attention_bias=False,
        tie_word_embeddings=True,
        rope_parameters=YARN | {"rope_theta": 300.0, "partial_rotary_factor": 1.0},
    ),
    # --- GPT-2
    gpt2("gpt-2"),
    gpt2("gpt-2, not tied, another width", n_inner=50, tie_word_embeddings=False, activation_function="relu"),
    gpt2("gpt-2, scores as they are", scale_attn_weights=False),
    # --- GPT-NeoX
    neox("pythia"),
    neox("gpt-neox, one after the other", use_parallel_residual=False, tie_word_embeddings=True, attention_bias=False),
    neox("gpt-neox, linear", rope_parameters=LINEAR | {"rope_theta": 300.0, "partial_rotary_factor": 0.5}),
    # --- Falcon
    falcon("falcon 7b"),
    falcon("falcon 40b", new_decoder_architecture=True, num_kv_heads=2),
    falcon("falcon 11b", new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1),
    falcon("falcon, one after the other", parallel_attn=False, multi_query=False, bias=True),
    falcon("falcon, a key for each query", multi_query=False, bias=True, tie_word_embeddings=False, ffn_hidden_size=40),
)
