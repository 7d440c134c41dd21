"""What every model that writes tokens ends with: the projection of its last states to the vocabulary (section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sublayer import config
from sublayer.models.initialization import initialize
from sublayer.nn.embedding import Embedding
from sublayer.nn.linear import Linear
from sublayer.nn.tap import Tap


class Projected(nn.Module):
    """A model whose `project` makes logits of its hidden states. A model calls `_finish` once its other parts stand."""

    output: Linear
    logits: Tap

    def _finish(
        self,
        c: config.DecoderOnly | config.EncoderDecoder | config.RecurrentDecoderOnly | config.RecurrentEncoderDecoder,
        tied: Embedding | None,
    ) -> None:
        """Make the projection, with the weights of an embedding where it is `tied` to one, and draw all parameters."""
        self.output = Linear(c.dim, c.vocab_size, bias=c.output_bias)
        if tied is not None:
            self.output.weight = tied.tokens.weight
        self.logits = Tap()
        initialize(self)

    @property
    def device(self) -> torch.device:
        return self.output.weight.device

    def project(self, hidden: Tensor) -> Tensor:
        """Shape: hidden [..., D] -> logits [..., V]."""
        return self.logits(self.output(hidden))
