"""Where in the sequence a token stands: sinusoidal, learned, rotary, ALiBi, T5's relative bias, or nowhere."""

from __future__ import annotations

from sublayer import config
from sublayer.nn.positions.added import Learned, Sinusoidal
from sublayer.nn.positions.bias import Alibi, RelativeBias, build_bias
from sublayer.nn.positions.interface import NoPosition, Position
from sublayer.nn.positions.rotation import Rotary, Rotation

__all__ = [
    "Alibi", "Learned", "NoPosition", "Position", "RelativeBias", "Rotary", "Rotation", "Sinusoidal",
    "build_position",
]  # fmt: skip


def build_position(
    c: config.Position, *, dim: int, heads: int, head_dim: int, max_length: int, bidirectional: bool
) -> Position:
    """The position of a stack.

    Args:
        c: which, and its settings.
        dim: width of the residual stream.
        heads: query heads of its self-attention; head_dim: the width of one.
        max_length: the longest sequence, in tokens.
        bidirectional: whether its tokens also attend to those that follow: True in an encoder.
    """
    match c:
        case config.Sinusoidal():
            return Sinusoidal(c, dim, max_length)
        case config.Learned():
            return Learned(c, dim, max_length)
        case config.Rotary():
            return Rotary(c, head_dim, max_length)
        case config.NoPosition():
            return NoPosition()
        case _:
            return build_bias(c, heads, bidirectional)
