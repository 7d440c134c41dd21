"""What the tree of a model refuses, each in a sentence that names the values; and what it says of its layers."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from sublayer import config
from sublayer.errors import ConfigError

BLOCK: dict[str, Any] = {"attention": {"heads": 4}, "feed_forward": {"type": "position-wise", "hidden": 8}}
STACK: dict[str, Any] = {"layers": 3, "block": BLOCK}
TREES: dict[str, dict[str, Any]] = {
    "encoder-decoder": {"dim": 16, "encoder": STACK, "decoder": deepcopy(STACK)},
    "decoder-only": {"dim": 16, "decoder": STACK},
    "encoder-only": {"dim": 16, "encoder": STACK},
}
ROTARY = {"type": "rotary"}


def changed(kind: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A good tree with `changes` (dotted keys)."""
    data = deepcopy(TREES[kind])
    for path, value in changes.items():
        *keys, last = path.split(".")
        table = data
        for key in keys:
            table = table.setdefault(key, {})
        table[last] = deepcopy(value)
    return data


def parse(kind: str, changes: dict[str, Any]) -> Any:
    return config.KINDS[kind].parse(changed(kind, changes), "t")


def other(layers: list[int], **changes: Any) -> dict[str, Any]:
    return {"layers": layers, "block": {**deepcopy(BLOCK), **changes}}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    # a part by itself
    (
        "decoder-only",
        {"decoder.block.attention.kv_heads": 3},
        "decoder.block.attention: heads = 4 is not a multiple of kv_heads = 3",
    ),
    (
        "decoder-only",
        {"decoder.block.feed_forward": {"type": "mixture-of-experts", "experts": 2, "active": 3, "hidden": 4}},
        "decoder.block.feed_forward: active = 3 is more than experts = 2",
    ),
    (
        "decoder-only",
        {
            "decoder.position": {
                **ROTARY,
                "scaling": {
                    "type": "llama3",
                    "factor": 2,
                    "original_length": 8,
                    "low_frequency_factor": 4,
                    "high_frequency_factor": 4,
                },
            }
        },
        "decoder.position.scaling: high_frequency_factor = 4.0 is not more than low_frequency_factor = 4.0",
    ),
    (
        "encoder-only",
        {"encoder.block.attention_norm": False},
        "encoder.block: attention_norm = false with norm_placement = 'post': only 'pre' can leave it out",
    ),
    (
        "encoder-only",
        {"encoder.block.attention_norm": False, "encoder.block.norm_placement": "sandwich"},
        "encoder.block: attention_norm = false with norm_placement = 'sandwich': only 'pre' can leave it out",
    ),
    # layers that are not like the rest
    (
        "decoder-only",
        {"decoder.others": [other([3])]},
        "decoder: others names layer 3, but the layers are 0 to 2",
    ),
    ("decoder-only", {"decoder.others": [other([1, 1])]}, "decoder: others names layer 1 twice"),
    ("decoder-only", {"decoder.others": [other([1]), other([0, 1])]}, "decoder: others names layer 1 twice"),
    (
        "decoder-only",
        {"decoder.others": [other([1], attention={"heads": 8})]},
        "decoder: attention.heads is 8 in some layers and 4 in others; one cache holds all",
    ),
    (
        "decoder-only",
        {"decoder.others": [other([1], attention={"heads": 4, "kv_heads": 2})]},
        "decoder: attention.key_value_heads is 2 in some layers and 4 in others; one cache holds all",
    ),
    (
        "decoder-only",
        {"decoder.others": [other([1], attention={"heads": 4, "head_dim": 6})]},
        "decoder: attention.head_dim is 6 in some layers and None in others; one cache holds all",
    ),
    (
        "decoder-only",
        {"decoder.others": [other([1], norm_placement="pre")]},
        "decoder: norm_placement is 'post' in some layers and not in others",
    ),
    (
        "decoder-only",
        {"decoder.others": [other([1], position=ROTARY, attention={"heads": 4})], "dim": 12},
        "decoder.position rotates 3 dimensions of each head; it must be an even number",
    ),
    # a stack in its model
    (
        "decoder-only",
        {"decoder.block.cross_attention": {"heads": 4}},
        "decoder.block.cross_attention is set, but there is nothing to attend to",
    ),
    (
        "encoder-only",
        {"encoder.block.cross_attention": {"heads": 4}},
        "encoder.block.cross_attention is set, but there is nothing to attend to",
    ),
    (
        "encoder-decoder",
        {"encoder.block.cross_attention": {"heads": 4}},
        "encoder.block.cross_attention is set, but there is nothing to attend to",
    ),
    (
        "encoder-decoder",
        {"decoder.block.norm_placement": "parallel"},
        "decoder.block.norm_placement = 'parallel' is not for a decoder with cross-attention",
    ),
    (
        "encoder-decoder",
        {"decoder.block.norm_placement": "parallel-shared"},
        "decoder.block.norm_placement = 'parallel-shared' is not for a decoder with cross-attention",
    ),
    (
        "encoder-decoder",
        {"decoder.block.cross_attention": {"heads": 4, "window": 2}},
        "decoder.block.cross_attention.window = 2: a window is for self-attention",
    ),
    (
        "decoder-only",
        {"dim": 18},
        "dim = 18 is not a multiple of decoder.block.attention.heads = 4",
    ),
    (
        "encoder-decoder",
        {"decoder.block.cross_attention": {"heads": 3}},
        "dim = 16 is not a multiple of decoder.block.cross_attention.heads = 3",
    ),
    (
        "decoder-only",
        {"decoder.position": {**ROTARY, "fraction": 0.75}},
        "decoder.position rotates 3 dimensions of each head; it must be an even number",
    ),
    (
        "decoder-only",
        {"decoder.position": {**ROTARY, "fraction": 0.1}},
        "decoder.position rotates 0 dimensions of each head; it must be an even number",
    ),
    (
        "decoder-only",
        {"dim": 15, "decoder.block.attention.heads": 3},
        "decoder.position is sinusoidal and needs an even width, not 15",
    ),
    (
        "encoder-only",
        {"embedding.width": 7, "head": {"type": "none"}},
        "encoder.position is sinusoidal and needs an even width, not 7",
    ),
    (
        "decoder-only",
        {"decoder.position": {"type": "relative", "buckets": 8, "max_distance": 4}},
        "decoder.position.max_distance = 4 is not more than 4, up to which position.buckets = 8 give each distance a"
        " bucket of its own",
    ),
    (
        "encoder-only",
        {"encoder.position": {"type": "relative", "buckets": 8, "max_distance": 2}},
        "encoder.position.max_distance = 2 is not more than 2, up to which position.buckets = 8 give each distance a"
        " bucket of its own",
    ),
    # an embedding and a projection that are to be one
    (
        "encoder-decoder",
        {"embedding.width": 8},
        "embedding.width = 8 is not dim = 16: such an embedding cannot be tied",
    ),
    ("decoder-only", {"embedding.width": 8}, "embedding.width = 8 is not dim = 16: such an embedding cannot be tied"),
    ("encoder-only", {"embedding.width": 8}, "embedding.width = 8 is not dim = 16: such an embedding cannot be tied"),
    # what the other shapes have
    ("decoder-only", {"encoder": STACK}, "encoder: unknown key; did you mean 'decoder'?"),
    ("encoder-only", {"output_bias": True}, "output_bias: unknown key; known: "),
    ("encoder-only", {"head": {"type": "tagger"}}, "head.type: unknown type 'tagger'; did you mean 'tagging'?"),
    ("encoder-only", {"head": {"type": "tagging", "labels": "a"}}, "head.labels: should be a list (given: 'a')"),
    (
        "encoder-only",
        {"head": {"type": "classification", "pooling": "first"}},
        "head.pooling: cannot be 'first'; known: class, last, max, mean",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "message"), REFUSED, ids=lambda value: None)
