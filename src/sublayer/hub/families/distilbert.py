"""DistilBERT (Sanh et al. 2019, https://arxiv.org/abs/1910.01108): BERT without kinds of token, under other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublayer import config
from sublayer.hub.families.bert import OLD_BUFFERS
from sublayer.hub.families.heads import encoder_family, head_rules, norm_rules, read_head
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS
from sublayer.hub.family import Settings
from sublayer.hub.rules import Rule, affine, affine_joined, prefixed, same

DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 30_522,
    "max_position_embeddings": 512,
    "n_layers": 6,
    "n_heads": 12,
    "dim": 768,
    "hidden_dim": 3072,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation": "gelu",
    "seq_classif_dropout": 0.2,
}
NORM = config.LayerNorm(eps=1e-12)


def _read(settings: Settings, task: str) -> config.EncoderOnly:
    # How the table of positions began, which is stored either way; a head that is not read.
    settings.skip("sinusoidal_pos_embds", "qa_dropout", "tie_weights_")
    dropout, activation = float(settings.need("dropout")), settings.one_of("activation", ACTIVATIONS, "gelu")
    block = config.Block(
        attention=config.Attention(heads=settings.need("n_heads"), dropout=float(settings.need("attention_dropout"))),
        feed_forward=config.PositionWise(
            hidden=settings.need("hidden_dim"),
            activation=activation,
            dropout=0.0,
        ),
        norm=NORM,
        norm_placement="post",
        dropout=dropout,
    )
    of_texts = float(settings.need("seq_classif_dropout"))
    head = read_head(
        settings,
        task,
        config.MaskedLanguage(activation=activation, norm=NORM),
        activation="relu",
        dropout=lambda settings: of_texts,
        tagging_dropout=lambda settings: dropout,
    )
    return config.EncoderOnly(
        dim=settings.need("dim"),
        vocab_size=settings.need("vocab_size"),
        max_length=settings.need("max_position_embeddings"),
        embedding=config.Embedding(scale=False, norm=NORM, dropout=dropout),
        encoder=config.Stack(layers=settings.need("n_layers"), block=block, position=config.Learned()),
        head=head,
    )


def _write(tree: config.EncoderOnly) -> dict[str, Any]:
    block = tree.encoder.blocks[0]
    return {
        "vocab_size": tree.vocab_size,
        "max_position_embeddings": tree.max_length,
        "n_layers": tree.encoder.layers,
        "n_heads": block.attention.heads,
        "dim": tree.dim,
        "hidden_dim": block.feed_forward.hidden,
        "dropout": block.dropout,
        "attention_dropout": block.attention.dropout,
        "activation": ACTIVATION_NAMES[block.feed_forward.activation],
    }


def _rules(tree: config.EncoderOnly, prefix: str) -> list[Rule]:
    encoder = [
        same("embedding.tokens.weight", "embeddings.word_embeddings.weight"),
        same("position.weight", "embeddings.position_embeddings.weight"),
        *affine("embedding.norm", "embeddings.LayerNorm"),
    ]
    for index, block in enumerate(tree.encoder.blocks):
        encoder += prefixed(f"layers.{index}.", f"transformer.layer.{index}.", _layer_rules(block, tree.dim))
    masked = ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias")
    return prefixed("encoder.", prefix, encoder) + head_rules(tree.head, masked, transform="pre_classifier")


def _layer_rules(block: config.Block, dim: int) -> list[Rule]:
    """[D, D] of queries, keys and values each are one matrix of ours, [3 D, D]."""
    return [
        *affine_joined("self_attention.qkv", [f"attention.{name}_lin" for name in "qkv"], [dim] * 3),
        *affine("self_attention.output", "attention.out_lin"),
        *norm_rules("self_attention_sublayer.outer", "sa_layer_norm", block.norm),
        *affine("feed_forward.up", "ffn.lin1"),
        *affine("feed_forward.down", "ffn.lin2"),
        *norm_rules("feed_forward_sublayer.outer", "output_layer_norm", block.norm),
    ]


def _ties(_: config.EncoderOnly, prefix: str) -> dict[str, str]:
    return {"vocab_projector.weight": f"{prefix}embeddings.word_embeddings.weight"}


DISTILBERT = encoder_family(
    "distilbert",
    "DistilBert",
    "distilbert",
    DEFAULTS,
    _read,
    _write,
    _rules,
    ties=_ties,
    ignored=(OLD_BUFFERS,),
    apart=(r"vocab_(transform|layer_norm|projector)\..*",),
    masked=("DistilBertForMaskedLM", "vocab_transform.weight"),
)
