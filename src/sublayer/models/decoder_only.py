"""A language model (Radford et al. 2018): a decoder that sees nothing but its own past, and a projection."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sublayer import config, fast
from sublayer.models.decoder import Decoder, DecoderState
from sublayer.models.projection import Projected
from sublayer.models.stack import longest, require_length
from sublayer.nn.embedding import Embedding


class DecoderOnly(Projected):
    """Tokens in, logits of the next token out.

    The same ways in as an encoder-decoder has, so that losses and searches ask both alike: `forward` and `hidden` for
    all positions at once, `start` with `step` for one token after another. What an encoder-decoder's source is to it,
    the beginning of the text is to this: `start` reads all of the prompt but its last token, which is the first to
    feed.
    """

    def __init__(self, c: config.DecoderOnly) -> None:
        super().__init__()
        self.config = c
        embedding = Embedding(c.embedding, c.vocab_size, c.dim)
        self.decoder = Decoder(c.decoder, embedding, c.dim, c.max_length, cross=False)
        self._finish(c, embedding if c.tied else None)

    def hidden(self, tokens: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """The decoder's output before the projection.

        Args:
            lengths: tokens of each row. Padding on the right needs no mask, since no token looks ahead; what is found
                for it means nothing, and costs nothing where rows are long (`nn/pieces.py`).
            segments: number of each token's text, where several are packed in a row: they do not see each other, and
                positions begin anew.

        Shape: tokens [B, S], lengths [B], segments [B, S] int64 -> [B, S, D].
        """
        require_length("text", longest(tokens, segments, self.config.max_length), self.config.max_length)
        return self.decoder(tokens, segments=segments, lengths=lengths)

    def project(self, hidden: Tensor) -> Tensor:
        """Shape: hidden [..., D] -> logits [..., V]."""
        logits, cap = self.output(hidden), self.config.logit_softcap
        return self.logits(logits if cap is None else (logits / cap).tanh() * cap)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """Logits of the token after each. Shape: as in `hidden` -> [B, S, V]."""
        return self.project(self.hidden(tokens, lengths, segments))

    def start(
        self,
        source: Tensor,
        source_lengths: Tensor | None = None,
        *,
        num_beams: int = 1,
        capacity: int | None = None,
        fixed: bool = False,
        read: Callable[[Tensor, DecoderState], object] | None = None,
    ) -> DecoderState:
        """Read the prompt but for its last token, which `step` is then fed first.

        Args:
            source: the prompts without their last tokens, [B, S] int64; S may be 0. source_lengths: how many of the S
                are real, [B] int64 (padding on the right). num_beams: hypotheses a prompt: `step` then takes
                B * num_beams rows.
            capacity: tokens to feed at most beside the prompt's; as many as there are positions where left out, and
                never more.
            fixed: the shapes of a step do not change as the text grows.
            read: what feeds the prompt to the state in the place of `decoder.step`.
        """
        count, size = source.shape
        require_length("prompt", size + 1, self.config.max_length)
        left = self.config.max_length - size
        capacity = left if capacity is None else min(capacity, left)
        padding: Tensor | None = None
        if source_lengths is not None:
            padding = size - source_lengths
            source = _to_the_right(source, padding)
        state = self.decoder.start_alone(count, capacity=size + capacity, padding=padding, fixed=fixed)
        if size:
            (self.decoder.step if read is None else read)(source, state)
        state.expand(num_beams)
        return state

    def read(self, tokens: Tensor, state: DecoderState) -> None:
        """Feed tokens whose logits nobody needs. Shape: [R, n] int64."""
        self.decoder.step(tokens, state)

    def step(self, tokens: Tensor, state: DecoderState) -> Tensor:
        """The step contract: feed tokens, get the logits of what follows each; the state moves on.

        Shape: tokens [B * num_beams, n] int64 -> [B * num_beams, n, V].
        """
        return self.project(self.decoder.step(tokens, state))

    def lower(self) -> fast.Program:
        """The program of a step: marks `hidden` and `logits`.

        Raises:
            NotLowered: a part does not say how it is lowered.
        """
        program = fast.Program()
        x = program.lower(self.decoder)
        program.mark("hidden", x)
        program.mark("logits", program.cap(program.lower(self.output, x), self.config.logit_softcap))
        return program


def _to_the_right(tokens: Tensor, padding: Tensor) -> Tensor:
    """Rows that are padded on the right, padded on the left.

    Shape: tokens [B, S], padding [B], how many of the S -> [B, S].
    """
    place = torch.arange(tokens.shape[1], device=tokens.device)
    return tokens.gather(1, (place - padding.unsqueeze(1)) % max(tokens.shape[1], 1))
