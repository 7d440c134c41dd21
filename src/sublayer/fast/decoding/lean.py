"""The parts as plain functions of new positions: what a decoding step computes, without the modules around it.

In a small model the calls of modules cost a decoding step as much time as its products. Here each part is turned, once,
into a function over its weights that a step may call many times: products with matrices of a `WeightFormat` and the
activation within them, keys and values copied into the cache once, no taps and no dropout. Whoever uses these functions
therefore asks a `Guard` whether the modules are still the same and nobody listens. Copied are the matrices of the
products and what the places of a decoder are computed to; all else is read where it stands.

The functions are made from the modules, by type. A part that is not known here raises `Unknown`; nothing is guessed.

Shapes: R rows (hypotheses), n new tokens of each, N = R n tokens, those of a row side by side; B sentences, D model
width, H query heads, G key-value heads, d width of a head, T keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sublayer import config
from sublayer.fast.decoding.weight_formats import FUSED, WeightFormat, float32
from sublayer.fast.layouts import Function
from sublayer.nn import attend
from sublayer.nn.activation import ACTIVATIONS
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.block import Block
from sublayer.nn.embedding import Embedding
from sublayer.nn.experts import MixtureOfExperts, mixture
from sublayer.nn.feed_forward import Gated, PositionWise
from sublayer.nn.linear import Linear
from sublayer.nn.mask import ResolvedMask
from sublayer.nn.normalization import LayerNorm, RMSNorm
from sublayer.nn.positions import Alibi, Learned, NoPosition, RelativeBias, Rotary, Rotation, Sinusoidal
from sublayer.nn.sublayer import SubLayer

ResidualBranch: TypeAlias = "Callable[[Tensor, Step], Tensor]"
"""What a sub-layer adds to the stream, [N, D] -> [N, D]. The result is the caller's own, to be written over."""


class Unknown(Exception):
    """This part has no plain function. Caught by whoever prepares, who then runs the modules."""


@dataclass(slots=True)
class LayerStep:
    """What layers of a kind have in common in one step: how new positions are turned, and what they see.

    rotation: of queries and keys, cos and sin [r] or [N, 1, r].
    added: to the scores of one new token a row, [1 or R, 1 or H, T]; None for nothing.
    mask: for several new tokens a row, in the place of `added`.
    """

    rotation: Rotation | None
    added: Tensor | None = None
    mask: ResolvedMask | None = None


@dataclass(slots=True)
class Step:
    """What one step has for all its layers.

    new: n, tokens a row. layer_steps: of each kind of layer.
    slots: of each layer, where its new keys and values go, [2, R, G, n, d].
    held: for each kind, of each layer its keys, then its values, [R, G, T, d] each, the new positions among them.
    memory: of each layer, keys and values of the source, [B, G, S, d]; memory_mask: what is added to their scores.
    """

    new: int
    layer_steps: Sequence[LayerStep]
    slots: Sequence[Tensor]
    held: Sequence[Sequence[Tensor]]
    memory: Sequence[tuple[Tensor, Tensor]]
    memory_mask: Tensor | None


# --- what every part is made of ----------------------------------------------------------------------------------

M = TypeVar("M", bound=nn.Module)


def known(module: nn.Module | None, kind: type[M]) -> M:
    """`module`, which is a `kind` exactly: not a subclass, and without a `forward` of its own."""
    if type(module) is not kind or "forward" in module.__dict__:
        raise Unknown(f"{type(module).__name__} is not a plain {kind.__name__}")
    return module


def linear(part: nn.Module, weight_format: WeightFormat, activation: config.Activation | None = None) -> Function:
    """activation(x W^T + b), the matrix kept as `weight_format` keeps it."""
    part = known(part, Linear)
    return weight_format(part.weight.detach(), part.bias, activation)


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


