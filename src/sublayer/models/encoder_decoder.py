"""The Transformer (section 3, figure 1): an encoder, a decoder that attends to it, a projection to the vocabulary."""

from __future__ import annotations

from torch import Tensor

from sublayer import config, fast
from sublayer.models.decoder import Decoder, DecoderState
from sublayer.models.encoder import Encoder, Memory
from sublayer.models.projection import Projected
from sublayer.models.stack import require_length
from sublayer.nn.embedding import Embedding


class EncoderDecoder(Projected):
    """Source tokens and target tokens in, logits of the next target token out.

    Three ways in: `forward` for all positions at once, `hidden` for the same without the projection (a loss may then
    project only what counts), and `start` with `step` for one token after another.
    """

    def __init__(self, c: config.EncoderDecoder) -> None:
        super().__init__()
        self.config = c
        target = Embedding(c.embedding, c.vocab_size, c.dim)
        source = Embedding(c.embedding, c.vocab_size, c.dim)
        if c.tied in ("all", "embeddings"):
            source.tokens = target.tokens
        self.encoder = Encoder(c.encoder, source, c.dim, c.max_length)
        self.decoder = Decoder(c.decoder, target, c.dim, c.max_length, cross=True)
        self._finish(c, target if c.tied in ("all", "target") else None)

    def encode(self, source: Tensor, source_lengths: Tensor | None = None) -> Memory:
        """Shape: source [B, S] int64, source_lengths [B] int64 (padding on the right) -> states [B, S, D]."""
        require_length("source", source.shape[1], self.config.max_length)
        return self.encoder(source, source_lengths)

    def hidden(self, source: Tensor, source_lengths: Tensor | None, target: Tensor) -> Tensor:
        """The decoder's output before the projection, as the projection reads it.

        Shape: source [B, S], target [B, T] int64 -> [B, T, D].
        """
        require_length("target", target.shape[1], self.config.max_length)
        return self._scaled(self.decoder(target, self.encode(source, source_lengths)))

    def forward(self, source: Tensor, source_lengths: Tensor | None, target: Tensor) -> Tensor:
        """Logits of the token after each target position.

        Shape: source [B, S], target [B, T] int64 -> [B, T, V].
        """
        return self.project(self.hidden(source, source_lengths, target))

    def start(
        self,
        source: Tensor,
        source_lengths: Tensor | None = None,
        *,
        num_beams: int = 1,
        capacity: int | None = None,
        fixed: bool = False,
    ) -> DecoderState:
        """Encode, and make the state in which no target token has been fed.

        Args:
            num_beams: hypotheses a sentence: `step` then takes B * num_beams rows. capacity: tokens to feed at most;
                the model's `max_length` where left out. fixed: the shapes of a step do not change as the text grows.
        """
        capacity = self.config.max_length if capacity is None else min(capacity, self.config.max_length)
        return self.decoder.start(
            self.encode(source, source_lengths), num_beams=num_beams, capacity=capacity, fixed=fixed
        )

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """The step contract: feed tokens, get the logits of what follows each; the state moves on.

        Shape: tokens [B * num_beams, n] int64 -> [B * num_beams, n, V].
        """
        return self.project(self._scaled(self.decoder.step(tokens, state)))

    def _scaled(self, hidden: Tensor) -> Tensor:
        return hidden if self.config.output_scale == 1.0 else hidden * self.config.output_scale

    def lower(self) -> fast.Program:
        """The program of a step: marks `hidden` and `logits`.

        Raises:
            NotLowered: a part does not say how it is lowered.
        """
        program = fast.Program()
        x = program.scale(program.lower(self.decoder), self.config.output_scale)
        program.mark("hidden", x)
        program.mark("logits", program.lower(self.output, x))
        return program

    def lower_encoder(self) -> fast.Program:
        """The program of `encode` and of the keys and values of its result: marks `states`.

        Raises:
            NotLowered: a part does not say how it is lowered.
        """
        program = fast.Program()
        x = program.lower(self.encoder)
        program.mark("states", x)
        for index in range(len(self.decoder.layers)):
            self.decoder.cross_attention(index).lower_keys_values(program, x, index)
        return program
