"""A recurrent language model (Mikolov et al. 2010; Zaremba et al. 2014)."""

from __future__ import annotations

import torch
from torch import Tensor

from sublayer import config
from sublayer.models.projection import Projected
from sublayer.models.recurrent.encoder_decoder import Reader
from sublayer.models.recurrent.state import RecurrentState
from sublayer.models.stack import longest, require_length
from sublayer.nn.embedding import Embedding
from sublayer.nn.recurrence import Recurrence


class RecurrentDecoderOnly(Projected):
    """Tokens in, logits of the next token out: the ways in of `DecoderOnly`."""

    def __init__(self, c: config.RecurrentDecoderOnly) -> None:
        super().__init__()
        self.config = c
        embedding = Embedding(c.embedding, c.vocab_size, c.dim)
        self.decoder = Reader(embedding, Recurrence(c.cell, c.dim, c.decoder.layers, c.decoder.dropout))
        self._finish(c, embedding if c.tied else None)

    def hidden(self, tokens: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """The last layer's output, before the projection.

        Args:
            lengths: taken so that every shape is asked alike; padding on the right needs no care, since no token looks
                ahead. segments: number of each token's text, where several are packed in a row: each begins anew.

        Shape: tokens [B, S], lengths [B], segments [B, S] int64 -> [B, S, D].
        """
        require_length("text", longest(tokens, segments, self.config.max_length), self.config.max_length)
        x = self.decoder.embed(tokens)
        return self.decoder.recurrence(x)[0] if segments is None else self._apart(x, segments)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Logits of the token after each. Shape: as in `hidden` -> [B, S, V]."""
        return self.project(self.hidden(tokens, lengths, segments))

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, num_beams: int = 1, capacity: int | None = None
    ) -> RecurrentState:
        """Read the prompt but for its last token, which `step` is then fed first.

        Args:
            source: the prompts without their last tokens, [B, S] int64; S may be 0. source_lengths: how many of the S
                are real, [B] int64 (padding on the right). num_beams: hypotheses a prompt: `step` then takes
                B * num_beams rows.
            capacity: tokens to feed at most beside the prompt's; as many as `max_length` leaves where left out, and
                never more.
        """
        count, size = source.shape
        require_length("prompt", size + 1, self.config.max_length)
        left = self.config.max_length - size
        capacity = left if capacity is None else min(capacity, left)
        recurrence = self.decoder.recurrence
        if size:
            _, states = recurrence(self.decoder.embed(source), None, source_lengths)
        else:
            states = recurrence.fresh(count, self.decoder.embedding.tokens.weight)
        states = tuple(part.repeat_interleave(num_beams, dim=1) for part in states)
        return RecurrentState(states, read=size, capacity=size + capacity, num_beams=num_beams)

    def step(self, tokens: Tensor, state: RecurrentState) -> Tensor:
        """The step contract: feed tokens, get the logits of what follows each; the state moves on.

        Shape: tokens [B * num_beams, n] int64 -> [B * num_beams, n, V].
        """
        x, states = self.decoder.recurrence(self.decoder.embed(state.feed(tokens)), state.states)
        state.arrive(states)
        return self.project(x[:, -tokens.shape[1] :])

    def _apart(self, x: Tensor, segments: Tensor) -> Tensor:
        """Each text of a row as a row of its own, and what comes of them back where they stood.

        Shape: x [B, S, D], segments [B, S] int64, the tokens of a text side by side -> [B, S, D].
        """
        begins = torch.ones_like(segments, dtype=torch.bool)
        begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
        text = begins.flatten().cumsum(0) - 1  # [B * S], the number of each token's text
        lengths = torch.bincount(text)
        place = torch.arange(len(text), device=x.device)
        place = place - place[begins.flatten()][text]
        apart = x.new_zeros(len(lengths), int(lengths.max()), x.shape[-1])
        apart = apart.index_put((text, place), x.flatten(0, 1))
        y, _ = self.decoder.recurrence(apart, None, lengths)
        return y[text, place].view(x.shape)