def block(part: nn.Module, index: int, kind: int, weight_format: WeightFormat) -> list[ResidualBranch]:
    """What a layer does to the stream, one function after the other: [N, D] -> [N, D].

    Args:
        index: of the layer. kind: of its layer_step.
    """
    part = known(part, Block)
    attention, feed = (
        self_attention(part.self_attention, index, kind, weight_format),
        feed_forward(part.feed_forward, weight_format),
    )
    if part.parallel:
        return [parallel(part, attention, feed)]
    found = [sublayer(part.self_attention_sublayer, attention)]
    if part.cross_attention is not None and part.cross_attention_sublayer is not None:
        found.append(
            sublayer(part.cross_attention_sublayer, cross_attention(part.cross_attention, index, weight_format))
        )
    return [*found, sublayer(part.feed_forward_sublayer, feed)]


def sublayer(part: nn.Module, branch: ResidualBranch) -> ResidualBranch:
    """outer(x + after(branch(before(x))))."""
    part = known(part, SubLayer)
    before, after, outer = norm_or_none(part.before), norm_or_none(part.after), norm_or_none(part.outer)

    def apply(x: Tensor, step: Step) -> Tensor:
        y = branch(x if before is None else before(x), step)
        if after is not None:
            y = after(y)
        y = y.add_(x)
        return y if outer is None else outer(y)

    return apply


def parallel(part: Block, attention: ResidualBranch, feed: ResidualBranch) -> ResidualBranch:
    """x + attention(norm(x)) + feed(norm'(x)), where the norms may be one."""
    both = [known(each, SubLayer) for each in (part.self_attention_sublayer, part.feed_forward_sublayer)]
    if any(each.after is not None or each.outer is not None for each in both):
        raise Unknown("a parallel block with a norm behind")
    shared = norm_or_none(part.shared_norm)
    first, second = (norm_or_none(each.before) for each in both)

    def apply(x: Tensor, step: Step) -> Tensor:
        read = x if shared is None else shared(x)
        y = attention(read if first is None else first(read), step)
        return y.add_(feed(read if second is None else second(read), step)).add_(x)

    return apply


def self_attention(part: nn.Module, index: int, kind: int, weight_format: WeightFormat) -> ResidualBranch:
    """New queries against what the cache holds."""
    part = known(part, SelfAttention)
    project, output = linear(part.qkv, weight_format), linear(part.output, weight_format)
    query_norm, key_norm, each = norm_or_none(part.query_norm), norm_or_none(part.key_norm), part.norm_each_head
    heads, groups, width = part.head_count, part.groups, part.width
    everything = heads + 2 * groups
    look = one_query(part) if part.softcap is None else one_query_capped(part, part.softcap)
    look_from_several = several_queries(part)

    def normalize(x: Tensor, norm: Function) -> None:
        """Shape: x [N, heads, d], in place."""
        x.copy_(norm(x) if each else norm(x.flatten(1)).view(x.shape))

    def apply(x: Tensor, step: Step) -> Tensor:
        qkv = project(x).view(-1, everything, width)
        if query_norm is not None and key_norm is not None:
            normalize(qkv.narrow(1, 0, heads), query_norm)
            normalize(qkv.narrow(1, heads, groups), key_norm)
        layer_step = step.layer_steps[kind]
        if layer_step.rotation is not None:
            both = qkv.narrow(1, 0, heads + groups)
            both.copy_(layer_step.rotation.apply(both))
        query, fresh = qkv.narrow(1, 0, heads), qkv.narrow(1, heads, 2 * groups)
        step.slots[index].copy_(fresh.view(-1, step.new, 2, groups, width).permute(2, 0, 3, 1, 4))
        key, value = step.held[kind][2 * index], step.held[kind][2 * index + 1]
        mixed = (look if step.new == 1 else look_from_several)(query, key, value, layer_step, step.new)
        return output(mixed.reshape(-1, heads * width))

    return apply


Look: TypeAlias = Callable[[Tensor, Tensor, Tensor, LayerStep, int], Tensor]
"""query [N, H, d], keys and values [R, G, T, d], what is seen, n -> [N, H, d] in any shape that holds it so."""


