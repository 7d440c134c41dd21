"""A tokenizer: text to token ids and back. Ours, trained here, or anybody's that the `tokenizers` library can hold."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sublayer import files
from sublayer.errors import CheckpointError, InputError
from sublayer.text.forking import quiet_fork
from sublayer.text.incremental_detokenizer import IncrementalDetokenizer
from sublayer.text.quoting import Quoting, refuse_surrogates
from sublayer.text.specials import ROLES, SPECIALS, Specials, Template, put_around, template_of
from sublayer.text.tokens import Tokens, by_words, joined
from sublayer.text.vocabularies import read_backend
from sublayer.text.vocabulary import Vocabulary
from sublayer.untrusted import read_object

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Backend

    from sublayer.config.tokenizer import TokenizerRecipe
    from sublayer.text.chat import ChatSource, ChatTemplate, Message, Rendered


class Tokenizer(Vocabulary):
    """A `tokenizers.Tokenizer`: its vocabulary, and text to ids and back.

    One trained here is byte-level BPE or unigram, without loss: decode(encode(x)) is x for any Unicode text, spaces
    and all; no normalization is done (no NFC, no lower-casing); its four special tokens have the first ids, `<pad>` 0,
    `<s>` 1, `</s>` 2, `<unk>` 3, and nothing is put around texts. One from elsewhere (`sublayer.text.folder`,
    `sublayer.text.gguf`) does what its own files say.

    Text is data: special tokens are never made from it, and a text that contains "</s>" is encoded as those four
    characters. Only `encode_template` reads them, for what a chat template wrote.
    """

    def __init__(
        self,
        backend: Backend,
        specials: Specials | None = None,
        *,
        chat_template: ChatSource | None = None,
        size: int | None = None,
    ) -> None:
        """Wraps `backend`.

        Args:
            specials: which ids are special; None for the four of a tokenizer trained here.
            chat_template: the Jinja source that makes a text of a conversation, if there is one; or several by name.
            size: as in `Vocabulary`.

        Raises:
            CheckpointError: `specials` is None, and `backend` lacks one of the four.
        """
        own = [backend.token_to_id(special) for special in SPECIALS]
        if specials is None and None in own:
            missing = ", ".join(
                special for special, identifier in zip(SPECIALS, own, strict=True) if identifier is None
            )
            raise CheckpointError(
                f"the tokenizer has no {missing}",
                "Train one with sublayer: it needs these special tokens. One from elsewhere is imported by its folder.",
            )
        self._own = Specials.of(dict(zip(("pad", "start", "end", "unknown"), own, strict=True)))
        super().__init__(backend, self._own if specials is None else specials, size)
        # Text of users is data: "</s>" in it must not end a sentence. The setting is not part of the saved file.
        backend.encode_special_tokens = True
        # A file from elsewhere may ask for either; lengths and batches are the loader's business.
        backend.no_padding()
        backend.no_truncation()
        self.chat_template = chat_template
        self._quoting = Quoting(backend, self.specials.ids)
        self._reader = self._quoting.reader

    @classmethod
    def train(
        cls, lines: Iterable[str], recipe: TokenizerRecipe, extra: Sequence[str] = (), known: Sequence[str] = ()
    ) -> Self:
        """A tokenizer trained on `lines`, which are read once and not kept; the same lines give the same tokenizer.

        Memory grows with the number of distinct words, not with the text. With `recipe.sample`, that many lines are
        taken, evenly spread. A small text may give fewer than `recipe.vocab_size` tokens. `extra`: more special tokens,
        such as a mask, which have the ids after the four. `known`: words beside those of the text, for whole words.

        Raises:
            DataError: there is no text in `lines`.
        """
        from sublayer.text.training import train_backend

        return cls(train_backend(lines, recipe, extra, known))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The tokenizer saved at `path` (a `tokenizer.json`, with a `sublayer_tokenizer.json` beside it if `save` put
        one there).

        Raises:
            CheckpointError: a file is missing, damaged, or lacks the special tokens.
        """
        backend = read_backend(path)
        beside = _beside(path)
        try:
            if not beside.is_file():
                return cls(backend)
            extras = read_object(beside, remedy="Copy the folder anew.")
            return cls(
                backend, Specials.read(extras["specials"]), chat_template=extras["chat_template"], size=extras["size"]
            )
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error.what}", error.remedy) from None
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{beside} is damaged ({error})", "Copy the folder anew.") from None

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json` at `path`, whole or not at all.

        That is all for a tokenizer trained here. For another, which ids are special and its chat template are written
        to `sublayer_tokenizer.json` beside it.

        Raises:
            StorageError: the disk refused; what was there before is untouched.
        """
        files.write_text(path, self._backend.to_str(pretty=True))
        extras = self._extras()
        if extras is None:
            _beside(path).unlink(missing_ok=True)  # of another tokenizer that stood here
        else:
            files.write_json(_beside(path), extras)

    def _extras(self) -> dict[str, Any] | None:
        """What `tokenizer.json` does not say; None where it goes without saying."""
        whole = None not in (self._own.pad, self._own.start, self._own.end, self._own.unknown)
        if whole and self.specials == self._own and self.chat_template is None and self._size is None:
            return None
        return {"specials": self.specials.plain(), "chat_template": self.chat_template, "size": self._size}

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the tokenizer as canonical JSON (sorted keys): the same before saving and after."""
        plain = json.loads(self._backend.to_str(), parse_float=_single)
        extras = self._extras()
        if extras is not None:
            plain = {"tokenizer": plain, "unsaid": extras}
        canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8")).hexdigest()

    @cached_property
    def template(self) -> Template:
        """What `encode_with_special_tokens` and `encode_pairs` put around texts."""
        return template_of(self._backend)

    def replace(
        self,
        *,
        template: Template | None = None,
        specials: Specials | None = None,
        chat_template: ChatSource | None = None,
    ) -> Tokenizer:
        """The same tokenizer with something else put around texts, other special tokens, another chat template."""
        from tokenizers import Tokenizer as Backend

        backend = Backend.from_str(self._backend.to_str())
        if template is not None:
            put_around(backend, template)
        return Tokenizer(
            backend,
            self.specials if specials is None else specials,
            chat_template=self.chat_template if chat_template is None else chat_template,
            size=self._size,
        )

    def for_language(self, code: str) -> Tokenizer:
        """The same tokenizer for text in the language `code`: its token stands where another language's stood.

        Where the template names no language (Marian's for several targets), the token is put before the text.

        Raises:
            InputError: the tokenizer has no such language.
        """
        told, languages = self.language_id(code), {identifier for _, identifier in self.specials.languages}
        now = {*self.template.before, *self.template.after} & languages
        if now:
            return self.replace(template=self.template.exchanging(dict.fromkeys(now, told)))
        return self.replace(template=Template.around([told, *self.template.before], self.template.after))

    # --- text to ids ----------------------------------------------------------------------------------------------

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens; an empty text gives an empty list. In parallel over the texts.

        Raises:
            InputError: a text holds half of a surrogate pair, as Python makes of bytes that are not UTF-8.
        """
        return [self.known(encoding.ids) for encoding in self._encoded(texts, add_special_tokens=False, spans=False)]

    def encode_with_special_tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text with what the template puts around it, as the model was trained to see it.

        Raises:
            InputError: as in `encode`.
        """
        return [self.known(encoding.ids) for encoding in self._encoded(texts, add_special_tokens=True, spans=False)]

    def encode_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """Each pair of texts with what the template puts around and between them.

        Raises:
            InputError: as in `encode`.
        """
        return [self._tokens(encoding) for encoding in self._encoded(pairs, add_special_tokens=True, spans=True)]

    def tokens(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[Tokens]:
        """Each text as `encode_with_special_tokens` (or `encode`) makes it, with each token's characters and word.

        Raises:
            InputError: as in `encode`.
        """
        return [
            self._tokens(encoding)
            for encoding in self._encoded(texts, add_special_tokens=add_special_tokens, spans=True)
        ]

    def encode_words(self, sentences: Sequence[Sequence[str]], *, add_special_tokens: bool = True) -> list[Tokens]:
        """Sentences that are cut into words already, as those with a tag for each word are; `words` counts these.

        The words are joined by spaces and encoded as one text, so a word is cut as it is in running text. A word that
        the tokenizer makes nothing of (an empty one, or one of unseen signs only) has no token.

        Raises:
            InputError: as in `encode`.
        """
        texts = [joined(words) for words in sentences]
        encoded = self.tokens([text for text, _ in texts], add_special_tokens=add_special_tokens)
        return [by_words(tokens, text, starts) for tokens, (text, starts) in zip(encoded, texts, strict=True)]

    def encode_template(
        self, text: str, quoted: Sequence[tuple[int, int]] = (), *, add_special_tokens: bool = False
    ) -> Tokens:
        """What a chat template wrote, or somebody who means the special tokens in it ("Paris is in [MASK].").

        Args:
            add_special_tokens: as `encode_with_special_tokens` does; a chat template writes them itself.
            quoted: spans of characters, from (included) to (excluded), that are somebody's words, as
                `ChatTemplate.render` gives them: no special token is made of one of these.

        Raises:
            InputError: as in `encode`.
        """
        return next(self._parsed([(text, quoted)], add_special_tokens=add_special_tokens))

    def _parsed(
        self, texts: Sequence[tuple[str, Sequence[tuple[int, int]]]], *, add_special_tokens: bool = False
    ) -> Iterator[Tokens]:
        """Each text and what is quoted in it, as in `encode_template`; an error is raised where it is reached."""
        try:
            refuse_surrogates([text for text, _ in texts])
            parsed = self._quoting.parse(texts, add_special_tokens=add_special_tokens)
        except InputError:
            if len(texts) == 1:
                raise
            yield from (
                tokens for each in texts for tokens in self._parsed([each], add_special_tokens=add_special_tokens)
            )
        else:
            yield from (replace(self._tokens(encoding), spans=spans) for encoding, spans in parsed)

    def _encoded(
        self, texts: Sequence[str | tuple[str, str]], *, add_special_tokens: bool, spans: bool
    ) -> list[Encoding]:
        method = self._reader.encode_batch if spans else self._reader.encode_batch_fast
        try:
            return method(list(texts), add_special_tokens=add_special_tokens)
        except TypeError:
            refuse_surrogates([part for each in texts for part in ([each] if isinstance(each, str) else each)])
            raise

    def _tokens(self, encoding: Encoding) -> Tokens:
        return Tokens(
            self.known(encoding.ids), encoding.type_ids, encoding.offsets, encoding.word_ids, encoding.sequence_ids
        )

    # --- ids to text ----------------------------------------------------------------------------------------------

    def decode(self, batch: Sequence[Sequence[int]], *, skip_special: bool = True) -> list[str]:
        """The text of each row of ids; bytes that are no UTF-8 become U+FFFD.

        Special tokens are left out, or spelled out without `skip_special`.
        """
        skipped = self.specials.ids if skip_special else frozenset[int]()
        # The library leaves out what its file calls special; our specials may be more than that.
        rows = [[identifier for identifier in ids if identifier not in skipped] for ids in batch]
        return self._backend.decode_batch(rows, skip_special_tokens=skip_special)

    def stream(self, before: Sequence[int] = (), *, skip_special: bool = True) -> IncrementalDetokenizer:
        """A decoder to be fed ids as they come: its parts together are what `decode` makes of all of them.

        Args:
            before: ids that the text goes on from.
        """

        def decode(ids: list[int]) -> str:
            return self._backend.decode(ids, skip_special_tokens=skip_special)

        return IncrementalDetokenizer(
            decode,
            self._backend.id_to_token,
            falls_back_to_bytes="ByteFallback" in self._decoder,
            skipped=self.left_out if skip_special else frozenset(),
            before=before,
        )

    # --- conversations --------------------------------------------------------------------------------------------

    @cached_property
    def chat(self) -> ChatTemplate:
        """The template that makes a text of a conversation.

        Raises:
            InputError: the tokenizer carries none.
        """
        from sublayer.text.chat import ChatTemplate

        if self.chat_template is None:
            raise InputError(
                "this model carries no chat template: it was not trained to converse",
                "Use one that was (often called Instruct or Chat), or give it plain text to go on with.",
            )
        parts = self.specials.roles
        variables = {name: self.token(parts[part]) for name, part in ROLES.items() if part in parts}
        return ChatTemplate(self.chat_template, variables, sorted(map(self.token, self.left_out)))

    def encode_chat(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """The conversation so far as ids, ready for the model to answer.

        Args:
            tools: JSON schemas of functions that the model may call.

        Raises:
            InputError: there is no chat template, it knows no tools, or it refuses the conversation.
        """
        rendered = self.chat.render(messages, add_generation_prompt=True, tools=tools)
        return self.encode_template(rendered.text, rendered.quoted).ids

    def encode_answers_of(self, conversations: Iterable[Sequence[Message]]) -> Iterator[tuple[list[int], list[bool]]]:
        """Whole conversations as ids, and for each id whether the assistant learns to say it, end tokens included.

        By position: a token counts if it begins inside an answer. Many at once are sooner made than one by one.

        Raises:
            InputError: when the conversation at fault is reached: there is no chat template, it refuses the
                conversation, or it renders a turn in another way once more turns follow.
        """
        from sublayer.text.templates.process import TOGETHER

        rendered = self.chat.render_answers_of(conversations)
        fault: InputError | None = None
        while fault is None:
            some: list[Rendered] = []
            try:
                for each in islice(rendered, TOGETHER):
                    some.append(each)  # noqa: PERF402  # those before a fault are kept
            except InputError as error:
                fault = error
            if not some:
                break
            for tokens, each in zip(self._parsed([(one.text, one.quoted) for one in some]), some, strict=True):
                yield tokens.ids, tokens.within(each.answers)
        if fault is not None:
            raise fault


def _single(written: str) -> float:
    """A number in single precision: the library reads the last digits of the scores of pieces otherwise than it writes
    them."""
    return struct.unpack("f", struct.pack("f", float(written)))[0]


def _beside(path: Path) -> Path:
    return path.with_name("sublayer_tokenizer.json")


quiet_fork()
