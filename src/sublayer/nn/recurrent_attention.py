"""How a recurrent decoder looks back at the source: global attention (Luong et al. 2015, section 3.1).

    c = sum over s of softmax(score(h, s)) s,     h~ = tanh(W [c; h])                                (equations 5, 7)

    multiplicative    score(h, s) = h W s                                  ("general", equation 8)
    additive          score(h, s) = v tanh(W h + U s)                      (Bahdanau et al. 2015, appendix A.1.2)

h~ is what the projection reads. It is not fed to the next step (Luong's section 3.3 does), so that all positions of a
target are still one call of the recurrent kernel, and attention over them one product.

Shapes: B sentences, r rows a sentence, T positions, S source positions, D width, A width of the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sublayer import config
from sublayer.nn.attend import attend, attention_weights
from sublayer.nn.initial import glorot
from sublayer.nn.linear import Linear
from sublayer.nn.mask import ResolvedMask
from sublayer.nn.part import Part
from sublayer.nn.tap import Tap


class RecurrentAttention(Part):
    """Attention of a recurrent decoder's states to an encoder's output. The tap `weights` sees the weights."""

    def __init__(self, c: config.Multiplicative | config.Additive, dim: int) -> None:
        super().__init__()
        width = dim if isinstance(c, config.Multiplicative) or c.hidden is None else c.hidden
        self.query = Linear(dim, width, bias=False) if isinstance(c, config.Additive) else None
        self.key = Linear(dim, width, bias=False)
        self.score = Linear(width, 1, bias=False) if isinstance(c, config.Additive) else None
        self.combine = Linear(2 * dim, dim, bias=False)
        self.weights = Tap()

    def reset_parameters(self) -> None:
        for linear in (self.query, self.key, self.score, self.combine):
            if linear is not None:
                glorot(linear)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What does not depend on the decoder: computed once, however many tokens are then decoded.

        Shape: memory [B, S, D] -> [B, 1, S, A], [B, 1, S, D].
        """
        return self.key(memory).unsqueeze(1), memory.unsqueeze(1)

    def forward(self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: ResolvedMask) -> Tensor:
        """Shape: x [B * r, T, D] -> [B * r, T, D]; the tap sees [B, 1, r * T, S].

        The r rows that share a source are queries side by side on one copy of its keys.
        """
        key, value = keys_values
        query = x.reshape(key.shape[0], 1, -1, x.shape[-1])
        if self.query is None or self.score is None:
            context = attend(query, key, value, mask, scale=1.0, tap=self.weights)
        else:
            context = self._added(self.query(query), key, value, mask)
        return self.combine(torch.cat((context.reshape(x.shape), x), dim=-1)).tanh()

    def _added(self, query: Tensor, key: Tensor, value: Tensor, mask: ResolvedMask) -> Tensor:
        """[B, 1, Q, A], [B, 1, S, A], [B, 1, S, D] -> [B, 1, Q, D]."""
        assert self.score is not None
        scores: Tensor = self.score((query.unsqueeze(3) + key.unsqueeze(2)).tanh()).squeeze(-1)
        return self.weights(attention_weights(scores, mask)) @ value
