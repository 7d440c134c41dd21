"""BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805): the paper's encoder with learned positions, two kinds of
token, and a norm on the embeddings. What RoBERTa and ELECTRA share with it stands here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublayer import config
from sublayer.hub.families.heads import BASE, TEXT, encoder_family, head_rules, norm_rules, read_head, settle_pooler
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS
from sublayer.hub.family import Settings
from sublayer.hub.rules import Rule, affine, affine_joined, prefixed, same

DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
OLD_NAMES = ((r"gamma$", "weight"), (r"beta$", "bias"))
"""How the first checkpoints, converted from TensorFlow, name a norm's tensors."""
OLD_BUFFERS = r"(\w+\.)?embeddings\.(position_ids|token_type_ids)"

# --- config: what all of them share ------------------------------------------------------------------------------


def read_frame(settings: Settings, *, offset: int = 0, width: int | None = None) -> dict[str, Any]:
    """The tree's fields but its head, by the usual keys.

    Args:
        offset: rows of the table of positions before the first token's. width: of the embeddings.
    """
    settings.only("position_embedding_type", "absolute")
    settings.only("is_decoder", False)
    settings.only("add_cross_attention", False)
    dropout = float(settings.need("hidden_dropout_prob"))
    norm = read_norm(settings)
    block = config.Block(
        attention=config.Attention(
            heads=settings.need("num_attention_heads"), dropout=float(settings.need("attention_probs_dropout_prob"))
        ),
        feed_forward=config.PositionWise(
            hidden=settings.need("intermediate_size"), activation=settings.one_of("hidden_act", ACTIVATIONS, "gelu")
        ),
        norm=norm,
        norm_placement="post",
        dropout=dropout,
    )
    return {
        "dim": settings.need("hidden_size"),
        "vocab_size": settings.need("vocab_size"),
        "max_length": settings.need("max_position_embeddings") - offset,
        "embedding": config.Embedding(
            scale=False, width=width, token_types=settings.need("type_vocab_size"), norm=norm, dropout=dropout
        ),
        "encoder": config.Stack(
            layers=settings.need("num_hidden_layers"), block=block, position=config.Learned(offset=offset)
        ),
    }


def read_norm(settings: Settings) -> config.LayerNorm:
    return config.LayerNorm(eps=float(settings.need("layer_norm_eps")))


def head_dropout(settings: Settings) -> float:
    """Dropout before the labels."""
    return float(settings.get("classifier_dropout", settings.need("hidden_dropout_prob")))


def write_frame(tree: config.EncoderOnly) -> dict[str, Any]:
    """The keys of `read_frame`, from the first block: who exports sees by reading it again what that does not say."""
    block, position = tree.encoder.blocks[0], tree.encoder.position
    attention, part, norm = block.attention, block.feed_forward, block.norm
    return {
        "vocab_size": tree.vocab_size,
        "hidden_size": tree.dim,
        "num_hidden_layers": tree.encoder.layers,
        "num_attention_heads": attention.heads,
        "intermediate_size": part.hidden,
        "hidden_act": ACTIVATION_NAMES[part.activation],
        "hidden_dropout_prob": block.dropout,
        "attention_probs_dropout_prob": attention.dropout,
        "max_position_embeddings": tree.max_length + (position.offset if isinstance(position, config.Learned) else 0),
        "type_vocab_size": max(tree.embedding.token_types, 1),
        "layer_norm_eps": norm.eps,
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
    for index, block in enumerate(tree.encoder.blocks):
        found += prefixed(f"layers.{index}.", f"encoder.layer.{index}.", _layer_rules(block, tree.dim))
    pooler = affine("pooler", f"{prefix}pooler.dense") if tree.pooler else []
    return [*prefixed("encoder.", prefix, found), *pooler]


def _layer_rules(block: config.Block, dim: int) -> list[Rule]:
    """[D, D] of queries, keys and values each are one matrix of ours, [3 D, D]."""
    theirs = [f"attention.self.{name}" for name in ("query", "key", "value")]
    return [
        *affine_joined("self_attention.qkv", theirs, [dim] * 3),
        *affine("self_attention.output", "attention.output.dense"),
        *norm_rules("self_attention_sublayer.outer", "attention.output.LayerNorm", block.norm),
        *affine("feed_forward.up", "intermediate.dense"),
        *affine("feed_forward.down", "output.dense"),
        *norm_rules("feed_forward_sublayer.outer", "output.LayerNorm", block.norm),
    ]


# --- BERT --------------------------------------------------------------------------------------------------------


def _read(settings: Settings, task: str) -> config.EncoderOnly:
    activation = settings.one_of("hidden_act", ACTIVATIONS, "gelu")
    masked = config.MaskedLanguage(activation=activation, norm=read_norm(settings))
    head = read_head(settings, task, masked, activation=None, dropout=head_dropout)
    return config.EncoderOnly(**read_frame(settings), head=head, pooler=task in (BASE, TEXT))


def _rules(tree: config.EncoderOnly, prefix: str) -> list[Rule]:
    theirs = "cls.predictions.transform"
    masked = (f"{theirs}.dense", f"{theirs}.LayerNorm", "cls.predictions.bias")
    return encoder_rules(tree, prefix) + head_rules(tree.head, masked)


def _ties(_: config.EncoderOnly, prefix: str) -> dict[str, str]:
    return {
        "cls.predictions.decoder.weight": f"{prefix}embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }


BERT = encoder_family(
    "bert",
    "Bert",
    "bert",
    DEFAULTS,
    _read,
    write_frame,
    _rules,
    ties=_ties,
    settle=settle_pooler,
    masked=("BertForMaskedLM", "cls.predictions.transform.dense.weight"),
    older=OLD_NAMES,
    # A pretrained checkpoint keeps what it was trained with beside the part that is asked for: its pooler, its heads.
    ignored=(OLD_BUFFERS,),
    apart=(r"(bert\.)?pooler\.dense\.(weight|bias)", r"cls\.(predictions|seq_relationship)\..*"),
)
