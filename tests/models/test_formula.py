"""The whole model, of every kind, against the formulas written out for one sentence.

The parts that have oracles of their own (norms, activations, the three places of a position) are taken from the model;
where each is applied, to what and in which order, is written again here, as is everything in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from laws.models import CONFIGS, ROWS, build, name_of
from sublayer import config
from sublayer.laws import Inputs, relative_error
from sublayer.models import Decoder, Encoder, EncoderDecoder
from sublayer.nn.positions import Position

Sublayer = Callable[[Tensor], Tensor]


def embed(stack: Encoder | Decoder, c: config.EncoderDecoder, tokens: Tensor) -> Tensor:
    """norm(E[token] * sqrt(D) + position): [S, D]."""
    x = stack.embedding.tokens.weight[tokens] * (math.sqrt(c.dim) if c.embedding.scale else 1.0)
    x = stack.position.add(x, torch.arange(len(tokens)))
    return x if c.embedding.norm is None else stack.embedding.norm(x)


def joined(x: Tensor, function: Sublayer, sublayer: nn.Module, norm_placement: str) -> Tensor:
    match norm_placement:
        case "post":
            return sublayer.outer(x + function(x))
        case "pre":
            return x + function(sublayer.before(x))
        case _:
            return x + sublayer.after(function(sublayer.before(x)))


def attention(
    c: config.Attention,
    dim: int,
    part: nn.Module,
    projections: tuple[Tensor, Tensor, Tensor],
    allowed: Callable[[int, int], bool],
    position: Position | None,
) -> Tensor:
    """Head by head and query by query; projections: queries, keys and values of all heads side by side."""
    width = c.width(dim)
    queries, keys = len(projections[0]), len(projections[1])
    rotation = None if position is None else position.rotation(torch.arange(queries), torch.float64)
    bias = None if position is None else position.bias(torch.arange(queries), torch.arange(keys), torch.float64)
    heads: list[Tensor] = []
    for head in range(c.heads):
        group = head // (c.heads // c.key_value_heads)
        query = projections[0][:, head * width : (head + 1) * width]
        key, value = (x[:, group * width : (group + 1) * width] for x in projections[1:])
        if c.query_key_norm is not None:
            query, key = part.query_norm(query), part.key_norm(key)
        if rotation is not None:
            query, key = rotation.apply(query), rotation.apply(key)
        rows: list[Tensor] = []
        for i in range(queries):
            seen = [j for j in range(keys) if allowed(i, j)]
            scores = torch.stack([query[i] @ key[j] / math.sqrt(width) for j in seen])
            if bias is not None:
                scores = scores + bias[head, i, seen]
            rows.append(scores.softmax(0) @ value[seen])
        heads.append(torch.stack(rows))
    return part.output(torch.cat(heads, dim=-1))


def self_attention(c: config.Attention, dim: int, part: nn.Module, x: Tensor, causal: bool, at: Position) -> Tensor:
    width = c.width(dim)
    sizes = [c.heads * width, c.key_value_heads * width, c.key_value_heads * width]

    def allowed(i: int, j: int) -> bool:
        return (not causal or j <= i) and (c.window is None or abs(i - j) < c.window)

    return attention(c, dim, part, part.qkv(x).split(sizes, dim=-1), allowed, at)


def cross_attention(c: config.Attention, dim: int, part: nn.Module, x: Tensor, memory: Tensor) -> Tensor:
    key, value = part.key_value(memory).chunk(2, dim=-1)
    return attention(c, dim, part, (part.query(x), key, value), lambda i, j: True, None)


def feed_forward(c: config.FeedForward, part: nn.Module, x: Tensor) -> Tensor:
    if isinstance(c, config.PositionWise):
        return part.down(part.activation(part.up(x)))
    gate = part.gate_up.weight[: c.hidden]
    up = part.gate_up.weight[c.hidden :]
    gate_bias, up_bias = (0.0, 0.0) if part.gate_up.bias is None else part.gate_up.bias.chunk(2)
    return part.down(part.activation(x @ gate.T + gate_bias) * (x @ up.T + up_bias))


def run(model: EncoderDecoder, stack: Encoder | Decoder, tokens: Tensor, memory: Tensor | None) -> Tensor:
    c = model.config
    tree = c.encoder if memory is None else c.decoder
    block = tree.block
    x = embed(stack, c, tokens)
    for layer in stack.layers:

        def attend(y: Tensor, layer: nn.Module = layer) -> Tensor:
            return self_attention(block.attention, c.dim, layer.self_attention, y, memory is not None, stack.position)

        def cross(y: Tensor, layer: nn.Module = layer) -> Tensor:
            assert memory is not None
            return cross_attention(block.cross, c.dim, layer.cross_attention, y, memory)

        def feed(y: Tensor, layer: nn.Module = layer) -> Tensor:
            return feed_forward(block.feed_forward, layer.feed_forward, y)

        x = joined(x, attend, layer.self_attention_sublayer, block.norm_placement)
        if memory is not None:
            x = joined(x, cross, layer.cross_attention_sublayer, block.norm_placement)
        x = joined(x, feed, layer.feed_forward_sublayer, block.norm_placement)
    return x if block.norm_placement == "post" else stack.norm(x)


@pytest.mark.parametrize("index", range(len(CONFIGS)), ids=[f"{i}-{name_of(row)}" for i, row in enumerate(ROWS)])
def test_every_kind_of_model_is_its_formula(index: int) -> None:
    model = build(CONFIGS[index], seed=index)
    inputs = Inputs.draw(model, seed=index)
    with torch.no_grad():
        found = model(inputs.source, inputs.source_lengths, inputs.target)
        for row in (0, inputs.rows - 1):
            memory = run(model, model.encoder, inputs.source[row, : int(inputs.source_lengths[row])], None)
            hidden = run(model, model.decoder, inputs.target[row], memory)
            expected = hidden @ model.output.weight.T
            if CONFIGS[index].output_bias:
                expected = expected + model.output.bias
            assert relative_error(found[row], expected) < 1e-10


@pytest.mark.parametrize("index", range(len(CONFIGS)), ids=[f"{i}-{name_of(row)}" for i, row in enumerate(ROWS)])
def test_an_encoder_knows_the_order_exactly_where_it_has_positions(index: int) -> None:
    """Without positions and windows, permuted tokens give permuted states; with either they do not."""
    c = CONFIGS[index]
    model = build(c, seed=index)
    tokens = torch.arange(8).unsqueeze(0)
    order = torch.tensor([3, 0, 7, 5, 1, 6, 2, 4])
    with torch.no_grad():
        states, permuted = model.encode(tokens).states, model.encode(tokens[:, order]).states
    error = relative_error(permuted, states[:, order])
    attention = c.encoder.block.attention
    # A window of one position sees nothing but itself: there, only positions that are added can tell.
    added = isinstance(c.encoder.position, config.Sinusoidal | config.Learned)
    knows = added if attention.window == 1 else added or attention.window is not None or _relative(c.encoder.position)
    assert error > 1e-3 if knows else error < 1e-10


def _relative(position: config.Position) -> bool:
    return isinstance(position, config.Rotary | config.Alibi | config.Kerple | config.RelativeBias)
