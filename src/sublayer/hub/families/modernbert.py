"""ModernBERT (Warner et al. 2024, https://arxiv.org/abs/2412.13663): pre-norm, rotary, gated, mostly with a window.

Every third layer sees everything and turns its queries and keys slowly; the others see some tokens on either side, with
a rotary base of their own. The first layer reads the embeddings, which have just been normalized, as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sublayer import config
from sublayer.hub.canonical import stack_of
from sublayer.hub.families.heads import encoder_family, head_rules, norm_rules, read_head
from sublayer.hub.families.parts import ACTIVATION_NAMES, ACTIVATIONS, with_windows
from sublayer.hub.families.rope import read_rotary
from sublayer.hub.family import Settings
from sublayer.hub.keys import Key
from sublayer.hub.rules import Rule, affine, numbered, prefixed, same

KEYS = (
    Key("vocab_size", "vocab_size", 50_368),
    Key("hidden_size", "dim", 768),
    Key("intermediate_size", "encoder.block.feed_forward.hidden", 1152),
    Key("num_hidden_layers", "encoder.layers", 22),
    Key("num_attention_heads", "encoder.block.attention.heads", 12),
    Key("hidden_activation", "encoder.block.feed_forward.activation", "gelu", ACTIVATIONS, ACTIVATION_NAMES),
    Key("max_position_embeddings", "max_length", 8192),
    Key("norm_eps", "encoder.block.norm.eps embedding.norm.eps", 1e-5),
    Key("norm_bias", "encoder.block.norm.bias embedding.norm.bias", False),
    Key("attention_bias", "encoder.block.attention.bias", False),
    Key("attention_dropout", "encoder.block.attention.dropout", 0.0),
    Key("embedding_dropout", "embedding.dropout", 0.0),
    Key("mlp_bias", "encoder.block.feed_forward.bias", False),
    Key("mlp_dropout", "encoder.block.feed_forward.dropout", 0.0),
)
FORM: dict[str, Any] = {
    "embedding": {"scale": False, "norm": {"type": "layer"}},
    "encoder": {
        "block": {"feed_forward": {"type": "gated"}, "norm": {"type": "layer"}, "norm_placement": "pre"},
    },
}
DEFAULTS = {
    "local_attention": 128,
    "decoder_bias": True,
    "classifier_dropout": 0.0,
    "classifier_bias": False,
    "tie_word_embeddings": True,
}
GLOBAL, LOCAL = "full_attention", "sliding_attention"
POOLING: Mapping[str, config.Pooling] = {"cls": "class", "mean": "mean"}

# --- config ------------------------------------------------------------------------------------------------------


def _read(settings: Settings, task: str, tree: dict[str, Any]) -> None:
    # How it is computed or trained, and what the code does not read.
    settings.skip("deterministic_flash_attn", "reference_compile", "repad_logits_with_grad", "layer_norm_eps")
    settings.skip("sparse_prediction", "sparse_pred_ignore_index", "position_embedding_type", "cls_token_id")
    slow, fast = _read_rotary(settings, GLOBAL, 160_000.0), _read_rotary(settings, LOCAL, 10_000.0)
    # A window of n tokens in all: n / 2 on either side, and the token itself.
    window = settings.need("local_attention") // 2 + 1
    local = [kind == LOCAL for kind in _read_kinds(settings, tree["encoder"]["layers"])]
    usual = config.Block.model_validate(tree["encoder"]["block"])
    first, *rest = with_windows(usual, [window if narrow else None for narrow in local], fast)
    tree["head"] = _read_head(settings, task, usual.norm)
    tree["encoder"] = stack_of([first.model_copy(update={"attention_norm": False}), *rest], slow)


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


def _read_head(settings: Settings, task: str, norm: config.Norm) -> config.Head:
    activation = settings.one_of("classifier_activation", ACTIVATIONS, "gelu")
    layer: dict[str, Any] = {"activation": activation, "norm": norm, "bias": settings.need("classifier_bias")}
    tied, output_bias = settings.need("tie_word_embeddings"), settings.need("decoder_bias")
    masked = config.MaskedLanguage(**layer, tied=tied, output_bias=output_bias)
    word = {**layer, "dropout": float(settings.need("classifier_dropout"))}
    text = {**word, "pooling": settings.one_of("classifier_pooling", POOLING, "cls")}
    return read_head(settings, task, masked, text=text, word=word)


def _write(tree: config.EncoderOnly, frame: dict[str, Any]) -> dict[str, Any] | None:
    blocks, slow = tree.encoder.blocks, tree.encoder.position
    local = next((block for block in blocks if block.attention.window is not None), None)
    fast = slow if local is None or local.position is None else local.position
    rotary = [side for side in (slow, fast) if isinstance(side, config.Rotary)]
    parts = (blocks[0].feed_forward, blocks[0].norm)
    if not isinstance(parts[0], config.Gated) or not isinstance(parts[1], config.LayerNorm) or len(rotary) < 2:
        return None
    window = 1 if local is None or local.attention.window is None else local.attention.window
    return frame | {
        "layer_types": [GLOBAL if block.attention.window is None else LOCAL for block in blocks],
        "local_attention": 2 * (window - 1),
        "global_rope_theta": rotary[0].base,
        "local_rope_theta": rotary[1].base,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": side.base}
            for kind, side in zip((GLOBAL, LOCAL), rotary, strict=True)
        },
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
    encoder += numbered("layers.{}.", "layers.{}.", map(_layer_rules, tree.encoder.blocks))
    masked = ("head.dense", "head.norm", "decoder.bias")
    found = prefixed("encoder.", prefix, encoder) + head_rules(tree.head, masked, transform=masked[0], norm=masked[1])
    if isinstance(tree.head, config.MaskedLanguage) and not tree.head.tied:
        found.append(same("output.weight", "decoder.weight"))
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
    KEYS,
    FORM,
    _read,
    _rules,
    defaults=DEFAULTS,
    write=_write,
    ties=_ties,
    masked=("ModernBertForMaskedLM", "decoder.bias"),
)
