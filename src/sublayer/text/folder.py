"""The tokenizer of a model's folder as the ecosystem has it, whichever of its files are there.

tokenizer.json                              all of it, but which ids play which part
tokenizer_config.json, special_tokens_map.json, added_tokens.json, chat_template.jinja
vocab.txt                                   BERT's
vocab.json, merges.txt                      GPT-2's
spiece.model, tokenizer.model, ...          SentencePiece's (needs `sentencepiece`)
source.spm, target.spm, vocab.json          Marian's
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from sublayer.config.foreign import TOKENIZER, require, require_all
from sublayer.errors import CheckpointError
from sublayer.text.chat import ChatSource
from sublayer.text.families import FAMILIES, Family, family_of, name_of
from sublayer.text.sentencepiece import Piece, PieceModel, backend_of, read_piece_model
from sublayer.text.specials import ROLES, Slot, Specials, Template, described, put_around
from sublayer.text.tokenizer import Tokenizer
from sublayer.text.vocabularies import (
    ANEW,
    byte_level,
    read_backend,
    read_merges,
    read_text,
    read_vocab_json,
    read_vocab_txt,
    wordpiece,
)
from sublayer.untrusted import library_errors, read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_PIECE_MODELS = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "sentencepiece.model")
_LANGUAGE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,3}|__[a-z]{2,3}__|>>[A-Za-z_]+<<")


@dataclass(frozen=True, slots=True)
class _FolderSettings:
    """The settings of a tokenizer folder, all but its vocabulary."""

    config: Mapping[str, Any]
    extra: tuple[str, ...]
    added: Mapping[int, Mapping[str, Any]]
    class_name: str | None
    architecture: str | None
    chat_template: ChatSource | None

    def token(self, role: str, family: Family) -> str | None:
        """The token that plays `role` (a key of `ROLES`)."""
        if role in self.config:
            return _content(self.config[role])
        return family.tokens.get(role)

    @property
    def languages(self) -> list[str]:
        return [token for token in self.extra if _LANGUAGE.fullmatch(token)]


def load_folder(folder: Path, *, side: Literal["source", "target"] = "source") -> Tokenizer:
    """The tokenizer of a Hugging Face folder.

    Padding and truncation that its file may ask for are switched off.

    Args:
        side: of Marian, whose text is cut in one way where it is translated from and in another where to.

    Raises:
        CheckpointError: there are no files of a tokenizer, they are damaged or contradict each other, their kind is not
            known, or `sentencepiece` is needed and not installed.
    """
    settings = _read_settings(folder)
    with library_errors(f"{folder} has no tokenizer that can be read", ANEW):
        return _built(folder, settings, side)


def _built(folder: Path, settings: _FolderSettings, side: Literal["source", "target"]) -> Tokenizer:
    size: int | None = None
    whole = (folder / "tokenizer.json").is_file()
    if whole:
        family = _family_if_known(settings)
        backend = read_backend(folder / "tokenizer.json")
        _settle(backend, settings, family)
    elif (folder / "vocab.txt").is_file():
        family = family_of(settings.class_name, settings.architecture, "vocab.txt")
        backend = wordpiece(read_vocab_txt(folder / "vocab.txt"), settings.config)
    elif (folder / "source.spm").is_file():
        family = FAMILIES["Marian"]
        backend, size = _marian(folder, settings, side)
    elif any((folder / name).is_file() for name in _PIECE_MODELS):
        path = next(folder / name for name in _PIECE_MODELS if (folder / name).is_file())
        family = family_of(settings.class_name, settings.architecture, path.name)
        backend, size = _pieces(path, family, settings)
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        family = family_of(settings.class_name, settings.architecture, "vocab.json and merges.txt")
        backend = byte_level(
            read_vocab_json(folder / "vocab.json"),
            read_merges(folder / "merges.txt"),
            words=family.words,
            prefix_space=bool(settings.config.get("add_prefix_space", False)),
            compose=family.compose,
            trims=family.trims,
        )
    else:
        others = [name for name in ("tekken.json", "tokenizer.tiktoken") if (folder / name).exists()]
        raise CheckpointError(
            f"{folder} has no tokenizer that is read here" + (f", only {others[0]}" if others else ""),
            "It needs a tokenizer.json, a vocab.txt, a vocab.json with merges.txt, or a SentencePiece model.",
        )
    _add_tokens(backend, settings, family, folder)
    specials = _specials(backend, settings, family)
    # Which language stands there, and on which side, is a matter of the configuration even beside a tokenizer.json.
    placed = not whole or ("language" in family.around and specials.languages)
    _put_marks(backend, settings, specials, family.placed(settings.config) if placed else None, whole)
    return Tokenizer(backend, specials, chat_template=settings.chat_template, size=size)


# --- what the folder says --------------------------------------------------------------------------------------------


def _read_settings(folder: Path) -> _FolderSettings:
    def read(name: str) -> dict[str, Any]:
        return read_object(folder / name, remedy=ANEW) if (folder / name).is_file() else {}

    config = {**read("special_tokens_map.json"), **read("tokenizer_config.json")}
    require_all(config, TOKENIZER, f"{folder / 'tokenizer_config.json'} (or special_tokens_map.json)")
    extra: list[Any] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        named: Any = config.get(key) or []
        extra += cast("dict[str, Any]", named).values() if isinstance(named, dict) else named
    decoder: Mapping[str, Mapping[str, Any]] = config.get("added_tokens_decoder") or {}
    added = {int(identifier): token for identifier, token in decoder.items()}
    for token, identifier in read("added_tokens.json").items():
        require(identifier, repr(token), "token", str(folder / "added_tokens.json"))
        added.setdefault(identifier, {"content": token})
    return _FolderSettings(
        config,
        tuple(filter(None, map(_content, extra))),
        added,
        config.get("tokenizer_class"),
        read("config.json").get("model_type"),
        _chat_template(folder, config),
    )


def _chat_template(folder: Path, config: Mapping[str, Any]) -> ChatSource | None:
    """The chat templates: one of a file of its own comes before one of that name in the configuration."""
    found = config.get("chat_template")
    if isinstance(found, list):
        named = {each["name"]: each["template"] for each in cast("list[dict[str, str]]", found)}
    else:
        named = {} if found is None else {"default": cast("str", found)}
    files = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        files["default"] = folder / "chat_template.jinja"
    named |= {name: read_text(path) for name, path in files.items()}
    return named["default"] if named.keys() == {"default"} else named or None


def _content(token: Any) -> str | None:
    """A token is written as its spelling, or as an object that has it."""
    return cast("dict[str, str]", token)["content"] if isinstance(token, dict) else token


def _family_if_known(settings: _FolderSettings) -> Family:
    name = name_of(settings.class_name, settings.architecture)
    if settings.class_name in {"PreTrainedTokenizerFast", "TokenizersBackend"} or name is None:
        return Family()
    return FAMILIES[name]


def _settle(backend: Backend, settings: _FolderSettings, family: Family) -> None:
    """What the configuration decides, whatever tokenizer.json says: the rule of the class that it names.

    Parts of another kind than the class has are left as they are.
    """
    normal = described(backend.normalizer)
    if family.normalizes and normal.get("type") == "BertNormalizer":
        normal |= {
            "handle_chinese_chars": settings.config.get("tokenize_chinese_chars", True),
            "strip_accents": settings.config.get("strip_accents"),
            "lowercase": settings.config.get("do_lower_case", True),
        }
        backend.normalizer = _part("normalizer", normal)
    if family.prefixes is None:
        return
    given = settings.config.get("add_prefix_space")
    spaced = family.prefixes if given is None else bool(given)
    for name in ("pre_tokenizer", "post_processor"):
        before = described(getattr(backend, name))
        parts = before.get("pretokenizers", before.get("processors", [before]))
        for each in parts:
            if each.get("type") == "Metaspace":
                each["prepend_scheme"] = "always" if spaced else "never"
            elif "add_prefix_space" in each:
                each["add_prefix_space"] = spaced
        if before:
            setattr(backend, name, _part(name, before))


def _part(name: str, plain: Mapping[str, Any]) -> Any:
    """A part of a backend, from what tokenizer.json says of it."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    return getattr(Backend.from_str(json.dumps({**json.loads(Backend(models.BPE()).to_str()), name: plain})), name)