def test_what_cannot_be_is_refused(kind: str, changes: dict[str, Any], message: str) -> None:
    parse(kind, {})
    with pytest.raises(ConfigError) as caught:
        parse(kind, changes)
    assert str(caught.value).startswith(f"t: {message}")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        # An embedding of another width where nothing is tied to it.
        ("encoder-decoder", {"embedding.width": 8, "tied": "embeddings"}),
        ("decoder-only", {"embedding.width": 8, "tied": False}),
        ("encoder-only", {"embedding.width": 8, "head": {"type": "masked-language", "tied": False}}),
        ("encoder-only", {"embedding.width": 8, "head": {"type": "tagging"}}),
        ("decoder-only", {"embedding.width": 16}),
        # An encoder has half of the buckets for each direction.
        ("encoder-only", {"encoder.position": {"type": "relative", "buckets": 8, "max_distance": 4}}),
        # Only a decoder beside an encoder has a third sub-layer that a parallel block could not hold.
        ("decoder-only", {"decoder.block.norm_placement": "parallel"}),
        ("encoder-decoder", {"encoder.block.norm_placement": "parallel-shared"}),
        ("decoder-only", {"decoder.block.norm_placement": "pre", "decoder.block.attention_norm": False}),
        ("decoder-only", {"decoder.block.attention": {"heads": 3, "head_dim": 5}, "dim": 14}),
    ],
)
def test_what_can_be_is_not_refused(kind: str, changes: dict[str, Any]) -> None:
    assert parse(kind, changes).kind == kind


def test_every_layer_has_its_block() -> None:
    others = [other([2, 0], norm_placement="post", dropout=0.5), other([3], dropout=0.25)]
    stack = config.Stack.parse({**STACK, "layers": 5, "others": others}, "t")
    assert [block.dropout for block in stack.blocks] == [0.5, 0.0, 0.5, 0.25, 0.0]
    assert stack.blocks[1] == stack.blocks[4] == stack.block


def test_cross_attention_is_the_attention_without_its_window_unless_it_is_its_own() -> None:
    attention = config.Attention(heads=4, kv_heads=2, window=3, softcap=2.0)
    block = config.Block(attention=attention, feed_forward=config.PositionWise(hidden=4))
    assert block.cross == config.Attention(heads=4, kv_heads=2, softcap=2.0)
    own = config.Attention(heads=2)
    assert block.model_copy(update={"cross_attention": own}).cross is own


@pytest.mark.parametrize(
    ("bias", "output_bias", "biased"),
    [(True, None, True), (False, None, False), (False, True, True), (True, False, False)],
)
def test_the_way_back_has_the_bias_of_the_ways_in_unless_it_is_said(
    bias: bool, output_bias: bool | None, biased: bool
) -> None:
    assert config.Attention(heads=1, bias=bias, output_bias=output_bias).biased_output is biased
