"""BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): the paper's encoder with learned positions, two kinds of
token, and a norm on the embeddings. What RoBERTa and ELECTRA share with it stands here too.
"""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.heads import (
    BASE,
    TEXT,
    apart_rules,
    encoder_family,
    head_rules,
    norm_rules,
    projection_ties,
    read_head,
    settle_pooler,
)
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS
from sublayer.hub.family import Settings
from sublayer.hub.keys import Key
from sublayer.hub.rules import Rule, affine, numbered, prefixed, same

KEYS = (
    Key("vocab_size", "vocab_size", 30_522),
    Key("hidden_size", "dim", 768),
    Key("num_hidden_layers", "encoder.layers", 12),
    Key("num_attention_heads", "encoder.block.attention.heads", 12),
    Key("intermediate_size", "encoder.block.feed_forward.hidden", 3072),
    Key("hidden_act", "encoder.block.feed_forward.activation", "gelu", ACTIVATIONS, ACTIVATION_NAMES),
    Key("hidden_dropout_prob", "encoder.block.dropout embedding.dropout", 0.1),
    Key("attention_probs_dropout_prob", "encoder.block.attention.dropout", 0.1),
    Key("max_position_embeddings", "max_length", 512),
    Key("type_vocab_size", "embedding.token_types", 2),
    Key("layer_norm_eps", "encoder.block.norm.eps embedding.norm.eps", 1e-12),
)
FORM: dict[str, Any] = {
    "embedding": {"scale": False, "norm": {"type": "layer"}},
    "encoder": {
        "block": {"feed_forward": {"type": "position-wise"}, "norm": {"type": "layer"}, "norm_placement": "post"},
        "position": {"type": "learned"},
    },
}
OLD_NAMES = ((r"gamma$", "weight"), (r"beta$", "bias"))
"""How the first checkpoints, converted from TensorFlow, name a norm's tensors."""
OLD_BUFFERS = r"(\w+\.)?embeddings\.(position_ids|token_type_ids)"

# --- config: what all of them share ------------------------------------------------------------------------------


def require_bert(settings: Settings) -> None:
    """Refuse what is no such encoder."""
    settings.only("position_embedding_type", "absolute")
    settings.only("is_decoder", False)
    settings.only("add_cross_attention", False)


def read_norm(settings: Settings) -> config.LayerNorm:
    return config.LayerNorm(eps=float(settings.need("layer_norm_eps")))


def labels_dropout(settings: Settings) -> dict[str, float]:
    """What all heads with labels have: dropout before them."""
    return {"dropout": float(settings.get("classifier_dropout", settings.need("hidden_dropout_prob")))}


def write_bert(tree: config.EncoderOnly, frame: dict[str, Any]) -> dict[str, Any]:
    position = tree.encoder.position
    return frame | {
        "max_position_embeddings": tree.max_length + (position.offset if isinstance(position, config.Learned) else 0),
        "type_vocab_size": max(tree.embedding.token_types, 1),
        "position_embedding_type": "absolute",
    }


# --- tensors -----------------------------------------------------------------------------------------------------


def encoder_rules(tree: config.EncoderOnly, prefix: str) -> list[Rule]:
    """Embeddings, layers and, where there is one, the pooler; in theirs `prefix` stands before every name."""
    found = [
        same("embedding.tokens.weight", "embeddings.word_embeddings.weight"),
        same("position.weight", "embeddings.position_embeddings.weight"),
    ]
    if tree.embedding.token_types:
        found.append(same("embedding.types.weight", "embeddings.token_type_embeddings.weight"))
    if tree.embedding.norm is not None:
        found += norm_rules("embedding.norm", "embeddings.LayerNorm", tree.embedding.norm)
    if tree.embedding.width is not None:
        found += affine("embedding.widen", "embeddings_project")
    found += numbered(
        "layers.{}.", "encoder.layer.{}.", (_layer_rules(block, tree.dim) for block in tree.encoder.blocks)
    )
    pooler = affine("pooler", f"{prefix}pooler.dense") if tree.pooler else []
    return [*prefixed("encoder.", prefix, found), *pooler]


def _layer_rules(block: config.Block, dim: int) -> list[Rule]:
    qkv = [f"attention.self.{name}" for name in ("query", "key", "value")]
    attention, norm = "attention.output.dense", "attention.output.LayerNorm"
    return apart_rules(block, dim, qkv, attention, norm, "intermediate.dense", "output.dense", "output.LayerNorm")


# --- BERT --------------------------------------------------------------------------------------------------------


def _read(settings: Settings, task: str, tree: dict[str, Any]) -> None:
    require_bert(settings)
    activation = tree["encoder"]["block"]["feed_forward"]["activation"]
    masked = config.MaskedLanguage(activation=activation, norm=read_norm(settings))
    dropout = labels_dropout(settings)
    tree["head"] = read_head(settings, task, masked, text={"activation": None, **dropout}, word=dropout)
    tree["pooler"] = task in (BASE, TEXT)


def _rules(tree: config.EncoderOnly, prefix: str) -> list[Rule]:
    theirs = "cls.predictions.transform"
    masked = (f"{theirs}.dense", f"{theirs}.LayerNorm", "cls.predictions.bias")
    return encoder_rules(tree, prefix) + head_rules(tree.head, masked)


BERT = encoder_family(
    "bert",
    "Bert",
    "bert",
    KEYS,
    FORM,
    _read,
    _rules,
    write=write_bert,
    ties=projection_ties("cls.predictions.decoder", "cls.predictions.bias"),
    settle=settle_pooler,
    masked=("BertForMaskedLM", "cls.predictions.transform.dense.weight"),
    older=OLD_NAMES,
    # A pretrained checkpoint keeps what it was trained with beside the part that is asked for: its pooler, its heads.
    ignored=(OLD_BUFFERS,),
    apart=(r"(bert\.)?pooler\.dense\.(weight|bias)", r"cls\.(predictions|seq_relationship)\..*"),
)
