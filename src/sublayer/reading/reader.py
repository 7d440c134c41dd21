"""Texts through an encoder: sorted by length and batched inside, in the order given outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import InputError
from sublayer.fast.decoding.encoder import EncoderRunner
from sublayer.models import EncoderOnly
from sublayer.models.batching import padded
from sublayer.text import Tokenizer
from sublayer.text.batching import by_length
from sublayer.text.tokens import Tokens

Head = TypeVar("Head")
Progress = Callable[[int], None]


class Reader(Generic[Head]):
    """An encoder-only model with its tokenizer; the subclasses say what its head's output means.

    needs: the head that is needed, by its part of the configuration.

    Args:
        weights: weight format of the layers, on a CPU; default: as they are.
    """

    needs: ClassVar[type[Any]]

    def __init__(self, model: EncoderOnly, tokenizer: Tokenizer, weights: config.Weights | None = None) -> None:
        if not isinstance(model.config.head, self.needs):
            raise InputError(
                f"this model's head is '{model.config.head.type}'", "Name a model with the head that this asks for."
            )
        self.model, self.tokenizer, self.head = model.eval(), tokenizer, cast("Head", model.config.head)
        self._read = EncoderRunner(model, weights)

    def prepare(self) -> bool:
        """Make now what is made at the first use; return whether the engine answers, and not the modules."""
        return self._read.prepare()

    def _each(
        self, texts: Sequence[Tokens], *, batch_tokens: int, progress: Progress | None, what: str = "text"
    ) -> Iterator[tuple[list[int], Tensor]]:
        """(rows, output of the head) of batch after batch; longest first, so that what needs most memory comes first.

        Raises:
            InputError: a text is longer than the model's positions; it is named by its number, from 1.
        """
        longest = self.model.config.max_length
        for number, tokens in enumerate(texts, start=1):
            if len(tokens) > longest:
                raise InputError(
                    f"{what} {number} has {len(tokens)} tokens, but this model's positions end at {longest}",
                    "Shorten it or split it.",
                )
            if not any(text is not None for text in tokens.texts):
                raise InputError(f"{what} {number} is empty", "Leave it out, or give it words.")
        for rows in by_length([len(tokens) for tokens in texts], batch_tokens):
            ids, token_type_ids, lengths = self._padded([texts[row] for row in rows])
            with torch.inference_mode():
                yield rows, self._read(ids, lengths, token_type_ids)
            if progress is not None:
                progress(len(rows))

    def _padded(self, texts: Sequence[Tokens]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Ids, kinds (where the model knows any) and lengths (where they differ). Shape: [B, S], [B, S], [B] int64."""
        # What pads is masked, so any id does where the tokenizer has none for it.
        ids, lengths = padded([tokens.ids for tokens in texts], self.tokenizer.specials.pad or 0, self.model.device)
        if not self.model.config.embedding.token_types:
            return ids, None, lengths
        return ids, padded([tokens.token_type_ids for tokens in texts], 0, self.model.device)[0], lengths


def require_list(texts: Sequence[object]) -> None:
    """Raise where one string was given for a list of them: it would be read letter by letter."""
    if isinstance(texts, str):
        raise InputError(f"texts = {texts!r} is one string", "Give a list: [text].")
