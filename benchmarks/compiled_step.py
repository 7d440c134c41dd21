"""sublayer's decoding step through `torch.compile`, behind the step contract: what would that add to the eager runner?

The products and attention stay what they are in the eager step (`fast/decoding/weight_formats.py`, torch's fused
kernel), each an operator that the compiler does not look into: Inductor's own products are slower here, and a cache
that is written to within the graph would be copied at every layer. All between them is compiled: norms, turning by
position, activations, sums.

It is a benchmark and not an option of `Runner`, because it does not pay: see `docs/results.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sublayer.fast.decoding.weight_formats import WEIGHT_FORMATS, Function, WeightFormat
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sublayer import config
from sublayer.fast.decoding import lean
from sublayer.fast.decoding.runner import Runner
from sublayer.models import DecoderOnly, DecoderState
from sublayer.nn.positions import Rotation

LIBRARY = torch.library.Library("sublayer_benchmarks", "DEF")
LIBRARY.define("product(Tensor x, int number) -> Tensor")
LIBRARY.define("look(Tensor query, Tensor fresh, Tensor(a!) buffer, int layer, SymInt place, float? scale) -> Tensor")
PRODUCTS: list[tuple[Function, int]] = []
"""The products that the operator knows by number, and how wide their results are."""


def _product(x: Tensor, number: int) -> Tensor:
    return PRODUCTS[number][0](x)


def _look(query: Tensor, fresh: Tensor, buffer: Tensor, layer: int, place: int, scale: float | None) -> Tensor:
    """WeightFormat what is new, and look at all that is kept.

    Shape: query [R, H, d], fresh [R, 2, G, d], buffer [L, 2, R, G, C, d] -> [R, H * d].
    """
    own = buffer[layer]
    own.select(3, place).copy_(fresh.transpose(0, 1))
    key, value = own.narrow(3, 0, place + 1).unbind(0)
    rows, _, width = query.shape
    queries = query.reshape(rows, key.shape[1], -1, width)
    return scaled_dot_product_attention(queries, key, value, scale=scale).reshape(rows, -1)


LIBRARY.impl("product", _product, "CPU")
LIBRARY.impl("look", _look, "CPU")


@torch.library.register_fake("sublayer_benchmarks::product")
def _(x: Tensor, number: int) -> Tensor:
    return x.new_empty(x.shape[0], PRODUCTS[number][1])


@torch.library.register_fake("sublayer_benchmarks::look")
def _(query: Tensor, fresh: Tensor, buffer: Tensor, layer: int, place: int, scale: float | None) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[1] * query.shape[2])


def opaque(keep: WeightFormat) -> WeightFormat:
    """`keep`, whose products the compiler takes as they are."""

    def kept(weight: Tensor, bias: Tensor | None, activation: config.Activation | None = None) -> Function:
        number = len(PRODUCTS)
        PRODUCTS.append((keep(weight, bias, activation), weight.shape[0]))
        return lambda x: torch.ops.sublayer_benchmarks.product(x, number)

    return kept


@dataclass(slots=True)
class Now:
    """What a step has for all its layers."""

    buffer: Tensor
    place: int
    rotation: Rotation | None


class CompiledBackend:
    """One new token a row in one compiled graph; prompts, and rows of several lengths, by the eager runner.

    Args:
        model: a decoder-only model of one kind of layers, pre-norm, without caps or biases on the scores.
    """

    def __init__(self, model: DecoderOnly, weights: config.Weights | None = None) -> None:
        self.model, self.eager = model, Runner(model, weights)
        decoder, keep = model.decoder, opaque(WEIGHT_FORMATS[weights or "float32"])
        with torch.no_grad():
            places = lean.position_tables(decoder.position, model.config.max_length, torch.float32)
            assert places.bias is None
            embed = lean.embedding(decoder.embedding, places.added, keep)
            layers = [function for index, layer in enumerate(decoder.layers) for function in _block(layer, index, keep)]
            last, output = lean.norm_or_none(decoder.norm), lean.linear(model.output, keep)

        def compute(tokens: Tensor, buffer: Tensor, place: int) -> Tensor:
            now: Any = Now(buffer, place, places.rotation_at(place))
            x = embed(tokens, place)
            for layer in layers:
                x = layer(x, now)
            return output(x if last is None else last(x))

        # With 512 bits torch 2.13's own kernels write beyond their buffers at these sizes, seen on an Ice Lake Xeon as
        # "double free or corruption". With 256 they do not; the time is in the products, which are not the graph's own.
        self._compute: Callable[[Tensor, Tensor, int], Tensor] = torch.compile(
            compute, dynamic=True, fullgraph=True, options={"cpp.simdlen": 256}
        )

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, num_beams: int = 1, capacity: int | None = None
    ) -> DecoderState:
        return self.eager.start(source, source_lengths, num_beams=num_beams, capacity=capacity)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """Shape: tokens [R, n] int64 -> [R, n, V]."""
        if tokens.shape[1] > 1 or state.padding is not None:
            return self.eager.step(tokens, state)
        cache = state.cache
        cache.require_room(1)
        logits = self._compute(tokens.flatten(), cache.buffer, cache.length)
        cache.advance(1)
        return logits.unsqueeze(1)


def _block(layer: nn.Module, index: int, keep: WeightFormat) -> list[Callable[[Tensor, Any], Tensor]]:
    part: Any = layer
    assert not part.parallel
    assert part.self_attention.softcap is None
    assert part.self_attention.query_norm is None
    return [
        lean.sublayer(part.self_attention_sublayer, _attention(part.self_attention, index, keep)),
        lean.sublayer(part.feed_forward_sublayer, lean.feed_forward(part.feed_forward, keep)),
    ]


def _attention(part: Any, index: int, keep: WeightFormat) -> Callable[[Tensor, Any], Tensor]:
    project, output = lean.linear(part.qkv, keep), lean.linear(part.output, keep)
    heads, groups, width, scale = part.head_count, part.groups, part.width, part.scale

    def apply(x: Tensor, now: Now) -> Tensor:
        query, key, value = project(x).view(-1, heads + 2 * groups, width).split((heads, groups, groups), dim=1)
        if now.rotation is not None:
            query, key = now.rotation.apply(query), now.rotation.apply(key)
        fresh = torch.stack((key, value), dim=1)
        return output(torch.ops.sublayer_benchmarks.look(query, fresh, now.buffer, index, now.place, scale))

    return apply
