"""A vector for each text, near those of texts that mean alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sublayer import config
from sublayer.models import EncoderOnly
from sublayer.reading.reader import Progress, Reader, require_list
from sublayer.text import Tokenizer


class Embedder(Reader[config.SentenceEmbedding]):
    """A model with a sentence-embedding head and its tokenizer."""

    def __init__(self, model: EncoderOnly, tokenizer: Tokenizer, weights: config.Weights | None = None) -> None:
        super().__init__(model, tokenizer, config.SentenceEmbedding, weights)

    def embed(self, texts: Sequence[str], *, batch_tokens: int = 8000, progress: Progress | None = None) -> Tensor:
        """The vectors of texts, in order. A text is cut to the head's `longest` tokens, if it names a length.

        Shape: -> [N, D], float32 on the CPU.

        Raises:
            InputError: a text is empty or longer than the model's positions.
        """
        require_list(texts)
        encoded = self.tokenizer.tokens(texts)
        head = self.model.config.head
        if isinstance(head, config.SentenceEmbedding) and head.longest is not None:
            encoded = [tokens.cut(head.longest) for tokens in encoded]
        vectors = torch.empty(len(texts), self.model.config.dim)
        for rows, found, _ in self._each(encoded, batch_tokens=batch_tokens, progress=progress):
            vectors[rows] = found.float().cpu()
        return vectors
