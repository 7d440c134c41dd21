"""ModernBERT (Warner et al. 2024, https://arxiv.org/abs/2412.13663): pre-norm, rotary, gated, mostly with a window.

Every third layer sees everything and turns its queries and keys slowly; the others see some tokens on either side, with
a rotary base of their own. The first layer reads the embeddings, which have just been normalized, as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sublayer import config
from sublayer.hub.canonical import stack_of
from sublayer.hub.families.heads import encoder_family, norm_rules, read_labels, read_problem, transform_rules
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS
from sublayer.hub.families.rope import read_rotary
from sublayer.hub.family import Settings
from sublayer.hub.rules import Rule, affine, prefixed, same

DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 50_368,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "hidden_activation": "gelu",
    "max_position_embeddings": 8192,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "local_attention": 128,
    "embedding_dropout": 0.0,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "decoder_bias": True,
    "classifier_pooling": "cls",
    "classifier_dropout": 0.0,
    "classifier_bias": False,
    "classifier_activation": "gelu",
    "tie_word_embeddings": True,
}
GLOBAL, LOCAL = "full_attention", "sliding_attention"
POOLING: Mapping[str, config.Pooling] = {"cls": "class", "mean": "mean"}

# --- config ------------------------------------------------------------------------------------------------------


def _read(settings: Settings, task: str) -> config.EncoderOnly:
    # How it is computed or trained, and what the code does not read.
    settings.skip("deterministic_flash_attn", "reference_compile", "repad_logits_with_grad", "layer_norm_eps")
    settings.skip("sparse_prediction", "sparse_pred_ignore_index", "position_embedding_type", "cls_token_id")
    layers = settings.need("num_hidden_layers")
    kinds = _read_kinds(settings, layers)
    slow, fast = _read_rotary(settings, GLOBAL, 160_000.0), _read_rotary(settings, LOCAL, 10_000.0)
    norm = config.LayerNorm(eps=float(settings.need("norm_eps")), bias=settings.need("norm_bias"))
    # A window of n tokens in all: n / 2 on either side, and the token itself.
    window = settings.need("local_attention") // 2 + 1
    part = config.Gated(
        hidden=settings.need("intermediate_size"),
        activation=settings.one_of("hidden_activation", ACTIVATIONS, "gelu"),
        bias=settings.need("mlp_bias"),
        dropout=float(settings.need("mlp_dropout")),
    )
    dropout = float(settings.need("attention_dropout"))
    blocks = [
        config.Block(
            attention=config.Attention(
                heads=settings.need("num_attention_heads"),
                window=None if kind == GLOBAL else window,
                bias=settings.need("attention_bias"),
                dropout=dropout,
            ),
            feed_forward=part,
            norm=norm,
            attention_norm=layer > 0,
            norm_placement="pre",
            position=None if kind == GLOBAL else fast,
            dropout=0.0,
        )
        for layer, kind in enumerate(kinds)
    ]
    return config.EncoderOnly(
        dim=settings.need("hidden_size"),
        vocab_size=settings.need("vocab_size"),
        max_length=settings.need("max_position_embeddings"),
        embedding=config.Embedding(scale=False, norm=norm, dropout=float(settings.need("embedding_dropout"))),
        encoder=stack_of(blocks, slow),
        head=_read_head(settings, task, norm),
    )


def _read_kinds(settings: Settings, layers: int) -> Sequence[str]:
    """Which layers see everything: a list (transformers 5), or every n-th one from the first."""
    every = settings.get("global_attn_every_n_layers", 3)
    kinds = settings.get("layer_types")
    if kinds is None:
        return [LOCAL if layer % every else GLOBAL for layer in range(layers)]
    if len(kinds) != layers or not {*kinds} <= {GLOBAL, LOCAL}:
        raise settings.refusal("layer_types", f"supported: {GLOBAL} and {LOCAL}, one for each layer")
    return kinds


def _read_rotary(settings: Settings, kind: str, usual: float) -> config.Rotary:
    """Of the layers of a kind: in a table for each (transformers 5), or the base alone under a key of its own."""
    old = settings.get("global_rope_theta" if kind == GLOBAL else "local_rope_theta", usual)
    if kind in settings.get("rope_parameters", {}):
        return read_rotary(settings, layer_type=kind)
    if settings.get("rope_scaling") is not None:
        raise settings.refusal("rope_scaling", "supported: none")
    return config.Rotary(base=float(old))


def _read_head(settings: Settings, task: str, norm: config.LayerNorm) -> config.Head:
    activation = settings.one_of("classifier_activation", ACTIVATIONS, "gelu")
    bias, dropout = settings.need("classifier_bias"), float(settings.need("classifier_dropout"))
    pooling, output_bias = settings.one_of("classifier_pooling", POOLING, "cls"), settings.need("decoder_bias")
    tied = settings.need("tie_word_embeddings")
    match task:
        case "ForMaskedLM":
            return config.MaskedLanguage(
                activation=activation, norm=norm, tied=tied, bias=bias, output_bias=output_bias
            )
        case "ForSequenceClassification":
            return config.Classification(
                labels=read_labels(settings),
                problem=read_problem(settings),
                pooling=pooling,
                activation=activation,
                norm=norm,
                bias=bias,
                dropout=dropout,
            )
        case "ForTokenClassification":
            return config.Tagging(
                labels=read_labels(settings), activation=activation, norm=norm, bias=bias, dropout=dropout
            )
        case _:
            return config.NoHead()


def _write(tree: config.EncoderOnly) -> dict[str, Any] | None:
    blocks, slow = tree.encoder.blocks, tree.encoder.position
    part, norm, attention = blocks[0].feed_forward, blocks[0].norm, blocks[0].attention
    local = next((block for block in blocks if block.attention.window is not None), None)
    fast = slow if local is None or local.position is None else local.position
    rotary = [side for side in (slow, fast) if isinstance(side, config.Rotary)]
    if not isinstance(part, config.Gated) or not isinstance(norm, config.LayerNorm) or len(rotary) < 2:
        return None
    window = 1 if local is None or local.attention.window is None else local.attention.window
    return {
        "vocab_size": tree.vocab_size,
        "hidden_size": tree.dim,
        "intermediate_size": part.hidden,
        "num_hidden_layers": tree.encoder.layers,
        "num_attention_heads": attention.heads,
        "hidden_activation": ACTIVATION_NAMES[part.activation],
        "max_position_embeddings": tree.max_length,
        "norm_eps": norm.eps,
        "norm_bias": norm.bias,
        "attention_bias": attention.bias,
        "attention_dropout": attention.dropout,
        "layer_types": [GLOBAL if block.attention.window is None else LOCAL for block in blocks],
        "local_attention": 2 * (window - 1),
        "global_rope_theta": rotary[0].base,
        "local_rope_theta": rotary[1].base,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": side.base}
            for kind, side in zip((GLOBAL, LOCAL), rotary, strict=True)
        },
        "embedding_dropout": tree.embedding.dropout,
        "mlp_bias": part.bias,
        "mlp_dropout": part.dropout,
        **_write_head(tree.head),
    }


def _write_head(head: config.Head) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(head, config.MaskedLanguage):
        found = {"tie_word_embeddings": head.tied, "decoder_bias": head.output_bias}
    if isinstance(head, config.Classification):
        found |= {"classifier_pooling": "mean" if head.pooling == "mean" else "cls"}
    if isinstance(head, config.MaskedLanguage | config.Classification | config.Tagging):
        activation = None if head.activation is None else ACTIVATION_NAMES[head.activation]
        found |= {"classifier_activation": activation, "classifier_bias": head.bias}
    return found


# --- tensors -----------------------------------------------------------------------------------------------------


def _rules(tree: config.EncoderOnly, prefix: str) -> list[Rule]:
    assert tree.embedding.norm is not None
    encoder = [
        same("embedding.tokens.weight", "embeddings.tok_embeddings.weight"),
        *norm_rules("embedding.norm", "embeddings.norm", tree.embedding.norm),
        *norm_rules("norm", "final_norm", tree.encoder.block.norm),
    ]
    for index, block in enumerate(tree.encoder.blocks):
        encoder += prefixed(f"layers.{index}.", f"layers.{index}.", _layer_rules(block))
    found = prefixed("encoder.", prefix, encoder)
    if not isinstance(tree.head, config.NoHead | config.SentenceEmbedding):
        found += transform_rules(tree.head, "head.dense", "head.norm")
    match tree.head:
        case config.MaskedLanguage() as head:
            found += [] if head.tied else [same("output.weight", "decoder.weight")]
            found += [same("output.bias", "decoder.bias")] if head.output_bias else []
        case config.Classification() | config.Tagging():
            found += affine("head.labels", "classifier")
        case _:
            pass
    return found


def _layer_rules(block: config.Block) -> list[Rule]:
    """Queries, keys and values are one matrix in theirs too, and so are gate and up, in our order."""
    assert isinstance(block.feed_forward, config.Gated)
    found = [
        *affine("self_attention.qkv", "attn.Wqkv", bias=block.attention.bias),
        *affine("self_attention.output", "attn.Wo", bias=block.attention.biased_output),
        *norm_rules("feed_forward_sublayer.before", "mlp_norm", block.norm),
        *affine("feed_forward.gate_up", "mlp.Wi", bias=block.feed_forward.bias),
        *affine("feed_forward.down", "mlp.Wo", bias=block.feed_forward.bias),
    ]
    if block.attention_norm:
        found += norm_rules("self_attention_sublayer.before", "attn_norm", block.norm)
    return found


def _ties(tree: config.EncoderOnly, _: str) -> dict[str, str]:
    tied = isinstance(tree.head, config.MaskedLanguage) and tree.head.tied
    return {"decoder.weight": "model.embeddings.tok_embeddings.weight"} if tied else {}


MODERNBERT = encoder_family(
    "modernbert",
    "ModernBert",
    "model",
    DEFAULTS,
    _read,
    _write,
    _rules,
    ties=_ties,
    masked=("ModernBertForMaskedLM", "decoder.bias"),
)