def one_query(part: SelfAttention) -> Look:
    """One query a row: heads that share keys are queries side by side."""
    groups, sharing, width, scale = part.groups, part.head_count // part.groups, part.width, part.scale

    def look(query: Tensor, key: Tensor, value: Tensor, layer_step: LayerStep, new: int) -> Tensor:
        return scaled_dot_product_attention(
            query.view(-1, groups, sharing, width), key, value, shared_by(layer_step.added, groups), scale=scale
        )

    return look


def one_query_capped(part: SelfAttention, softcap: float) -> Look:
    """The same with a cap on the scores, which torch's kernel does not know."""
    groups, sharing, width, scale = part.groups, part.head_count // part.groups, part.width, part.scale

    def look(query: Tensor, key: Tensor, value: Tensor, layer_step: LayerStep, new: int) -> Tensor:
        scores = (query * (scale / softcap)).view(-1, groups, sharing, width) @ key.transpose(-2, -1)
        scores = scores.tanh_().mul_(softcap)
        added = shared_by(layer_step.added, groups)
        if added is not None:
            # A row that is all padding has nothing but -inf, and its softmax is NaN; the fused kernel makes zeros.
            scores.add_(added).clamp_(min=torch.finfo(scores.dtype).min / 2)
        return scores.softmax(dim=-1) @ value

    return look


def several_queries(part: SelfAttention) -> Look:
    """Several queries a row, which do not all see the same: as the modules do it."""
    heads, width, scale, softcap = part.head_count, part.width, part.scale, part.softcap

    def look(query: Tensor, key: Tensor, value: Tensor, layer_step: LayerStep, new: int) -> Tensor:
        query, mask = query.view(-1, new, heads, width).transpose(1, 2), layer_step.mask
        assert mask is not None, "several new tokens do not see the same"
        if softcap is None:
            mixed = attend.fused(query, key, value, mask, scale=scale)
        else:
            mixed = attend.explicit(query, key, value, mask, scale=scale, softcap=softcap)
        return mixed.transpose(1, 2)

    return look


def shared_by(added: Tensor | None, groups: int) -> Tensor | None:
    """For query heads that stand side by side: [1 or R, 1 or H, T] -> [1 or R, 1 or G, 1 or H / G, T]."""
    if added is None:
        return None
    return added.unsqueeze(1) if added.shape[1] == 1 else added.view(added.shape[0], groups, -1, added.shape[-1])


def cross_attention(part: nn.Module, index: int, weight_format: WeightFormat) -> ResidualBranch:
    """Rows of a sentence, their tokens, and heads that share keys, are queries side by side on one copy of its keys."""
    part = known(part, CrossAttention)
    if part.softcap is not None:
        raise Unknown("a cap on the scores of the source")
    project, output = linear(part.query, weight_format), linear(part.output, weight_format)
    query_norm, each = norm_or_none(part.query_norm), part.norm_each_head
    heads, groups, width, scale = part.head_count, part.groups, part.width, part.scale
    sharing = heads // groups

    def apply(x: Tensor, step: Step) -> Tensor:
        key, value = step.memory[index]
        query = project(x)
        if query_norm is not None:
            query = query_norm(query.view(-1, heads, width) if each else query)
        rows = x.shape[0] // key.shape[0]
        if rows == 1:
            query = query.view(-1, groups, sharing, width)
        else:
            query = query.view(-1, rows, groups, sharing, width).transpose(1, 2).flatten(2, 3)
        mixed = scaled_dot_product_attention(query, key, value, step.memory_mask, scale=scale)
        if rows > 1:
            mixed = mixed.view(-1, groups, rows, sharing, width).transpose(1, 2)
        return output(mixed.reshape(-1, heads * width))

    return apply


def feed_forward(part: nn.Module, weight_format: WeightFormat) -> ResidualBranch:
    """Position-wise with the activation inside the product, gated, or a mixture."""
    if isinstance(part, PositionWise):
        part = known(part, PositionWise)
        up, down = linear(part.up, weight_format, name_of(part.activation)), linear(part.down, weight_format)
        return lambda x, step: down(up(x))
    if isinstance(part, MixtureOfExperts):
        return experts(part, weight_format)
    part = known(part, Gated)
    network = gated(linear(part.gate_up, weight_format), linear(part.down, weight_format), name_of(part.activation))
    return lambda x, step: network(x)


