"""DistilBERT (Sanh et al. 2019, https://arxiv.org/abs/1910.01108): BERT without kinds of token, under other names."""

from __future__ import annotations

from typing import Any

from sublayer import config
from sublayer.hub.families.bert import OLD_BUFFERS
from sublayer.hub.families.heads import apart_rules, encoder_family, head_rules, projection_ties, read_head
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS
from sublayer.hub.family import Settings
from sublayer.hub.keys import Key
from sublayer.hub.rules import Rule, affine, numbered, prefixed, same

KEYS = (
    Key("vocab_size", "vocab_size", 30_522),
    Key("max_position_embeddings", "max_length", 512),
    Key("n_layers", "encoder.layers", 6),
    Key("n_heads", "encoder.block.attention.heads", 12),
    Key("dim", "dim", 768),
    Key("hidden_dim", "encoder.block.feed_forward.hidden", 3072),
    Key("dropout", "encoder.block.dropout embedding.dropout", 0.1),
    Key("attention_dropout", "encoder.block.attention.dropout", 0.1),
    Key("activation", "encoder.block.feed_forward.activation", "gelu", ACTIVATIONS, ACTIVATION_NAMES),
)
NORM = config.LayerNorm(eps=1e-12)
FORM: dict[str, Any] = {
    "embedding": {"scale": False, "norm": NORM},
    "encoder": {
        "block": {"feed_forward": {"type": "position-wise"}, "norm": NORM, "norm_placement": "post"},
        "position": {"type": "learned"},
    },
}


def _read(settings: Settings, task: str, tree: dict[str, Any]) -> None:
    # How the table of positions began, which is stored either way; a head that is not read.
    settings.skip("sinusoidal_pos_embds", "qa_dropout", "tie_weights_")
    block = tree["encoder"]["block"]
    masked = config.MaskedLanguage(activation=block["feed_forward"]["activation"], norm=NORM)
    text = {"activation": "relu", "dropout": float(settings.need("seq_classif_dropout"))}
    tree["head"] = read_head(settings, task, masked, text=text, word={"dropout": float(block["dropout"])})


def _rules(tree: config.EncoderOnly, prefix: str) -> list[Rule]:
    encoder = [
        same("embedding.tokens.weight", "embeddings.word_embeddings.weight"),
        same("position.weight", "embeddings.position_embeddings.weight"),
        *affine("embedding.norm", "embeddings.LayerNorm"),
    ]
    layers = (_layer_rules(block, tree.dim) for block in tree.encoder.blocks)
    encoder += numbered("layers.{}.", "transformer.layer.{}.", layers)
    masked = ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias")
    return prefixed("encoder.", prefix, encoder) + head_rules(tree.head, masked, transform="pre_classifier")


def _layer_rules(block: config.Block, dim: int) -> list[Rule]:
    qkv = [f"attention.{name}_lin" for name in "qkv"]
    return apart_rules(
        block, dim, qkv, "attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"
    )


DISTILBERT = encoder_family(
    "distilbert",
    "DistilBert",
    "distilbert",
    KEYS,
    FORM,
    _read,
    _rules,
    defaults={"seq_classif_dropout": 0.2},
    ties=projection_ties("vocab_projector"),
    ignored=(OLD_BUFFERS,),
    apart=(r"vocab_(transform|layer_norm|projector)\..*",),
    masked=("DistilBertForMaskedLM", "vocab_transform.weight"),
)