# --- special tokens --------------------------------------------------------------------------------------------------


def _add_tokens(backend: Backend, settings: _FolderSettings, family: Family, folder: Path) -> None:
    """The tokens that the configuration adds to the vocabulary, in the order of their ids."""
    from tokenizers import AddedToken

    for identifier, token in sorted(settings.added.items()):
        content = str(token["content"])
        flags = {
            key: bool(token[key])
            for key in ("lstrip", "rstrip", "single_word", "normalized", "special")
            if key in token
        }
        known = backend.get_added_tokens_decoder().get(identifier)
        if known is None or known.content != content:
            backend.add_tokens([AddedToken(content, **flags)])
        if backend.token_to_id(content) != identifier:
            raise CheckpointError(
                f"{folder} adds {content!r} with the id {identifier}, and its vocabulary gives it "
                f"{backend.token_to_id(content)}",
                "Copy the folder anew: its files do not belong together.",
            )
    marked = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    named = [settings.token(role, family) for role in ROLES]
    tokens = [cast("dict[str, Any]", token) for token in settings.config.values() if isinstance(token, dict)]
    spaced = {token.get("content") for token in tokens if token.get("lstrip")}
    for content in dict.fromkeys([*named, *settings.extra]):
        if content and content not in marked:
            # "<mask>" stands for a word and the space before it (RoBERTa and its kin).
            left = content == "<mask>" or content in spaced
            backend.add_special_tokens([AddedToken(content, lstrip=left, normalized=False, special=True)])


