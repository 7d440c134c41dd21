"""How weights begin, in one place.

parameter                              distribution
token embeddings                       normal, std E ** -0.5 (E the table's width): with the sqrt(D) of section 3.4,
                                       inputs of size 1; std 0.02 where they are not scaled, as in BERT and GPT-2
kinds of token, learned positions      normal, std 0.02
relative bias                          normal, std 0.02
matrices                               normal, Glorot's std, sqrt(2 / (fan in + fan out)) of each projection
... that write to an unnormalized      the same, divided by sqrt(number of sub-layers of the stack), so that the
    stream (pre, parallel)             stream's size does not grow with the depth (as in GPT-2)
output projection, when not tied       normal, std D ** -0.5
pooler, convolution                    normal, Glorot's std
labels of a head                       normal, std 0.02
recurrent layers: input to each gate   normal, Glorot's std
... state to each gate                 orthogonal (Saxe et al. 2014), so that what is passed on from step to step
                                       neither grows nor fades at once
... bias of an LSTM's forget gate      1 (Jozefowicz et al. 2015, section 2.2), so that it begins by remembering
biases                                 0
norms                                  weight 1, bias 0 (weight 0 where the scale is 1 + weight)
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from sublayer.models.heads import Classification, Tagging, Transform
from sublayer.models.stack import Stack
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.block import Block
from sublayer.nn.convolution import Convolution
from sublayer.nn.embedding import Embedding
from sublayer.nn.experts import MixtureOfExperts
from sublayer.nn.feed_forward import Gated, PositionWise
from sublayer.nn.linear import Linear
from sublayer.nn.recurrent_attention import RecurrentAttention
from sublayer.nn.normalization import LayerNorm, RMSNorm
from sublayer.nn.positions import Learned, RelativeBias
from sublayer.nn.recurrence import Recurrence


def initialize(model: nn.Module) -> None:
    """Fill every parameter of a model by the table above."""
    for module in model.modules():
        _fill(module)
    for module in model.modules():
        if isinstance(module, Stack):
            _quieten(module)
    pooler = getattr(model, "pooler", None)
    if isinstance(pooler, Linear):
        _matrix(pooler)
    # Last, and only where it is a matrix of its own: a tied one is an embedding, and begins as one.
    output = getattr(model, "output", None)
    if isinstance(output, Linear):
        tables = {id(module.tokens.weight) for module in model.modules() if isinstance(module, Embedding)}
        if id(output.weight) not in tables:
            nn.init.normal_(output.weight, std=output.in_features**-0.5)
        _zero_bias(output)


def _fill(module: nn.Module) -> None:
    match module:
        case Embedding():
            nn.init.normal_(module.tokens.weight, std=0.02 if module.scale == 1.0 else module.width**-0.5)
            if module.types is not None:
                nn.init.normal_(module.types.weight, std=0.02)
            if isinstance(module.widen, Linear):
                _matrix(module.widen)
        case Learned() | RelativeBias():
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.02)
        case SelfAttention():
            dim, width, grouped = module.qkv.in_features, module.head_count * module.width, module.groups * module.width
            _matrix(module.qkv, width)
            # Keys and values of fewer heads than the queries have a smaller fan of their own.
            nn.init.normal_(module.qkv.weight[width:], std=math.sqrt(2 / (dim + grouped)))
            _matrix(module.output)
        case CrossAttention():
            _matrix(module.query)
            _matrix(module.key_value, module.groups * module.width)
            _matrix(module.output)
        case PositionWise():
            _matrix(module.up)
            _matrix(module.down)
        case Gated():
            _matrix(module.gate_up, module.down.in_features)
            _matrix(module.down)
        case MixtureOfExperts():
            hidden, dim = module.down.shape[-1], module.down.shape[-2]
            _matrix(module.router)
            for matrices in (module.gate_up, module.down):
                nn.init.normal_(matrices, std=math.sqrt(2 / (dim + hidden)))
        case Transform() | Convolution():
            _matrix(module.map)
        case Classification() | Tagging():
            nn.init.normal_(module.labels.weight, std=0.02)
            _zero_bias(module.labels)
        case LayerNorm() | RMSNorm():
            module.reset_parameters()
        case RecurrentAttention():
            for linear in (module.query, module.key, module.score, module.combine):
                if linear is not None:
                    _matrix(linear)
        case Recurrence():
            _recurrence(module)
        case _:
            pass


def _quieten(stack: Stack) -> None:
    """Scale down what each sub-layer writes to a stream, where no norm undoes it."""
    if stack.wiring not in ("pre", "parallel", "parallel-shared"):
        return
    blocks = [module for module in stack.layers if isinstance(module, Block)]
    sublayers = sum(2 if block.cross_attention is None else 3 for block in blocks)
    for block in blocks:
        cross, part = block.cross_attention, block.feed_forward
        writes = [block.self_attention.output.weight, *([] if cross is None else [cross.output.weight])]
        writes.append(part.down if isinstance(part, MixtureOfExperts) else part.down.weight)
        for weight in writes:
            weight.data.div_(math.sqrt(sublayers))


def _matrix(linear: nn.Linear, fan_out: int | None = None) -> None:
    """Fans are those of one projection, though several may stand in one matrix."""
    out = linear.out_features if fan_out is None else fan_out
    nn.init.normal_(linear.weight, std=math.sqrt(2 / (linear.in_features + out)))
    _zero_bias(linear)


def _zero_bias(linear: nn.Linear) -> None:
    if linear.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
        nn.init.zeros_(linear.bias)


@torch.no_grad()
def _recurrence(module: Recurrence) -> None:
    """The gates of a layer stand one under the other, each of them H wide."""
    width = module.dim // module.directions
    for name, parameter in module.kernel.named_parameters():
        if parameter.is_meta:
            continue
        if name.startswith("weight_ih"):
            nn.init.normal_(parameter, std=math.sqrt(2 / (parameter.shape[1] + width)))
        elif name.startswith("weight_hh"):
            for start in range(0, len(parameter), width):
                parameter[start : start + width] = _orthogonal(parameter[:width])
        else:
            nn.init.zeros_(parameter)
            # Two biases are added; one of them says it. The order of an LSTM's gates is torch's: i, f, g, o.
            if module.cell == "lstm" and name.startswith("bias_ih"):
                parameter[width : 2 * width] = 1.0


def _orthogonal(like: Tensor) -> Tensor:
    """A random orthogonal matrix, every one as probable as every other (Mezzadri 2007)."""
    q, r = cast("tuple[Tensor, Tensor]", torch.linalg.qr(torch.randn(like.shape, device=like.device)))
    return q * r.diagonal().sign()
