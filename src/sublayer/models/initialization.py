"""How weights begin, in one place.

parameter                              distribution
token embeddings                       normal, std D ** -0.5: with the sqrt(D) of section 3.4, inputs of size 1
learned positions                      normal, std 0.02
relative bias                          normal, std 0.02
matrices                               normal, Glorot's std, sqrt(2 / (fan in + fan out)) of each projection
... that write to an unnormalized      the same, divided by sqrt(number of sub-layers of the stack), so that the
    stream (pre wiring)                stream's size does not grow with the depth (as in GPT-2)
output projection, when not tied       normal, std D ** -0.5
biases                                 0
norms                                  weight 1, bias 0
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

from sublayer import config
from sublayer.nn.attention import CrossAttention, SelfAttention
from sublayer.nn.feed_forward import Gated, PositionWise
from sublayer.nn.normalization import LayerNorm, RMSNorm
from sublayer.nn.positions import Learned, RelativeBias

if TYPE_CHECKING:
    from sublayer.models.encoder_decoder import EncoderDecoder


def initialize(model: EncoderDecoder) -> None:
    """Fill every parameter of the model by the table above."""
    c = model.config
    for stack, tree, sublayers in ((model.encoder, c.encoder, 2), (model.decoder, c.decoder, 3)):
        written = 1 / math.sqrt(sublayers * tree.layers) if tree.block.wiring == "pre" else 1.0
        for module in stack.modules():
            _fill(module, tree, c.dim, written)
    if c.tied == "none":
        nn.init.normal_(model.output.weight, std=c.dim**-0.5)
    if model.output.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
        nn.init.zeros_(model.output.bias)


def _fill(module: nn.Module, tree: config.Stack, dim: int, written: float) -> None:
    match module:
        case nn.Embedding():
            nn.init.normal_(module.weight, std=dim**-0.5)
        case Learned() | RelativeBias():
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.02)
        case SelfAttention():
            width, grouped = module.heads * module.width, module.groups * module.width
            _matrix(module.qkv, dim, width)
            # Keys and values of fewer heads than the queries have a smaller fan of their own.
            nn.init.normal_(module.qkv.weight[width:], std=math.sqrt(2 / (dim + grouped)))
            _matrix(module.output, width, dim, written)
        case CrossAttention():
            width = module.heads * module.width
            _matrix(module.query, dim, width)
            _matrix(module.key_value, dim, module.groups * module.width)
            _matrix(module.output, width, dim, written)
        case PositionWise():
            _matrix(module.up, dim, tree.block.feed_forward.hidden)
            _matrix(module.down, tree.block.feed_forward.hidden, dim, written)
        case Gated():
            _matrix(module.gate_up, dim, tree.block.feed_forward.hidden)
            _matrix(module.down, tree.block.feed_forward.hidden, dim, written)
        case LayerNorm() | RMSNorm():
            nn.init.ones_(module.weight)
            if isinstance(module, LayerNorm) and module.bias is not None:
                nn.init.zeros_(module.bias)
        case _:
            pass


def _matrix(linear: nn.Linear, fan_in: int, fan_out: int, factor: float = 1.0) -> None:
    """Fans are those of one projection, though several may stand in one matrix."""
    nn.init.normal_(linear.weight, std=factor * math.sqrt(2 / (fan_in + fan_out)))
    if linear.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
        nn.init.zeros_(linear.bias)