def _specials(backend: Backend, settings: _FolderSettings, family: Family) -> Specials:
    parts = {
        field: backend.token_to_id(token) if (token := settings.token(role, family)) else None
        for role, field in ROLES.items()
    }
    languages = {
        token.content: identifier
        for identifier, token in sorted(backend.get_added_tokens_decoder().items())
        if _LANGUAGE.fullmatch(token.content)
    }
    marked = [i for i, token in sorted(backend.get_added_tokens_decoder().items()) if token.special]
    others = [i for i in marked if i not in parts.values() and i not in languages.values()]
    return Specials.of(parts, others, languages)


def _put_marks(
    backend: Backend,
    settings: _FolderSettings,
    specials: Specials,
    template: tuple[str, str] | None,
    whole: bool,
) -> None:
    """What is put around texts: the family's way where the file has none, and what the configuration says of ends."""
    if template is not None:
        language = _first_language(settings, specials) if "language" in template[0] else None
        put_around(backend, Template(*(_slots(backend, each, language) for each in template)))
    starts, ends = settings.config.get("add_bos_token"), settings.config.get("add_eos_token")
    # Where there is a tokenizer.json, it says what stands around a text, and these do not count.
    if whole or (starts is None and ends is None):
        return
    before, after = specials.start if starts else None, specials.end if ends else None

    def around(text: int) -> tuple[Slot, ...]:
        """A text between its marks, all of the text's own type."""
        slots = (Slot(before, None, text), Slot(None, text, text), Slot(after, None, text))
        return tuple(slot for slot in slots if slot != Slot(None, None, text))

    put_around(backend, Template(around(0), around(0) + around(1)))


def _slots(backend: Backend, written: str, language: int | None) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    for part in written.split(" "):
        name, kind = (part[:-2], 1) if part.endswith(":1") else (part, 0)
        if name in {"A", "B"}:
            slots.append(Slot(None, int(name == "B"), kind))
        else:
            slots.append(Slot(language if name == "language" else backend.token_to_id(name), None, kind))
    return tuple(slots)


