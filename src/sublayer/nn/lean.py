"""The parts as plain functions of one new position: what a decoding step computes, without the modules around it.

In a small model the calls of modules cost a decoding step as much time as its products. Here each part is turned, once,
into a function over its weights that a step may call many times: products with oneDNN's layout and the activation
within them, keys and values copied into the cache once, no taps and no dropout. Whoever uses these functions therefore
asks a `Watch` whether the modules are still the same and nobody listens. Copied are the matrices of the products and
what the places of a decoder are computed to; all else is read where it stands.

The functions are made from the modules, by type. A part that is not known here raises `Unknown`; nothing is guessed.

Shapes: R rows (hypotheses), B sentences, D model width, H query heads, G key-value heads, d width of a head, T keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sublayer import config
from sublayer.nn.activation import ACTIVATIONS
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.embedding import Embedding
from sublayer.nn.feed_forward import Gated, PositionWise
from sublayer.nn.linear import Linear, pack, product
from sublayer.nn.normalization import LayerNorm, RMSNorm
from sublayer.nn.positions import Alibi, Learned, NoPosition, RelativeBias, Rotary, Rotation, Sinusoidal
from sublayer.nn.sublayer import SubLayer

Function: TypeAlias = Callable[[Tensor], Tensor]
"""[R, in] -> [R, out]."""

Written: TypeAlias = "Callable[[Tensor, Step], Tensor]"
"""What a sub-layer adds to the stream, [R, D] -> [R, D]. The result is the caller's own, to be written over."""


class Unknown(Exception):
    """This part has no plain function. Caught by whoever prepares, who then runs the modules."""


@dataclass(slots=True)
class Step:
    """What one step has for all its layers.

    slots: of each layer, where its new keys and values go, [2, R, G, d].
    held: of each layer its keys, then its values, [R, G, T, d] each, the new position among them.
    rotation: of the new position. bias: what the positions add to its scores, [H, T].
    memory: of each layer, keys and values of the source, [B, G, S, d]; memory_mask: what is added to their scores.
    """

    slots: tuple[Tensor, ...]
    held: tuple[Tensor, ...]
    rotation: Rotation | None
    bias: Tensor | None
    memory: list[tuple[Tensor, Tensor]]
    memory_mask: Tensor | None


# --- what every part is made of ----------------------------------------------------------------------------------

FUSED: Mapping[config.Activation | None, tuple[str, str]] = {
    None: ("none", ""),
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
}
"""Our names of activations, and what oneDNN calls them."""

SMALL = 2**17
"""A weight of so many numbers or fewer is read before oneDNN has begun: one row is quicker by torch's own product."""

M = TypeVar("M", bound=nn.Module)


def known(module: nn.Module | None, kind: type[M]) -> M:
    """`module`, which is a `kind` exactly: not a subclass, and without a `forward` of its own."""
    if type(module) is not kind or "forward" in module.__dict__:
        raise Unknown(f"{type(module).__name__} is not a plain {kind.__name__}")
    return module


def linear(part: nn.Module, activation: config.Activation | None = None) -> Function:
    """activation(x W^T + b)."""
    part = known(part, Linear)
    attribute, algorithm = FUSED[activation]
    weight, bias = part.weight.detach(), part.bias
    packed = pack(weight)

    def apply(x: Tensor) -> Tensor:
        y: Tensor = product(x, packed, bias, attribute, [], algorithm)
        return y

    if weight.numel() > SMALL:
        return apply
    transposed, plain = weight.t().contiguous(), None if activation is None else ACTIVATIONS[activation]

    def apply_small(x: Tensor) -> Tensor:
        if x.shape[0] > 1:
            return apply(x)
        y = x.mm(transposed) if bias is None else torch.addmm(bias, x, transposed)  # pyright: ignore[reportUnnecessaryComparison]
        return y if plain is None else plain(y)

    return apply_small


def norm(part: nn.Module) -> Function:
    """LayerNorm or RMSNorm, over the last dimension of any shape."""
    if isinstance(part, LayerNorm):
        layer = known(part, LayerNorm)
        weight, bias, eps, shape = layer.weight, layer.bias, layer.eps, layer.weight.shape
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps)
    root = known(part, RMSNorm)
    weight, eps, shape = root.weight, root.eps, root.weight.shape
    if root.plus_one:
        return lambda x: torch.rms_norm(x, shape, 1.0 + weight, eps)
    return lambda x: torch.rms_norm(x, shape, weight, eps)


def norm_or_none(part: nn.Module | None) -> Function | None:
    return None if part is None or type(part) is nn.Identity else norm(part)


# --- the sub-layers ----------------------------------------------------------------------------------------------


def sublayer(part: nn.Module, written: Written) -> Written:
    """outer(x + after(written(before(x))))."""
    part = known(part, SubLayer)
    before, after, outer = norm_or_none(part.before), norm_or_none(part.after), norm_or_none(part.outer)

    def apply(x: Tensor, step: Step) -> Tensor:
        y = written(x if before is None else before(x), step)
        if after is not None:
            y = after(y)
        y = y.add_(x)
        return y if outer is None else outer(y)

    return apply


