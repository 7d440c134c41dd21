"""DistilBERT (Sanh et al. 2019, https://arxiv.org/abs/1910.01108): BERT without kinds of token, under other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sublayer import config
from sublayer.hub.families.bert import OLD_BUFFERS, base_names
from sublayer.hub.families.heads import (
    head_rules,
    norm_rules,
    prefix_of,
    read_head,
    read_task,
    task_of,
    write_labels,
)
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS
from sublayer.hub.family import Family, Settings, Tree
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


def _read(values: Mapping[str, Any]) -> Tree:
    settings = Settings(values, "distilbert", DEFAULTS)
    task = read_task(settings, "DistilBert")
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
    tree = config.EncoderOnly(
        dim=settings.need("dim"),
        vocab_size=settings.need("vocab_size"),
        max_length=settings.need("max_position_embeddings"),
        embedding=config.Embedding(scale=False, norm=NORM, dropout=dropout),
        encoder=config.Stack(layers=settings.need("n_layers"), block=block, position=config.Learned()),
        head=head,
    )
    settings.finish()
    return tree


def _write(tree: Tree) -> dict[str, Any] | None:
    if not isinstance(tree, config.EncoderOnly):
        return None
    block = tree.encoder.blocks[0]
    return {
        "architectures": ["DistilBert" + task_of(tree.head)],
        "model_type": "distilbert",
        "vocab_size": tree.vocab_size,
        "max_position_embeddings": tree.max_length,
        "n_layers": tree.encoder.layers,
        "n_heads": block.attention.heads,
        "dim": tree.dim,
        "hidden_dim": block.feed_forward.hidden,
        "dropout": block.dropout,
        "attention_dropout": block.attention.dropout,
        "activation": ACTIVATION_NAMES[block.feed_forward.activation],
        **write_labels(tree.head),
    }


def _rules(tree: Tree) -> list[Rule]:
    assert isinstance(tree, config.EncoderOnly)
    encoder = [
        same("embedding.tokens.weight", "embeddings.word_embeddings.weight"),
        same("position.weight", "embeddings.position_embeddings.weight"),
        *affine("embedding.norm", "embeddings.LayerNorm"),
    ]
    for index, block in enumerate(tree.encoder.blocks):
        encoder += prefixed(f"layers.{index}.", f"transformer.layer.{index}.", _layer_rules(block, tree.dim))
    found = prefixed("encoder.", prefix_of(tree, "distilbert"), encoder)
    masked = ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias")
    return found + head_rules(tree.head, masked, transform="pre_classifier")


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


def _ties(tree: Tree) -> dict[str, str]:
    return {"vocab_projector.weight": f"{prefix_of(tree, 'distilbert')}embeddings.word_embeddings.weight"}


DISTILBERT = Family(
    name="distilbert",
    read=_read,
    write=_write,
    rules=_rules,
    ties=_ties,
    older=base_names("distilbert"),
    ignored=(OLD_BUFFERS,),
    apart=(r"vocab_(transform|layer_norm|projector)\..*",),
    masked=("DistilBertForMaskedLM", "vocab_transform.weight"),
)
