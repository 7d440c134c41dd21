"""The encoder-decoder families, and what of each is tried."""

from __future__ import annotations

from typing import Any

from parity import Row

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 44,
    "decoder_ffn_dim": 36,
    "max_position_embeddings": 30,
    "activation_function": "relu",
}
T5: dict[str, Any] = {
    "vocab_size": 61,
    "d_model": 32,
    "d_kv": 10,
    "d_ff": 44,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 9,
    "decoder_start_token_id": 0,
}


def row(
    name: str, architecture: str, base: dict[str, Any], generation: dict[str, Any] | None = None, **over: Any
) -> Row:
    return Row(name, architecture, base | over, generation=generation or {})


def marian(name: str, generation: dict[str, Any] | None = None, **over: Any) -> Row:
    tokens = {"pad_token_id": 60, "decoder_start_token_id": 60, "eos_token_id": 0, "forced_eos_token_id": 0}
    return row(f"marian, {name}", "MarianMTModel", SIZES | tokens, generation, **over)


def fairseq(name: str, family: str, generation: dict[str, Any] | None = None, **over: Any) -> Row:
    return row(f"{family}, {name}", f"{family}ForConditionalGeneration", SIZES, generation, **over)


ROWS: tuple[Row, ...] = (
    marian("as OPUS-MT", {"bad_words_ids": [[60]]}, scale_embedding=True, activation_function="swish"),
    marian("plain", activation_function="gelu"),
    fairseq("plain", "Pegasus", scale_embedding=True),
    fairseq("silu", "Pegasus", activation_function="silu", forced_eos_token_id=None),
    fairseq("plain", "Bart", activation_function="gelu"),
    fairseq("as bart-large-cnn", "Bart", {"forced_bos_token_id": 0}, scale_embedding=True),
    fairseq(
        "of many languages", "MBart", {"decoder_start_token_id": 2, "forced_bos_token_id": 7}, scale_embedding=True
    ),
    fairseq("plain", "MBart", {"decoder_start_token_id": 9}, activation_function="gelu"),
    fairseq("as NLLB", "M2M100", {"forced_bos_token_id": 11}),
    fairseq("other padding", "M2M100", {"suppress_tokens": [3, 4, 5]}, pad_token_id=3, scale_embedding=False),
    row("t5 1.0", "T5ForConditionalGeneration", T5),
    row("t5, gated, scaled", "T5ForConditionalGeneration", T5, feed_forward_proj="gated-silu", layer_norm_epsilon=1e-3),
    row("t5 1.1", "T5ForConditionalGeneration", T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    row("t5, one head", "T5ForConditionalGeneration", T5, num_heads=1, d_kv=3, num_decoder_layers=None),
)
"""T5 1.1 has a projection of its own, which the harness gives it: see `test_seq2seq`."""
