"""A tokenizer: text to token ids and back, one for both sides of a translation."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sublayer import files
from sublayer.config import TokenizerRecipe
from sublayer.errors import CheckpointError, InputError
from sublayer.text.lines import read_lines
from sublayer.text.pieces import byte_level_piece, shown
from sublayer.text.training import SPECIALS, train_backend

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_PARALLELISM = "TOKENIZERS_PARALLELISM"


class Tokenizer:
    """Byte-level BPE or unigram, without loss: decode(encode(x)) is x for any Unicode text, spaces and all.

    No normalization is done (no NFC, no lower-casing); text that should be normalized is normalized before it comes
    here. Four special tokens have the first ids: `<pad>` 0, `<s>` 1, `</s>` 2, `<unk>` 3. They are never made from
    text: a text that contains "</s>" is encoded as those four characters.
    """

    def __init__(self, backend: Backend) -> None:
        """Wraps a `tokenizers.Tokenizer` that has the four special tokens.

        Raises:
            CheckpointError: `backend` lacks one of them.
        """
        vocabulary = backend.get_vocab(with_added_tokens=True)
        missing = [special for special in SPECIALS if special not in vocabulary]
        if missing:
            raise CheckpointError(
                f"the tokenizer has no {', '.join(missing)}", "Train one with sublayer: it needs these special tokens."
            )
        self._backend = backend
        # Text of users is data: "</s>" in it must not end a sentence. The setting is not part of the saved file.
        backend.encode_special_tokens = True
        # A file from elsewhere may ask for either; lengths and batches are the loader's business.
        backend.no_padding()
        backend.no_truncation()
        self.pad_id, self.start_id, self.end_id, self.unknown_id = (vocabulary[special] for special in SPECIALS)
        self._byte_level = json.loads(backend.to_str())["model"]["type"] == "BPE"

    @classmethod
    def train(cls, lines: Iterable[str], recipe: TokenizerRecipe, extra: Sequence[str] = ()) -> Self:
        """A tokenizer trained on `lines`, which are read once and not kept; the same lines give the same tokenizer.

        Memory grows with the number of distinct words, not with the text. With `recipe.sample`, that many lines are
        taken, evenly spread. A small text may give fewer than `recipe.vocab_size` tokens. `extra`: more special tokens,
        such as a mask, which have the ids after the four.

        Raises:
            DataError: there is no text in `lines`.
        """
        return cls(train_backend(lines, recipe, extra))

    @classmethod
    def train_from_files(cls, paths: Sequence[Path], recipe: TokenizerRecipe) -> Self:
        """A tokenizer trained on the lines of plain UTF-8 files, in the order given; see `train`.

        Raises:
            DataError: a file is missing, a line is not UTF-8 (file and line are named), or there is no text.
        """
        return cls.train((line for path in paths for line in read_lines(path)), recipe)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The tokenizer saved at `path` (a `tokenizer.json`).

        Raises:
            CheckpointError: the file is missing, damaged, or lacks the special tokens.
        """
        from tokenizers import Tokenizer as Backend

        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise CheckpointError(f"{path} does not exist", "Name the folder of a trained model.") from None
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"could not read {path}: {error}", "Copy the file anew or train again.") from error
        try:
            backend = Backend.from_str(text)
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(
                f"{path} is not a tokenizer: {str(error).splitlines()[0]}", "Copy the file anew or train again."
            ) from error
        try:
            return cls(backend)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error.what}", error.remedy) from None

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json` at `path`, whole or not at all.

        Raises:
            StorageError: the disk refused; what was there before is untouched.
        """
        files.write_text(path, self._backend.to_str(pretty=True))

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included: the ids are 0 .. vocab_size - 1."""
        return self._backend.get_vocab_size(with_added_tokens=True)

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
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the tokenizer as canonical JSON (sorted keys): the same before saving and after."""
        canonical = json.dumps(json.loads(self._backend.to_str()), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens; an empty text gives an empty list. In parallel over the texts.

        Raises:
            InputError: a text holds half of a surrogate pair, as Python makes of bytes that are not UTF-8.
        """
        try:
            encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError:
            _refuse_surrogates(texts)
            raise
        return [encoding.ids for encoding in encoded]

    def decode(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """The text of each row of ids; special tokens are left out, bytes that are no UTF-8 become U+FFFD."""
        return self._backend.decode_batch([list(ids) for ids in batch], skip_special_tokens=True)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each id as a human reads it: a leading space as "▁", a part of a character as "<0xC3>". For pictures."""
        return [self._piece(int(identifier)) for identifier in ids]

    def _piece(self, identifier: int) -> str:
        token = self._backend.id_to_token(identifier)
        if token is None:
            raise IndexError(f"token id {identifier} is not in 0 .. {self.vocab_size - 1}")
        if token in SPECIALS:
            return token
        return shown(byte_level_piece(token) if self._byte_level else token)


def _refuse_surrogates(texts: Sequence[str]) -> None:
    for place, text in enumerate(texts):
        for column, character in enumerate(text):
            if "\ud800" <= character <= "\udfff":
                raise InputError(
                    f"text {place} is not Unicode: character {column} is the lone surrogate {character!a}",
                    "Give UTF-8 text.",
                )


def _quiet_fork() -> None:
    """Forked children encode without threads, and the library is told so beforehand, else it prints a warning.

    Threads do not survive a fork; a child that used them could hang. A value that the user has set is left alone.
    """
    state: list[bool] = []

    def before() -> None:
        state.append(_PARALLELISM in os.environ)
        os.environ.setdefault(_PARALLELISM, "false")

    def after_in_parent() -> None:
        if state and not state.pop():
            os.environ.pop(_PARALLELISM, None)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=after_in_parent)


_quiet_fork()
