"""Special tokens as data: which id plays which part, and what is put around a text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from sublayer.text.vocabularies import MOST_TOKENS

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
"""Of a tokenizer trained here, the first ids."""

# The names that the ecosystem's files give to the parts: a file's key, and our field.
ROLES = {
    "pad_token": "pad",
    "bos_token": "start",
    "eos_token": "end",
    "unk_token": "unknown",
    "mask_token": "mask",
    "sep_token": "separator",
    "cls_token": "class_",
}


@dataclass(frozen=True, slots=True)
class Specials:
    """The ids of special tokens, each None where a tokenizer has none; two parts may be played by one id.

    Attributes:
        extra: special tokens with no part of their own, such as T5's sentinels or the turns of a chat.
        languages: codes and ids of the tokens that name a language, as mBART, NLLB, M2M100 and Marian have them.
    """

    pad: int | None = None
    start: int | None = None
    end: int | None = None
    unknown: int | None = None
    mask: int | None = None
    separator: int | None = None
    class_: int | None = None
    extra: tuple[int, ...] = ()
    languages: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(
        cls,
        parts: Mapping[str, int | None],
        extra: Sequence[int] = (),
        languages: Mapping[str, int] | None = None,
    ) -> Specials:
        """From the parts by field name."""
        named = {name: parts.get(name) for name in ROLES.values()}
        return cls(**named, extra=tuple(extra), languages=tuple((languages or {}).items()))  # pyright: ignore[reportArgumentType]

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Specials:
        """What `plain` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        parts = {name: value for name, value in plain.items() if name not in ("extra", "languages")}
        languages = tuple((str(code), identifier) for code, identifier in plain["languages"])
        read = cls(**parts, extra=tuple(plain["extra"]), languages=languages)
        for identifier in read.ids:
            if type(identifier) is not int or not 0 <= identifier < MOST_TOKENS:
                raise ValueError(f"{identifier!r} is no id of a token")
        return read

    @property
    def roles(self) -> dict[str, int]:
        """The parts that are played, by field name."""
        named = {name: getattr(self, name) for name in ROLES.values()}
        return {name: identifier for name, identifier in named.items() if identifier is not None}

    @property
    def ids(self) -> frozenset[int]:
        """All of them."""
        return frozenset([*self.roles.values(), *self.extra, *(identifier for _, identifier in self.languages)])

    def plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a template: a special token (`id`), or the text numbered `text` (0 or 1) where `id` is None."""

    id: int | None = None
    text: int | None = None
    type: int = 0


@dataclass(frozen=True, slots=True)
class Template:
    """What is put around one text and around a pair of texts; a slot's `type` is the token type of what stands there.

    BERT's is [CLS] a [SEP] for one text and [CLS] a [SEP] b [SEP] for a pair, where b and the last [SEP] have type 1.
    """

    single: tuple[Slot, ...] = (Slot(text=0),)
    pair: tuple[Slot, ...] = (Slot(text=0), Slot(text=1, type=1))

    @classmethod
    def around(cls, before: Sequence[int], after: Sequence[int], between: Sequence[int] = ()) -> Template:
        """The same ids before and after one text or a pair, and `between` the texts of a pair; all of type 0."""
        head, tail = tuple(Slot(id=i) for i in before), tuple(Slot(id=i) for i in after)
        middle = tuple(Slot(id=i) for i in between)
        return cls((*head, Slot(text=0), *tail), (*head, Slot(text=0), *middle, Slot(text=1), *tail))

    @property
    def added(self) -> int:
        """How many tokens are put around one text."""
        return sum(slot.id is not None for slot in self.single)

    @property
    def before(self) -> tuple[int, ...]:
        """What stands before one text."""
        return _ids(self.single[: _place(self.single, 0)])

    @property
    def after(self) -> tuple[int, ...]:
        """What stands after one text."""
        return _ids(self.single[_place(self.single, 0) + 1 :])

    def exchanging(self, exchanged: Mapping[int, int]) -> Template:
        """The same with some ids exchanged for others."""

        def exchange(slots: tuple[Slot, ...]) -> tuple[Slot, ...]:
            return tuple(
                slot if slot.id is None else Slot(exchanged.get(slot.id, slot.id), None, slot.type) for slot in slots
            )

        return Template(exchange(self.single), exchange(self.pair))


def _place(slots: Sequence[Slot], text: int) -> int:
    return next(place for place, slot in enumerate(slots) if slot.text == text)


def _ids(slots: Sequence[Slot]) -> tuple[int, ...]:
    return tuple(slot.id for slot in slots if slot.id is not None)


def template_of(backend: Backend) -> Template:
    """What `backend` puts around texts, found by looking at what it does to a text of one word and to a pair."""
    if backend.post_processor is None:
        return Template()
    word = next((text for text in _words(backend) if backend.encode(text, add_special_tokens=False).ids), None)
    if word is None:
        return Template()
    return Template(_slots(backend.encode(word)), _slots(backend.encode(word, word)))


def described(part: Any) -> dict[str, Any]:
    """A part of a backend (its decoder, say) as tokenizer.json has it, without the rest; empty where there is none."""
    return json.loads(part.__getstate__()) if part is not None else {}


def _words(backend: Backend) -> Sequence[str]:
    """Texts to try: a letter, and then whatever the vocabulary holds."""
    return ["a", "1", *backend.get_vocab(with_added_tokens=False)]


def _slots(encoding: Any) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    for identifier, text, kind in zip(encoding.ids, encoding.sequence_ids, encoding.type_ids, strict=True):
        slot = Slot(identifier, None, kind) if text is None else Slot(None, text, kind)
        # A word may be several tokens, but it is one text.
        if slot.id is not None or not slots or slots[-1] != slot:
            slots.append(slot)
    return tuple(slots)


def put_around(backend: Backend, template: Template) -> None:
    """Makes `backend` put `template` around texts, instead of what it put there before."""
    from tokenizers import processors

    before = described(backend.post_processor)
    used = sorted({slot.id for slot in (*template.single, *template.pair) if slot.id is not None})

    def spelled(slots: tuple[Slot, ...]) -> list[str]:
        # The library splits a place at its colon, so a token stands there under a name that has none.
        return [f"{('$A', '$B')[slot.text or 0] if slot.id is None else f'id{slot.id}'}:{slot.type}" for slot in slots]

    put = processors.TemplateProcessing(
        single=spelled(template.single),
        pair=spelled(template.pair),
        special_tokens=[{"id": f"id{i}", "ids": [i], "tokens": [backend.id_to_token(i)]} for i in used],
    )
    # Whether a token's span leaves out its space is settled there too, and stays as it was.
    parts: list[dict[str, Any]] = before.get("processors", [before])
    for each in parts:
        if each.get("trim_offsets"):
            spaced = bool(each["add_prefix_space"])
            put = processors.Sequence([processors.ByteLevel(add_prefix_space=spaced, trim_offsets=True), put])
    backend.post_processor = put
