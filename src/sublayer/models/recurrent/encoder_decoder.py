"""A recurrent encoder and decoder (Sutskever et al. 2014; with attention, Luong et al. 2015).

The decoder's layers begin with the last states of the encoder's. With attention, what it finds in the source is mixed
into the decoder's output; without, those last states are all that the decoder knows of the source.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from sublayer import config
from sublayer.models.encoder import Memory
from sublayer.models.projection import Projected
from sublayer.models.recurrent.state import RecurrentState
from sublayer.models.source import Source
from sublayer.models.stack import require_length
from sublayer.nn.context import Context
from sublayer.nn.embedding import Embedding
from sublayer.nn.positions import NoPosition
from sublayer.nn.recurrence import Recurrence, States
from sublayer.nn.recurrent_attention import RecurrentAttention


@dataclass(frozen=True, eq=False)
class RecurrentMemory(Memory):
    """What the encoder leaves for the decoder.

    Shape: states [B, S, D]; lengths [B] or None; last [L, B, D] each, the layers' states after the whole source.
    """

    last: States


class Reader(nn.Module):
    """Embedded tokens, and the layers that read them."""

    def __init__(self, embedding: Embedding, recurrence: Recurrence) -> None:
        super().__init__()
        self.embedding, self.recurrence = embedding, recurrence
        # Order is what a recurrent network sees by itself.
        self._position = NoPosition()

    def embed(self, tokens: Tensor) -> Tensor:
        """Shape: tokens [B, S] int64 -> [B, S, D]."""
        return self.embedding(tokens, self._position, Context(tokens, ()))


class RecurrentEncoder(Reader):
    """What reads the source, from both ends unless the tree says otherwise."""

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> RecurrentMemory:
        """Shape: tokens [B, S] int64, lengths [B] int64 (padding on the right) -> states [B, S, D]."""
        states, last = self.recurrence(self.embed(tokens), None, lengths)
        return RecurrentMemory(states, lengths, last)


class RecurrentDecoder(Reader):
    """What writes the target, and looks back at the source where it has attention."""

    def __init__(
        self, embedding: Embedding, recurrence: Recurrence, cross_attention: RecurrentAttention | None
    ) -> None:
        super().__init__(embedding, recurrence)
        self.cross_attention = cross_attention

    def forward(self, tokens: Tensor, memory: RecurrentMemory) -> Tensor:
        """All positions at once, as in training. Shape: tokens [B, T] int64 -> [B, T, D]."""
        x, _ = self.recurrence(self.embed(tokens), memory.last)
        return self._look(x, self.look_at(memory))

    def look_at(self, memory: Memory) -> Source:
        """The source as attention sees it, if there is attention."""
        if self.cross_attention is None:
            return Source()
        return Source([self.cross_attention.keys_values(memory.states)], memory.lengths)

    def step(self, tokens: Tensor, state: RecurrentState) -> Tensor:
        """The next positions of every row; the state moves on by as many.

        Shape: tokens [B * num_beams, n] int64 -> [B * num_beams, n, D].
        """
        x, states = self.recurrence(self.embed(state.feed(tokens)), state.states)
        state.arrive(states)
        return self._look(x[:, -tokens.shape[1] :], state.source)

    def _look(self, x: Tensor, source: Source) -> Tensor:
        if self.cross_attention is None:
            return x
        [keys_values] = source.layers
        return self.cross_attention(x, keys_values, source.mask(keys_values[1].dtype))


class RecurrentEncoderDecoder(Projected):
    """Source tokens and target tokens in, logits of the next target token out: the ways in of `EncoderDecoder`."""

    def __init__(self, c: config.RecurrentEncoderDecoder) -> None:
        super().__init__()
        self.config = c
        target = Embedding(c.embedding, c.vocab_size, c.dim)
        source = Embedding(c.embedding, c.vocab_size, c.dim)
        if c.tied in ("all", "embeddings"):
            source.tokens = target.tokens
        reads, writes = c.encoder, c.decoder
        self.encoder = RecurrentEncoder(
            source, Recurrence(c.cell, c.dim, reads.layers, reads.dropout, bidirectional=reads.bidirectional)
        )
        look = None if isinstance(writes.attention, config.NoAttention) else RecurrentAttention(writes.attention, c.dim)
        self.decoder = RecurrentDecoder(target, Recurrence(c.cell, c.dim, writes.layers, writes.dropout), look)
        self._finish(c, target if c.tied in ("all", "target") else None)

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> RecurrentMemory:
        """Shape: source [B, S] int64, source_lengths [B] int64 (padding on the right) -> states [B, S, D]."""
        require_length("source", source.shape[1], self.config.max_length)
        return self.encoder(source, source_lengths)

    def hidden(self, source: Tensor, source_lengths: Tensor | None, target: Tensor) -> Tensor:
        """The decoder's output before the projection.

        Shape: source [B, S], target [B, T] int64 -> [B, T, D].
        """
        require_length("target", target.shape[1], self.config.max_length)
        return self.decoder(target, self.encode(source, source_lengths))

    def forward(self, source: Tensor, source_lengths: Tensor | None, target: Tensor) -> Tensor:
        """Logits of the token after each target position.

        Shape: source [B, S], target [B, T] int64 -> [B, T, V].
        """
        return self.project(self.hidden(source, source_lengths, target))

    def start(
        self, source: Tensor, source_lengths: Tensor | None = None, *, num_beams: int = 1, capacity: int | None = None
    ) -> RecurrentState:
        """Encode, and make the state in which no target token has been fed.

        Args:
            num_beams: hypotheses a sentence: `step` then takes B * num_beams rows. capacity: tokens to feed at most;
                the model's `max_length` where left out.
        """
        capacity = self.config.max_length if capacity is None else min(capacity, self.config.max_length)
        memory = self.encode(source, source_lengths)
        last = tuple(part.repeat_interleave(num_beams, dim=1) for part in memory.last)
        return RecurrentState(last, read=0, capacity=capacity, num_beams=num_beams, source=self.decoder.look_at(memory))

    def step(self, tokens: Tensor, state: RecurrentState) -> Tensor:
        """The step contract: feed tokens, get the logits of what follows each; the state moves on.

        Shape: tokens [B * num_beams, n] int64 -> [B * num_beams, n, V].
        """
        return self.project(self.decoder.step(tokens, state))
