"""The encoder-only families, and what of each is tried."""

from __future__ import annotations

from typing import Any

from parity import Row

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 20,
    "pad_token_id": 0,
}
DISTIL: dict[str, Any] = {
    "vocab_size": 61,
    "dim": 32,
    "hidden_dim": 44,
    "n_layers": 2,
    "n_heads": 4,
    "max_position_embeddings": 20,
}
MODERN: dict[str, Any] = SIZES | {
    "num_hidden_layers": 5,
    "local_attention": 6,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 300.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
    },
}
LABELS: dict[str, Any] = {
    "id2label": {0: "bad", 1: "fair", 2: "good"},
    "label2id": {"bad": 0, "fair": 1, "good": 2},
}


def bert(name: str, task: str, types: int = 2, **settings: Any) -> Row:
    return Row(f"bert, {name}", f"Bert{task}", SIZES | {"type_vocab_size": types} | settings, types=types)


def roberta(name: str, task: str, family: str = "Roberta", **settings: Any) -> Row:
    return Row(f"{family}, {name}", f"{family}{task}", SIZES | {"type_vocab_size": 1, "pad_token_id": 1} | settings)


def electra(name: str, task: str, **settings: Any) -> Row:
    return Row(f"electra, {name}", f"Electra{task}", SIZES | {"embedding_size": 20} | settings, types=2)


def distilbert(name: str, task: str, **settings: Any) -> Row:
    return Row(f"distilbert, {name}", f"DistilBert{task}", DISTIL | settings)


def modernbert(name: str, task: str, **settings: Any) -> Row:
    return Row(f"modernbert, {name}", f"ModernBert{task}", MODERN | settings)


BIASED: dict[str, Any] = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}

ROWS: tuple[Row, ...] = (
    bert("base", "Model"),
    bert("masked", "ForMaskedLM", hidden_act="gelu_new", layer_norm_eps=1e-3),
    bert("text", "ForSequenceClassification", types=3, hidden_act="relu", **LABELS),
    bert("tokens", "ForTokenClassification", **LABELS),
    roberta("base", "Model"),
    roberta("masked", "ForMaskedLM", hidden_act="relu", pad_token_id=3),
    roberta("text", "ForSequenceClassification", **LABELS),
    roberta("tokens", "ForTokenClassification", **LABELS),
    roberta("masked", "ForMaskedLM", "XLMRoberta"),
    roberta("text", "ForSequenceClassification", "XLMRoberta"),
    distilbert("base", "Model"),
    distilbert("masked", "ForMaskedLM", activation="relu"),
    distilbert("text", "ForSequenceClassification", **LABELS),
    distilbert("tokens", "ForTokenClassification", **LABELS),
    electra("base", "Model"),
    electra("discriminator", "ForPreTraining", hidden_act="relu"),
    electra("discriminator, one width", "ForPreTraining", embedding_size=32),
    electra("text", "ForSequenceClassification", **LABELS),
    electra("tokens", "ForTokenClassification", **LABELS),
    modernbert("base", "Model"),
    modernbert("masked", "ForMaskedLM", hidden_activation="silu", norm_eps=1e-3),
    modernbert("masked, biases, untied", "ForMaskedLM", tie_word_embeddings=False, **BIASED),
    modernbert("masked, odd window", "ForMaskedLM", local_attention=5, decoder_bias=False),
    modernbert("text, class", "ForSequenceClassification", **LABELS),
    modernbert("text, mean", "ForSequenceClassification", classifier_pooling="mean", **BIASED),
    modernbert("tokens", "ForTokenClassification", classifier_activation="relu", **LABELS),
    modernbert("all see all", "ForMaskedLM", layer_types=["full_attention"] * 5),
)
