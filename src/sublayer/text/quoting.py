"""Text that spells a special token, and text that is one.

The library can be told to read special tokens in a text or not to. Two things are left to do. A vocabulary may hold the
spelling of a special token as an ordinary piece (every SentencePiece model does), so that plain text still makes one.
And in what a chat template wrote, some spellings are the template's and some are the user's. Both are settled by a copy
of the tokenizer in which special tokens are spelled in a way that no text is, with the same ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sublayer.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend

Spans = Sequence[tuple[int, int]]
"""Characters of a text, from (included) to (excluded)."""

# A noncharacter, which Unicode keeps for use inside a program, and a space, which no piece of SentencePiece has.
_PREFIX = "\ufdd0 "


class Quoting:
    """Reads text of users, and text that a chat template wrote."""

    def __init__(self, backend: Backend, ids: frozenset[int]) -> None:
        """Reads for `backend`, whose special tokens are `ids` and those that it calls special itself."""
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        marked = {identifier for identifier, token in added.items() if token.special}
        # `id_to_token` knows no special token twice, so names are as good as ids.
        named = {identifier: backend.id_to_token(identifier) for identifier in ids | marked}
        self._names = {identifier: name for identifier, name in named.items() if name}
        self._marked = sorted((self._names[i] for i in marked if i in self._names), key=len, reverse=True)

    @cached_property
    def reader(self) -> Backend:
        """Reads text in which nothing is a special token."""
        spelled = [prefix + name for name in self._names.values() for prefix in ("", "a")]
        encoded = self._backend.encode_batch(spelled, add_special_tokens=False)
        reached = (
            end - begin >= len(self._names[identifier])
            for encoding in encoded
            for identifier, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if identifier in self._names
        )
        return self._renamed if any(reached) else self._backend

    def parse(
        self, texts: Sequence[tuple[str, Spans]], *, add_special_tokens: bool = False
    ) -> list[tuple[Encoding, list[tuple[int, int]]]]:
        """Each text with its special tokens, and the tokens' spans; none is made of a character in its quoted spans.

        Special tokens are looked for in what lies between these spans alone, so that they do not depend on what is
        quoted.
        """
        places = range(len(texts))
        cut = {place for place in places if texts[place][1] and self._marked}
        whole = [place for place in places if place not in cut]
        found: dict[int, tuple[Encoding, list[tuple[int, int]]]] = {}
        if whole:
            encoded = self._parser.encode_batch(
                [texts[place][0] for place in whole], add_special_tokens=add_special_tokens
            )
            found |= {place: (encoding, encoding.offsets) for place, encoding in zip(whole, encoded, strict=True)}
        if cut:
            spelled = {place: self._spelled_anew(*texts[place]) for place in sorted(cut)}
            renamed = [text for text, _ in spelled.values()]
            encoded = self._renamed_parser.encode_batch(renamed, add_special_tokens=add_special_tokens)
            for (place, (_, inserted)), encoding in zip(spelled.items(), encoded, strict=True):
                found[place] = encoding, _before(encoding.offsets, inserted)
        return [found[place] for place in places]

    def _spelled_anew(self, text: str, quoted: Spans) -> tuple[str, list[int]]:
        """`text` with the copy's spelling where a special token is meant, and where characters were put in."""
        if _PREFIX[0] in text:
            raise InputError("the text has the noncharacter U+FDD0, which no text may have", "Take it out.")
        pattern = self._pattern
        parts: list[str] = []
        inserted: list[int] = []
        done = free = 0
        for begin, end in (*sorted(quoted), (len(text), len(text))):
            for found in pattern.finditer(text, free, begin) if free < begin else ():
                parts += [text[done : found.start()], _PREFIX]
                done = found.start()
                inserted.append(done + len(_PREFIX) * len(inserted))
            free = max(free, end)
        return "".join(parts) + text[done:], inserted

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._marked)))

    @cached_property
    def _parser(self) -> Backend:
        from tokenizers import Tokenizer as Backend

        return Backend.from_str(self._backend.to_str())

    @cached_property
    def _renamed_parser(self) -> Backend:
        return _copy(self._backend, self._names.values())

    @cached_property
    def _renamed(self) -> Backend:
        copy = _copy(self._backend, self._names.values())
        copy.encode_special_tokens = True
        return copy


def refuse_surrogates(texts: Sequence[str]) -> None:
    """Raise `InputError` where a text holds half of a surrogate pair, as Python makes of bytes that are not UTF-8."""
    for place, text in enumerate(texts):
        for column, character in enumerate(text):
            if "\ud800" <= character <= "\udfff":
                raise InputError(
                    f"text {place} is not Unicode: character {column} is the lone surrogate {character!a}",
                    "Give UTF-8 text.",
                )


def _before(spans: Sequence[tuple[int, int]], inserted: Sequence[int]) -> list[tuple[int, int]]:
    """Where `spans` were before `_PREFIX` was put in at each of `inserted` (places counted afterwards)."""
    places = np.array(spans, dtype=np.int64).reshape(-1, 2)
    count = np.searchsorted(np.array(inserted, dtype=np.int64), places, side="right")
    # A place within what was put in is where that began; before the first of them nothing moves.
    last = np.array([-len(_PREFIX), *inserted], dtype=np.int64)[count]
    begins, ends = (np.maximum(places - len(_PREFIX), last) - len(_PREFIX) * (count - 1)).T.tolist()
    return list(zip(begins, ends, strict=True))


def _copy(backend: Backend, names: Any) -> Backend:
    """`backend` with the tokens `names` spelled with `_PREFIX`, and none of its merges making one."""
    from tokenizers import Tokenizer as Backend

    spelling = {name: _PREFIX + name for name in names}
    plain: dict[str, Any] = json.loads(backend.to_str())
    for added in plain["added_tokens"]:
        added["content"] = spelling.get(added["content"], added["content"])
    model = plain["model"]
    if isinstance(model["vocab"], dict):
        vocabulary: dict[str, int] = model["vocab"]
        model["vocab"] = {spelling.get(piece, piece): identifier for piece, identifier in vocabulary.items()}
    else:
        scored: list[tuple[str, float]] = model["vocab"]
        model["vocab"] = [[spelling.get(piece, piece), score] for piece, score in scored]
    if model.get("unk_token") in spelling:
        model["unk_token"] = spelling[model["unk_token"]]
    if "merges" in model:
        merges: list[tuple[str, str]] = model["merges"]
        model["merges"] = [[left, right] for left, right in merges if not {left, right, left + right} & spelling.keys()]
    return Backend.from_str(json.dumps(plain))