def gated(gate_up: Function, down: Function, name: config.Activation) -> Function:
    activation = ACTIVATIONS[name]

    def network(x: Tensor) -> Tensor:
        gate, up = gate_up(x).chunk(2, dim=-1)
        return down(activation(gate).mul_(up))

    return network


def experts(part: nn.Module, weight_format: WeightFormat) -> ResidualBranch:
    """A mixture; its router stays in float32, for a rounded score would send a token elsewhere."""
    part = known(part, MixtureOfExperts)
    router, active, normalize = linear(part.router, float32), part.active, part.normalize
    networks = [
        gated(weight_format(gate_up, None), weight_format(down, None), name_of(part.activation))
        for gate_up, down in zip(part.gate_up.detach(), part.down.detach(), strict=True)
    ]

    def apply(x: Tensor, step: Step) -> Tensor:
        return mixture(
            x, router(x), lambda number, tokens: networks[number](tokens), active=active, normalize=normalize
        )

    return apply


def name_of(activation: Callable[[Tensor], Tensor]) -> config.Activation:
    """The activation's name, where oneDNN has it."""
    for name, function in ACTIVATIONS.items():
        if function is activation and name in FUSED:
            return name
    raise Unknown(f"activation {activation}")


# --- into the stack ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PositionTables:
    """What a position does to a new token at each place, from tables: L places.

    added: to the embedding, [L, D]. rotation: of queries and keys, [L, r]. bias: on the scores of the last of the L
    places, [H, L]. A bias depends on the distance alone, so that of an earlier place is the tail of it.
    """

    added: Tensor | None = None
    rotation: Rotation | None = None
    bias: Tensor | None = None

    def rotation_at(self, place: int | Tensor) -> Rotation | None:
        """Of one place, or of the place of each token, [N]."""
        if self.rotation is None:
            return None
        cos, sin, layout = self.rotation
        if isinstance(place, int):
            return Rotation(cos[place], sin[place], layout)
        return Rotation(cos[place].unsqueeze(1), sin[place].unsqueeze(1), layout)

    def bias_at(self, place: int, first: int) -> Tensor | None:
        """On the keys from `first` to `place`: [1, H, place - first + 1]."""
        if self.bias is None:
            return None
        last = self.bias.shape[-1] - 1
        return self.bias[None, :, last - place + first :]


def position_tables(part: nn.Module, length: int, dtype: torch.dtype) -> PositionTables:
    """The first `length` places of a position."""
    every = torch.arange(length)
    match part:
        case Sinusoidal():
            return PositionTables(added=known(part, Sinusoidal).table.to(dtype))
        case Learned():
            learned = known(part, Learned)
            return PositionTables(added=learned.weight[learned.config.offset :])
        case Rotary():
            return PositionTables(rotation=known(part, Rotary).rotation(every, dtype))
        case Alibi() | RelativeBias():
            return PositionTables(bias=known(part, type(part)).bias(every[-1:], every, dtype).squeeze(1))
        case _:
            known(part, NoPosition)
            return PositionTables()


def embedding(
    part: nn.Module, added: Tensor | None, weight_format: WeightFormat
) -> Callable[[Tensor, int | Tensor], Tensor]:
    """Tokens [N] at one place, or at a place each, -> widen(norm(E[token] * scale + position)), [N, D]."""
    part = known(part, Embedding)
    tokens_part = known(part.tokens, nn.Embedding)
    if tokens_part.max_norm is not None:
        raise Unknown("an embedding that rescales its vectors")
    table, scale, normed = tokens_part.weight, part.scale, norm_or_none(part.norm)
    widen = None if type(part.widen) is nn.Identity else linear(part.widen, weight_format)

    def apply(tokens: Tensor, place: int | Tensor) -> Tensor:
        x = torch.embedding(table, tokens)
        if added is not None:
            x = torch.add(added[place], x, alpha=scale)
        elif scale != 1.0:
            x = x * scale
        if normed is not None:
            x = normed(x)
        return x if widen is None else widen(x)

    return apply
