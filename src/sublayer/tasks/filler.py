"""The words that may stand behind masks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sublayer import config
from sublayer.errors import InputError
from sublayer.models import EncoderOnly
from sublayer.tasks.reader import Progress, Reader, require_list
from sublayer.text import Tokenizer
from sublayer.text.tokens import Tokens

MASK = "[MASK]"
"""How a user writes a mask, whatever the tokenizer's own token is called; that is understood too."""


@dataclass(frozen=True)
class Filled:
    """One token that may stand behind a mask. text: the whole text with it in place."""

    token: str
    probability: float
    text: str


class Filler(Reader[config.MaskedLanguage]):
    """A model with a masked-language head and its tokenizer."""

    def __init__(self, model: EncoderOnly, tokenizer: Tokenizer) -> None:
        super().__init__(model, tokenizer, config.MaskedLanguage)

    def fill(
        self, texts: Sequence[str], *, best: int = 5, batch_tokens: int = 8000, progress: Progress | None = None
    ) -> list[list[list[Filled]]]:
        """For each text, for each of its masks, the most probable tokens, best first.

        Where a text has several masks, each is filled while the others stay masks.

        Raises:
            InputError: a text has no mask, or is longer than the model's positions.
        """
        require_list(texts)
        mask = self.tokenizer.mask_id
        own = self.tokenizer.token(mask)
        for number, text in enumerate(texts, start=1):
            if own not in text and MASK not in text:
                raise InputError(f"text {number} has no {MASK}: '{text[:40]}'", f"Write {MASK} in it.")
        encoded = [with_masks(text, self.tokenizer) for text in texts]
        found: list[list[list[Filled]]] = [[] for _ in texts]
        for rows, logits, _ in self._each(encoded, batch_tokens=batch_tokens, progress=progress):
            for row, scores in zip(rows, logits, strict=True):
                ids = encoded[row].ids
                for place in (index for index, token in enumerate(ids) if token == mask):
                    probability, token = scores[place].float().softmax(dim=-1).topk(min(best, scores.shape[-1]))
                    choices = zip(
                        cast("list[int]", token.tolist()), cast("list[float]", probability.tolist()), strict=True
                    )
                    found[row].append([self._filled(encoded[row], place, *choice) for choice in choices])
        return found

    def _filled(self, tokens: Tokens, place: int, choice: int, probability: float) -> Filled:
        ids = [*tokens.ids[:place], choice, *tokens.ids[place + 1 :]]
        # Other masks stay visible; what the template put around does not.
        kept = [token for token, text in zip(ids, tokens.texts, strict=True) if text is not None]
        mask = self.tokenizer.mask_id
        pieces: list[str] = []
        run: list[int] = []
        for token in [*kept, mask]:
            if token != mask:
                run.append(token)
                continue
            pieces.append(self.tokenizer.decode([run])[0])
            run = []
        text = f" {MASK} ".join(piece.strip() for piece in pieces).strip()
        return Filled(self.tokenizer.decode([[choice]])[0].strip(), probability, text)


def with_masks(text: str, tokenizer: Tokenizer) -> Tokens:
    """`text` as the model reads it, with its masks, if any, and nothing else in it, taken for special tokens.

    Raises:
        InputError: the tokenizer has no mask, or makes none of the one that is written.
    """
    mask = tokenizer.mask_id
    own = tokenizer.token(mask)
    text = text.replace(MASK, own)
    ends = [0, *(end for found in re.finditer(re.escape(own), text) for end in found.span()), len(text)]
    tokens = tokenizer.encode_template(text, list(zip(ends[::2], ends[1::2], strict=True)))
    if own in text and mask not in tokens.ids:
        raise InputError(f"the tokenizer makes no mask of '{own}' in '{text[:40]}'", "Put spaces around it.")
    around = tokenizer.template.single
    ids = [token for slot in around for token in (tokens.ids if slot.id is None else [slot.id])]
    texts: list[int | None] = [text for slot in around for text in ([0] * len(tokens) if slot.id is None else [None])]
    none: list[int | None] = [None] * len(ids)
    return Tokens(ids, [0] * len(ids), [(0, 0)] * len(ids), none, texts)
