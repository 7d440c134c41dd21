"""What made a token's logit: the share of the embedding, of every head and of every feed-forward.

The stream is a sum: the embedding, and what every sub-layer has added to it; what an attention sub-layer adds is in
turn the sum over its heads of what each has found, through the output map, and the map's bias (Elhage et al. 2021, "A
Mathematical Framework for Transformer Circuits", https://transformer-circuits.pub/2021/framework). The logit is linear
in the stream but for the norms, and a norm is linear too once its scale is held at what it was:

    LayerNorm(sum of x_i) = sum of (x_i - mean(x_i)) / s * w + b,    s = sqrt(var(sum of x_i) + eps)
    RMSNorm(sum of x_i)   = sum of x_i / r * w,                      r = sqrt(mean((sum of x_i)^2) + eps)

So the parts' shares sum to the logit, exactly: a law. This is the *direct* path of each part: what later layers make of
it counts as theirs, and that a part also changes the scales counts nowhere. In a pre-norm model only the last norm lies
on that path. In a post-norm model every later sub-layer's norm does, each held at its own scale: the shares still sum
to the logit, but an early part is scaled by norms that later parts have set, and less follows from its size. In the
sandwich and output placements a norm stands between the heads and the stream; it is taken apart in the same way.

What is not linear is refused by name: a masked-language head with its own layer and activation, a label head with one,
a pooler, pooling by maximum. A cap on the logits (Gemma 2) is none of the parts': they sum to the logit before it.

Shapes: P parts, S positions, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, Literal, TypeAlias, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublayer.errors import InputError
from sublayer.inspection.examples import Example, batch_of
from sublayer.inspection.lens import last_stack, require_position, scaled_output
from sublayer.inspection.recording import Recording, record
from sublayer.models import EncoderOnly
from sublayer.models import Transformer as Model
from sublayer.models.evaluating import evaluating
from sublayer.models.stack import Stack
from sublayer.nn.attention import MultiHead
from sublayer.nn.block import Block
from sublayer.nn.normalization import Norm
from sublayer.nn.sublayer import SubLayer

Kind = Literal["embedding", "head", "attention bias", "feed-forward", "norm bias", "output bias"]


Value = TypeVar("Value", float, Tensor)


@dataclass(frozen=True)
class Share(Generic[Value]):
    """One part of a logit, or of the stream, whose value is a tensor [S, D].

    layer: counted from 0; None of the embedding and of what follows the last layer. attention: "self" or "cross", of a
    head and of an attention's bias. head: counted from 0.
    """

    kind: Kind
    value: Value
    layer: int | None = None
    attention: Literal["", "self", "cross"] = ""
    head: int | None = None

    @property
    def name(self) -> str:
        """Such as "layer 3 cross head 2"."""
        said_layer = "" if self.layer is None else f"layer {self.layer} "
        kind = f"head {self.head}" if self.kind == "head" else self.kind
        which = f"{self.attention} " if self.attention else ""
        return f"{said_layer}{which}{kind}"


_Parts: TypeAlias = list[Share[Tensor]]


@dataclass(frozen=True)
class Contributions:
    """A token's logit taken apart.

    position, token: of which (a label's number, of a classifier or tagger). logit: what the model says, before a cap.
    shares: the parts, in the model's order; their values sum to the logit.
    """

    position: int | None
    token: int
    logit: float
    shares: list[Share[float]]

    def of_layers(self) -> list[tuple[str, float]]:
        """Embedding, each layer and what follows the last, summed."""
        found: dict[str, float] = {}
        for share in self.shares:
            name = share.kind if share.layer is None else f"layer {share.layer}"
            found[name] = found.get(name, 0.0) + share.value
        return list(found.items())


@torch.no_grad()
def contributions(model: Model, example: Example, token: int, position: int | None = None) -> Contributions:
    """What made the logit of `token` at `position` of what a model says of an example.

    Args:
        token: an id, or the number of a label. position: of the decoder's (or only) stack, counted from 0, negative
            from the last; the last where left out. A classifier says one thing of the whole text and is given none.

    Raises:
        InputError: the position or token does not exist, or something between stream and logit is not linear (named).
    """
    stack, name = last_stack(model)
    weight, bias = _projection(model)
    if not 0 <= token < weight.shape[0]:
        raise InputError(f"there is no token (or label) {token}", f"They are 0 to {weight.shape[0] - 1}.")
    with evaluating(model), record(model, f"{name}.*") as seen:
        hidden = batch_of(model, [example], [0]).hidden(model)
        where, place = _weights_of_positions(model, hidden.shape[1], position)
        parts = _parts(stack, name, seen)
    logit = float(where.to(hidden) @ hidden[0] @ weight[token]) + (0.0 if bias is None else float(bias[token]))
    direction = scaled_output(model, weight[token])
    shares = [
        Share(part.kind, float(where.to(part.value) @ (part.value @ direction)), part.layer, part.attention, part.head)
        for part in parts
    ]
    if bias is not None:
        shares.append(Share("output bias", float(bias[token])))
    return Contributions(place, token, logit, shares)


def _parts(stack: Stack, name: str, seen: Recording) -> _Parts:
    """What the stack's output is the sum of, each as it stands there: all norms on its way passed."""
    parts = [Share("embedding", seen[f"{name}.embedding.stream"][0][0])]
    for layer, module in enumerate(stack.layers):
        block, where = cast("Block", module), f"{name}.layers.{layer}"
        parts = _written(parts, _heads(block.self_attention, f"{where}.self_attention", layer, "self", seen),
                         block.self_attention_sublayer, layer)  # fmt: skip
        if block.cross_attention is not None and block.cross_attention_sublayer is not None:
            parts = _written(parts, _heads(block.cross_attention, f"{where}.cross_attention", layer, "cross", seen),
                             block.cross_attention_sublayer, layer)  # fmt: skip
        # What a feed-forward writes is taken whole, its norm passed.
        parts.append(Share("feed-forward", seen[f"{where}.feed_forward_sublayer.output"][0][0], layer))
        parts = _normalized(block.feed_forward_sublayer.outer, parts, layer)
    return _normalized(stack.norm, parts, None)


def _written(stream: _Parts, new: _Parts, sublayer: SubLayer, layer: int) -> _Parts:
    """outer(stream + after(new)), in parts."""
    return _normalized(sublayer.outer, [*stream, *_normalized(sublayer.after, new, layer)], layer)


def _heads(attention: MultiHead, name: str, layer: int, which: Literal["self", "cross"], seen: Recording) -> _Parts:
    """What each head writes through the output map, and the map's bias."""
    [found] = seen[f"{name}.heads"][0]  # [S, H, d]
    through, nothing = attention.written_by_heads(found)
    parts = [Share("head", one, layer, which, head) for head, one in enumerate(through)]
    has_bias = attention.output.bias is not None  # pyright: ignore[reportUnnecessaryComparison]
    return [*parts, Share("attention bias", nothing, layer, which)] if has_bias else parts


def _normalized(norm: nn.Module | None, parts: _Parts, layer: int | None) -> _Parts:
    """The parts behind a norm that is held at its actual scale, and its bias as one more."""
    if norm is None or isinstance(norm, nn.Identity):
        return parts
    whole = torch.stack([part.value for part in parts]).sum(0)
    linear = cast("Norm", norm).at_scale(whole)
    parts = [replace(part, value=linear(part.value)) for part in parts]
    bias = cast("Norm", norm).bias
    # Several norms' biases in one layer are one part each time they are met.
    return parts if bias is None else [*parts, Share("norm bias", bias.expand_as(whole), layer)]


def _projection(model: Model) -> tuple[Tensor, Tensor | None]:
    """The linear map from the stack's output to logits: weight [V, D] and bias [V].

    Raises:
        InputError: there is none, or something on the way to it is not linear.
    """
    if not isinstance(model, EncoderOnly):
        return model.output.weight, model.output.bias
    if model.head is None:
        raise InputError(f"the head '{model.config.head.type}' gives no logits to take apart", "Take another model.")
    return model.head.linear(pooler=model.pooler is not None)


def _weights_of_positions(model: Model, size: int, position: int | None) -> tuple[Tensor, int | None]:
    """How much each position's output counts in what is said, [S], and which position it is, if it is one."""
    head = model.head if isinstance(model, EncoderOnly) else None
    weights = None if head is None else head.weights_of_positions(size)
    if weights is not None:
        if position is not None:
            raise InputError(f"position = {position}, but a classifier says one thing of a text", "Leave it out.")
        return weights, int(weights.argmax()) if weights.max() == 1 else None
    place = require_position(size, position)
    return F.one_hot(torch.tensor(place), size).double(), place
