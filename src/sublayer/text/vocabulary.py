"""The ids of a tokenizer: how each is spelled, which are special, and what for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from sublayer.errors import InputError, nearest
from sublayer.text.pieces import byte_level_piece, shown
from sublayer.text.specials import Specials, described

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend


class Vocabulary:
    """The ids of `backend`, 0 .. vocab_size - 1, with its special tokens as data.

    size: how many of the backend's ids the model knows, where not all: the others only cut the text, as Marian's pieces
    outside its vocabulary do, and become the unknown token.
    """

    def __init__(self, backend: Backend, specials: Specials, size: int | None = None) -> None:
        self._backend = backend
        self.specials = specials
        self._size = size
        self._decoder = json.dumps(described(backend.decoder))

    @property
    def backend(self) -> Backend:
        """The `tokenizers.Tokenizer` inside; to be read, not to be changed."""
        return self._backend

    @cached_property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included: the ids are 0 .. vocab_size - 1."""
        if self._size is not None:
            return self._size
        # Not the number of tokens: some vocabularies leave ids out.
        return max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def is_byte_level(self) -> bool:
        """Whether tokens are bytes, each written as a letter, as GPT-2's are."""
        return "ByteLevel" in self._decoder

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids of all special tokens: never made from text, left out of decoded text."""
        added = self._backend.get_added_tokens_decoder()
        return frozenset(identifier for identifier, token in added.items() if token.special)

    def special_id(self, token: str) -> int | None:
        """The id of a special token, or None where there is no such token."""
        found = self._backend.token_to_id(token)
        return found if found in self.special_ids else None

    @property
    def pad_id(self) -> int:
        """The id that fills rows up to one length; this and the next ones raise an InputError where there is none."""
        return self._role("pad", "padding")

    @property
    def start_id(self) -> int:
        """The id that begins a text."""
        return self._role("start", "start")

    @property
    def end_id(self) -> int:
        """The id that ends a text."""
        return self._role("end", "end")

    @property
    def unknown_id(self) -> int:
        """The id of what the vocabulary cannot spell."""
        return self._role("unknown", "unknown")

    @property
    def mask_id(self) -> int:
        """The id that hides a token from a masked language model."""
        return self._role("mask", "mask")

    @property
    def padding_id(self) -> int:
        """What fills rows up where it is masked, so that any id does: the padding token, or 0 where there is none."""
        return self.specials.pad or 0

    def _role(self, name: str, label: str) -> int:
        identifier: int | None = getattr(self.specials, name)
        if identifier is None:
            has = ", ".join(f"{role.rstrip('_')} {self.token(i)!r}" for role, i in self.specials.roles.items())
            raise InputError(
                f"this tokenizer has no {label} token (it has: {has or 'none'})",
                "Use a model whose tokenizer has one.",
            )
        return identifier

    def language_id(self, code: str) -> int:
        """The id of the token that names a language.

        Raises:
            InputError: the tokenizer has no such language.
        """
        known = dict(self.specials.languages)
        # M2M100 writes __es__ and Marian >>spa<<.
        known |= {name.strip("_<>"): identifier for name, identifier in known.items()}
        if code not in known:
            remedy = nearest(code, known) if known else "This tokenizer names no languages."
            raise InputError(f"there is no language {code!r}", remedy)
        return known[code]

    def token(self, identifier: int) -> str:
        """An id as the vocabulary spells it.

        Raises:
            IndexError: there is no such id.
        """
        token = self._backend.id_to_token(identifier)
        if token is None:
            raise IndexError(f"token id {identifier} is not in 0 .. {self.vocab_size - 1}")
        return token

    def known(self, ids: list[int]) -> list[int]:
        """The ids, with the unknown token in place of those that the model does not know."""
        if self._size is None:
            return ids
        return [identifier if identifier < self._size else self.unknown_id for identifier in ids]

    @cached_property
    def left_out(self) -> frozenset[int]:
        """Ids that decoding leaves out."""
        return self.specials.ids | self.special_ids

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each id as a human reads it: a leading space as "▁", a part of a character as "<0xC3>", and "[50300]" where a
        model has a row for an id that the vocabulary does not know. For pictures."""
        return [self._piece(int(identifier)) for identifier in ids]

    def _piece(self, identifier: int) -> str:
        token = self._backend.id_to_token(identifier)
        if token is None:
            # Many a model has more rows than its tokenizer has tokens, and may say one of them: it has no text.
            return f"[{identifier}]"
        if identifier in self.specials.ids:
            return token
        return shown(byte_level_piece(token) if self.is_byte_level else token)
