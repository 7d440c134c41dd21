"""The words that may stand behind masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import ClassVar, cast

from sublayer import config
from sublayer.errors import InputError
from sublayer.reading.reader import Progress, Reader, require_list
from sublayer.text import Tokenizer
from sublayer.text.pieces import SPACE
from sublayer.text.tokens import Tokens

MASK = "[MASK]"
"""How a user writes a mask, whatever the tokenizer's own token is called; that is understood too."""


CONTINUES = "##"
"""What BERT's vocabulary writes before a piece that goes on with a word."""


@dataclass(frozen=True)
class Filled:
    """One token that may stand behind a mask. text: the whole text with it in place."""

    token: str
    probability: float
    text: str


class Filler(Reader[config.MaskedLanguage]):
    """A model with a masked-language head and its tokenizer."""

    needs: ClassVar = config.MaskedLanguage

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
        read = [_Masked.of(text, self.tokenizer) for text in texts]
        encoded = [one.tokens for one in read]
        found: list[list[list[Filled]]] = [[] for _ in texts]
        for rows, logits in self._each(encoded, batch_tokens=batch_tokens, progress=progress):
            for row, scores in zip(rows, logits, strict=True):
                for number, place in enumerate(read[row].places):
                    probability, token = scores[place].float().softmax(dim=-1).topk(min(best, scores.shape[-1]))
                    choices = zip(
                        cast("list[int]", token.tolist()), cast("list[float]", probability.tolist()), strict=True
                    )
                    found[row].append([self._filled(read[row], number, *choice) for choice in choices])
        return found

    def _filled(self, read: _Masked, number: int, choice: int, probability: float) -> Filled:
        token = self.tokenizer.decode([[choice]])[0].strip()
        before, after = MASK.join(read.between[: number + 1]), MASK.join(read.between[number + 1 :])
        if before.strip() and self._goes_on(read, number, choice):
            before = before.rstrip()
        return Filled(token, probability, f"{before}{token.removeprefix(CONTINUES)}{after}")

    def _goes_on(self, read: _Masked, number: int, choice: int) -> bool:
        """Whether the choice belongs to the word before it, with no space between them."""
        place = read.places[number]
        left = read.tokens.ids[max(0, place - 1) : place]
        if not left or left[0] in self.tokenizer.specials.ids:
            return False
        alone, both = self.tokenizer.decode([left, [*left, choice]])
        # Where spaces are tokens of their own, the choice stands after one.
        return alone.strip() != "" and both.startswith(alone) and both[len(alone) :][:1].strip() != ""


@dataclass(frozen=True)
class _Masked:
    """A text with masks as the model reads it. places: of the masks in `tokens`. between: the text before, between and
    after the masks, as the user wrote it."""

    tokens: Tokens
    places: list[int]
    between: list[str]

    @classmethod
    def of(cls, text: str, tokenizer: Tokenizer) -> _Masked:
        between = text.replace(tokenizer.token(tokenizer.mask_id), MASK).split(MASK)
        tokens = with_masks(text, tokenizer)
        return cls(tokens, [place for place, token in enumerate(tokens.ids) if token == tokenizer.mask_id], between)


STAND_INS = ("a", "the", "x", "1", "?", "一", "я")
"""Words to stand where a mask will, where the vocabulary has none that is one piece with its space."""


@lru_cache(maxsize=8)
def stand_ins(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Words to stand where a mask will: first those that are, with the space before them, one token of the vocabulary,
    as the words are that a single mask hides in training."""
    pieces = tokenizer.pieces(range(min(tokenizer.vocab_size, 5000)))
    words = (piece.removeprefix(SPACE) for piece in pieces if piece.startswith(SPACE))
    return (*islice((word for word in words if word.isalpha()), 5), *STAND_INS)


def with_masks(text: str, tokenizer: Tokenizer) -> Tokens:
    """`text` as the model reads it: the ids of the text with a word at each mask, and the mask in the word's place.

    In training a mask takes the place of tokens, so what stands around it is cut as if a word were there. Nothing else
    in the text is taken for a special token.

    Raises:
        InputError: the tokenizer has no mask, or keeps no word apart from what stands beside a mask.
    """
    mask = tokenizer.mask_id
    between = text.replace(tokenizer.token(mask), MASK).split(MASK)
    for word in stand_ins(tokenizer):
        found = _in_place(between, word, tokenizer)
        if found is not None:
            return found
    raise InputError(
        f"the tokenizer makes no mask of '{MASK}' in '{text[:40]}': it is one piece with its neighbours",
        "Put spaces around it.",
    )


def _in_place(between: Sequence[str], word: str, tokenizer: Tokenizer) -> Tokens | None:
    """The tokens of the text with a mask for each `word` that is put between its parts; None where a token holds more
    than that word (and the space before it)."""
    mask = tokenizer.mask_id
    whole, spans = between[0], list[tuple[int, int]]()
    for part in between[1:]:
        spans.append((len(whole), len(whole) + len(word)))
        whole += word + part
    (tokens,) = tokenizer.tokens([whole])
    ids, kept = list(tokens.ids), list[int]()
    masked = [False] * len(spans)
    for place, ((begin, end), text) in enumerate(zip(tokens.spans, tokens.texts, strict=True)):
        here = None
        # A space that is a token of its own stays, as it does before a word in training.
        if text is not None and tokenizer.pieces([ids[place]])[0].strip(SPACE):
            here = next((n for n, (first, last) in enumerate(spans) if begin < last and first < end), None)
        if here is not None:
            first, last = spans[here]
            if end > last or whole[begin:first].strip():
                return None
            if masked[here]:
                continue
            masked[here], ids[place] = True, mask
        kept.append(place)
    return replace(tokens, ids=ids).take(kept) if all(masked) else None
