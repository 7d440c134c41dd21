"""A vector for each text, near those of texts that mean alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sublayer import config
from sublayer.reading.reader import Progress, Reader, require_list


class Embedder(Reader[config.SentenceEmbedding]):
    """A model with a sentence-embedding head and its tokenizer."""

    needs: ClassVar = config.SentenceEmbedding

    def embed(self, texts: Sequence[str], *, batch_tokens: int = 8000, progress: Progress | None = None) -> Tensor:
        """The vectors of texts, in order. A text is cut to the head's `longest` tokens, if it names a length.

        Shape: -> [N, D], float32 on the CPU.

        Raises:
            InputError: a text is empty or longer than the model's positions.
        """
        require_list(texts)
        encoded = self.tokenizer.tokens(texts)
        if self.head.longest is not None:
            encoded = [tokens.cut(self.head.longest) for tokens in encoded]
        vectors = torch.empty(len(texts), self.model.config.dim)
        for rows, found, _ in self._each(encoded, batch_tokens=batch_tokens, progress=progress):
            vectors[rows] = found.float().cpu()
        return vectors