def _first_language(settings: _FolderSettings, specials: Specials) -> int:
    """The language that the configuration names, else English, else the first one."""
    known = dict(specials.languages)
    if not known:
        raise CheckpointError(
            "the tokenizer is one of several languages, and its files name none",
            "Copy the folder whole: special_tokens_map.json or tokenizer_config.json lists them.",
        )
    named = str(settings.config.get("src_lang"))
    wanted = (named, f"__{named}__", "en_XX", "eng_Latn", "__en__", next(iter(known)))
    return next(known[code] for code in wanted if code in known)


# --- SentencePiece ---------------------------------------------------------------------------------------------------


def _pieces(path: Path, family: Family, settings: _FolderSettings) -> tuple[Backend, int | None]:
    model = read_piece_model(path)
    if family is FAMILIES["Llama"]:
        model = replace(model, only_first=settings.config.get("legacy") is False)
    languages = settings.languages or list(family.languages)
    if family is FAMILIES["M2M100"]:
        ids = read_vocab_json(path.with_name("vocab.json"))
        ids |= {language: len(ids) + place for place, language in enumerate(languages)}
        return _renumbered(model, ids)
    return backend_of(model.with_pieces(family.layout(model.pieces, languages))), None


def _marian(folder: Path, settings: _FolderSettings, side: str) -> tuple[Backend, int | None]:
    separate = bool(settings.config.get("separate_vocabs"))
    vocabulary = "target_vocab.json" if separate and side == "target" else "vocab.json"
    return _renumbered(read_piece_model(folder / f"{side}.spm"), read_vocab_json(folder / vocabulary))


def of_vocabulary(path: Path, tokens: Sequence[str], parts: Mapping[str, str]) -> Tokenizer:
    """The SentencePiece model at `path` with the ids of a vocabulary that is not its own.

    Args:
        tokens: the vocabulary, by ids. parts: special tokens, by the fields of `Specials`.

    Raises:
        CheckpointError: the file is damaged, or the vocabulary lacks the unknown token or a special one.
    """
    with library_errors(f"{path} gives no tokenizer that can be read", ANEW):
        ids = {token: place for place, token in enumerate(tokens)}
        model = read_piece_model(path)
        # Whichever way a vocabulary spells it, it is the unknown piece.
        own, given = model.pieces[model.unknown], parts["unknown"]
        pieces = [replace(piece, text=given) if piece == own else piece for piece in model.pieces]
        backend, size = _renumbered(model.with_pieces(pieces), ids)
        missing = [token for token in parts.values() if token not in ids]
        if missing:
            raise CheckpointError(f"the vocabulary has no {missing[0]!r}", ANEW)
        roles = {field: ids[token] for field, token in parts.items()}
        if "<pad>" in ids:
            roles["pad"] = ids["<pad>"]
        marked = [i for i, token in sorted(backend.get_added_tokens_decoder().items()) if token.special]
        others = [i for i in marked if i not in roles.values() and i < len(tokens)]
        return Tokenizer(backend, Specials.of(roles, others), size=size)


def _renumbered(model: PieceModel, ids: Mapping[str, int]) -> tuple[Backend, int | None]:
    """`model` with the ids of a vocabulary that is not its own.

    Tokens that the model has not (of the other side, say) keep their ids and are made from no text. Pieces that the
    vocabulary has not still cut the text, with ids behind it, which stand for the unknown token (`Tokenizer`'s `size`).
    """
    size = max(ids.values(), default=-1) + 1
    if sorted(ids.values()) != list(range(size)):
        raise CheckpointError("vocab.json does not number its tokens from 0 on", "Copy the model's folder anew.")
    own = {piece.text: piece for piece in model.pieces}
    unknown = model.pieces[model.unknown].text
    # The mark of an unused piece keeps it out of texts.
    pieces = [own.get(text, Piece(text, 0.0, "unused")) for text, _ in sorted(ids.items(), key=lambda item: item[1])]
    pieces = [replace(p, kind="control") if p.kind == "unused" and _LANGUAGE.fullmatch(p.text) else p for p in pieces]
    if unknown not in ids:
        raise CheckpointError(f"vocab.json has no {unknown!r}", "Copy the model's folder anew.")
    outside = [piece for piece in model.pieces if piece.text not in ids]
    return backend_of(model.with_pieces([*pieces, *outside])), size if outside else None
