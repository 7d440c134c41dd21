"""A vector for each text, near those of texts that mean alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import InputError
from sublayer.reading.reader import Progress, Reader, require_list
from sublayer.text.tokens import Tokens


class Embedder(Reader[config.SentenceEmbedding]):
    """A model with a sentence-embedding head and its tokenizer."""

    needs: ClassVar = config.SentenceEmbedding

    def embed(
        self, texts: Sequence[str | Sequence[int]], *, batch_tokens: int = 8000, progress: Progress | None = None
    ) -> Tensor:
        """The vectors of texts, in order. A text, or its token ids with the special ones around them, is cut to the
        head's `longest` tokens, if it names a length.

        Shape: -> [N, D], float32 on the CPU.

        Raises:
            InputError: a text is empty or longer than the model's positions.
        """
        require_list(texts)
        encoded = self.encode(texts)
        if self.head.longest is not None:
            encoded = [tokens.cut(self.head.longest) for tokens in encoded]
        vectors = torch.empty(len(texts), self.model.config.dim)
        for rows, found in self._each(encoded, batch_tokens=batch_tokens, progress=progress):
            vectors[rows] = found.float().cpu()
        return vectors

    def encode(self, texts: Sequence[str | Sequence[int]]) -> list[Tokens]:
        """Texts as the model reads them.

        Raises:
            InputError: there is no such token.
        """
        words = iter(self.tokenizer.tokens([text for text in texts if isinstance(text, str)]))
        return [next(words) if isinstance(text, str) else self._of_ids(text) for text in texts]

    def _of_ids(self, ids: Sequence[int]) -> Tokens:
        size = self.model.config.vocab_size
        unknown = next((token for token in ids if not 0 <= token < size), None)
        if unknown is not None:
            raise InputError(f"there is no token {unknown}", f"The vocabulary is 0 to {size - 1}.")
        count = len(ids)
        return Tokens(list(ids), [0] * count, [(0, 0)] * count, [None] * count, [0] * count)