def self_attention(part: nn.Module, index: int) -> Written:
    """One query a row against what the cache holds; heads that share keys are queries side by side."""
    part = known(part, SelfAttention)
    project, output = linear(part.qkv), linear(part.output)
    query_norm, key_norm = norm_or_none(part.query_norm), norm_or_none(part.key_norm)
    heads, groups, width, scale = part.head_count, part.groups, part.width, part.scale
    everything, sharing = heads + 2 * groups, heads // groups

    def apply(x: Tensor, step: Step) -> Tensor:
        qkv = project(x).view(-1, everything, width)
        if query_norm is not None and key_norm is not None:
            query, key = qkv.narrow(1, 0, heads), qkv.narrow(1, heads, groups)
            query.copy_(query_norm(query))
            key.copy_(key_norm(key))
        if step.rotation is not None:
            both = qkv.narrow(1, 0, heads + groups)
            both.copy_(step.rotation.apply(both))
        query, new = qkv.narrow(1, 0, heads), qkv.narrow(1, heads, 2 * groups)
        step.slots[index].copy_(new.view(-1, 2, groups, width).transpose(0, 1))
        mixed = scaled_dot_product_attention(
            query.view(-1, groups, sharing, width),
            step.held[2 * index],
            step.held[2 * index + 1],
            None if step.bias is None else step.bias.view(1, groups, sharing, -1),
            scale=scale,
        )
        return output(mixed.reshape(-1, heads * width))

    return apply


def cross_attention(part: nn.Module, index: int) -> Written:
    """Rows of one sentence, and heads that share keys, are queries side by side on one copy of the source's keys."""
    part = known(part, CrossAttention)
    project, output = linear(part.query), linear(part.output)
    query_norm = norm_or_none(part.query_norm)
    heads, groups, width, scale = part.head_count, part.groups, part.width, part.scale
    sharing = heads // groups

    def apply(x: Tensor, step: Step) -> Tensor:
        key, value = step.memory[index]
        query = project(x)
        if query_norm is not None:
            query = query_norm(query.view(-1, heads, width))
        rows = query.shape[0] // key.shape[0]
        if rows == 1:
            query = query.view(-1, groups, sharing, width)
        else:
            query = query.view(-1, rows, groups, sharing, width).transpose(1, 2).flatten(2, 3)
        mixed = scaled_dot_product_attention(query, key, value, step.memory_mask, scale=scale)
        if rows > 1:
            mixed = mixed.view(-1, groups, rows, sharing, width).transpose(1, 2)
        return output(mixed.reshape(-1, heads * width))

    return apply


def feed_forward(part: nn.Module) -> Written:
    """Position-wise with the activation inside the product, or gated."""
    if isinstance(part, PositionWise):
        part = known(part, PositionWise)
        up, down = linear(part.up, name_of(part.activation)), linear(part.down)
        return lambda x, step: down(up(x))
    part = known(part, Gated)
    gate_up, down, activation = linear(part.gate_up), linear(part.down), ACTIVATIONS[name_of(part.activation)]

    def gated(x: Tensor, step: Step) -> Tensor:
        gate, up = gate_up(x).chunk(2, dim=-1)
        return down(activation(gate).mul_(up))

    return gated


def name_of(activation: Callable[[Tensor], Tensor]) -> config.Activation:
    """The activation's name, where oneDNN has it."""
    for name, function in ACTIVATIONS.items():
        if function is activation and name in FUSED:
            return name
    raise Unknown(f"activation {activation}")


# --- into the stack ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """What a position does to a new token at each place, from tables: L places.

    added: to the embedding, [L, D]. rotation: of queries and keys, [L, r]. bias: on the scores of the last of the L
    places, [H, L]. A bias depends on the distance alone, so that of an earlier place is the tail of it.
    """

    added: Tensor | None = None
    rotation: Rotation | None = None
    bias: Tensor | None = None

    def rotation_at(self, place: int) -> Rotation | None:
        if self.rotation is None:
            return None
        return Rotation(self.rotation.cos[place], self.rotation.sin[place], self.rotation.layout)

    def bias_at(self, place: int, first: int) -> Tensor | None:
        """On the keys from `first` to `place`: [H, place - first + 1]."""
        if self.bias is None:
            return None
        last = self.bias.shape[-1] - 1
        return self.bias[:, last - place + first :]


def places(part: nn.Module, length: int, dtype: torch.dtype) -> Places:
    """The first `length` places of a position."""
    every = torch.arange(length)
    match part:
        case Sinusoidal():
            return Places(added=known(part, Sinusoidal).table.to(dtype))
        case Learned():
            learned = known(part, Learned)
            return Places(added=learned.weight[learned.config.offset :])
        case Rotary():
            return Places(rotation=known(part, Rotary).rotation(every, dtype))
        case Alibi() | RelativeBias():
            return Places(bias=known(part, type(part)).bias(every[-1:], every, dtype).squeeze(1))
        case _:
            known(part, NoPosition)
            return Places()


def embedding(part: nn.Module, added: Tensor | None) -> Callable[[Tensor, int], Tensor]:
    """Tokens [R] at one place -> norm(E[token] * scale + position), [R, D]."""
    part = known(part, Embedding)
    tokens_part = known(part.tokens, nn.Embedding)
    if tokens_part.max_norm is not None:
        raise Unknown("an embedding that rescales its vectors")
    table, scale, normed = tokens_part.weight, part.scale, norm_or_none(part.norm)

    def apply(tokens: Tensor, place: int) -> Tensor:
        x = torch.embedding(table, tokens)
        if added is not None:
            x = torch.add(added[place], x, alpha=scale)
        elif scale != 1.0:
            x = x * scale
        return x if normed is None else normed(x)

    return apply
