"""A folder of CTranslate2 -> a model, its tokenizer, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from sublayer import config
from sublayer.config.report import report
from sublayer.errors import CheckpointError
from sublayer.hub.ctranslate2 import model_bin
from sublayer.hub.ctranslate2.layout import FAMILY, SPECIFICATIONS
from sublayer.hub.ctranslate2.tree import read_tree
from sublayer.hub.folder import ModelBundle
from sublayer.hub.importing import config_root, import_tensors
from sublayer.hub.sources import AGAIN
from sublayer.text import Template, Tokenizer
from sublayer.text.folder import load_folder, of_vocabulary
from sublayer.untrusted import is_file, read_bytes, read_json, read_object

TOKENS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
"""Special tokens by their names in config.json, and what they are where nothing is said."""
PIECES = ("sentencepiece.model", "tokenizer.model", "spiece.model", "source.spm")
"""What the tokenizers of such folders are called, where they are SentencePiece's."""


def is_ctranslate2(folder: Path) -> bool:
    """Whether there is a model of CTranslate2 in a folder."""
    return is_file(folder / "model.bin") and any(folder.glob("*vocabulary*.*"))


def import_ctranslate2(
    folder: Path,
    *,
    pieces: Path | None = None,
    dtype: torch.dtype | None = None,
    allow_nonfinite: bool = False,
) -> ModelBundle:
    """The model in a folder, with its tokenizer.

    Args:
        pieces: a SentencePiece model that stands elsewhere.
        dtype: of the weights; unset: as they are, and float32 where they are whole numbers.
        allow_nonfinite: also take weights that are not finite.

    Raises:
        CheckpointError: a file is missing or damaged, the model has parts that sublayer does not have, or there is no
            tokenizer that fits it.
    """
    binary = model_bin.read(folder / "model.bin")
    known = {name: kind for kind, (name, _) in SPECIFICATIONS.items()}
    if binary.specification not in known:
        raise CheckpointError(
            f"{binary.name} holds a {binary.specification[:80]}, which sublayer does not read",
            f"Take one of these: {', '.join(known)}.",
        )
    newest = SPECIFICATIONS[known[binary.specification]][1]
    if not 2 <= binary.revision <= newest:
        raise CheckpointError(
            f"{binary.name} is of revision {binary.revision}, and read are 2 to {newest}", "Convert the model again."
        )
    settings = _settings(folder, binary)
    try:
        tree = read_tree(binary, settings)
    except ValidationError as error:
        problems = "; ".join(report(error, config_root(error)))
        raise CheckpointError(f"{binary.name} describes no model: {problems}", AGAIN) from None
    except (ArithmeticError, ValueError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{binary.name} or its config.json is damaged ({error})", AGAIN) from None
    model = import_tensors(tree, FAMILY, binary, dtype=dtype, allow_nonfinite=allow_nonfinite)
    vocabulary = _vocabulary(folder, tree)
    tokenizer = _tokenizer(folder, pieces, vocabulary, settings)
    decoding: dict[str, Any] = config.Generation().plain()
    if isinstance(tree, config.EncoderDecoder):
        tokenizer, decoding = _used(tokenizer, vocabulary, settings, folder)
    return ModelBundle(model, tokenizer, decoding, {"family": FAMILY.name})


def _settings(folder: Path, binary: model_bin.ModelBin) -> dict[str, Any]:
    """config.json; of older files, what it would be."""
    path = folder / "config.json"
    found = read_object(path) if path.is_file() else {}
    flags = binary.numbers
    starts = "bos_token" if flags.get("with_target_bos", 1) else "eos_token"
    tokens = TOKENS | dict(binary.texts)
    older: dict[str, Any] = {
        **tokens,
        "decoder_start_token": tokens[starts],
        "add_source_bos": bool(flags.get("with_source_bos", 0)),
        "add_source_eos": bool(flags.get("with_source_eos", 0)),
    }
    found = {**older, **found}
    wrong = [name for name in TOKENS if not isinstance(found[name], str)]
    wrong += [name for name in ("add_source_bos", "add_source_eos") if not isinstance(found[name], bool)]
    for name, kinds in (("layer_norm_epsilon", (int, float)), ("max_length", int), ("decoder_start_token", str)):
        value = found.get(name)
        wrong += [name] * (value is not None and (not isinstance(value, kinds) or isinstance(value, bool)))
    if wrong:
        said = ", ".join(f"{name} = {str(found[name])[:80]!r}" for name in wrong)
        raise CheckpointError(f"{path} has a value of another kind than it should: {said}", AGAIN)
    return found


def _vocabulary(folder: Path, tree: config.EncoderDecoder | config.DecoderOnly) -> list[str]:
    """The tokens by their numbers.

    Raises:
        CheckpointError: there are none, source and target have different ones, or the embedding has other rows.
    """
    names = ["vocabulary"] if isinstance(tree, config.DecoderOnly) else ["shared_vocabulary"]
    if isinstance(tree, config.EncoderDecoder) and not any(folder.glob("shared_vocabulary.*")):
        names = ["source_vocabulary", "target_vocabulary"]
    found = [_tokens(folder, name) for name in names]
    if any(tokens != found[0] for tokens in found):
        raise CheckpointError(
            f"{folder} has different vocabularies for source and target, and sublayer has one for both",
            "Take a model with a shared vocabulary.",
        )
    tokens = found[0]
    if len(tokens) != tree.vocab_size or len(set(tokens)) != len(tokens):
        raise CheckpointError(
            f"{folder}: the vocabulary has {len(set(tokens)):,} different tokens, the embedding {tree.vocab_size:,}"
            " rows",
            "They do not belong together; get the folder again, whole.",
        )
    return tokens


def _tokens(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.json"
    if is_file(path):
        found = read_json(path)
        if not isinstance(found, list) or not all(isinstance(token, str) for token in found):  # pyright: ignore[reportUnknownVariableType]
            raise CheckpointError(f"{path} is no list of tokens", AGAIN)
        return [str(token) for token in found]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    try:
        text = read_bytes(folder / f"{name}.txt").decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{folder / name}.txt is not UTF-8 at byte {error.start}", AGAIN) from None
    return text.removesuffix("\n").split("\n")


def _tokenizer(folder: Path, pieces: Path | None, vocabulary: Sequence[str], settings: Mapping[str, Any]) -> Tokenizer:
    """What cuts text into the tokens of the vocabulary.

    Raises:
        CheckpointError: there is nothing in the folder that does.
    """
    if is_file(folder / "tokenizer.json"):
        tokenizer = load_folder(folder)
        wrong = [
            f"{number} is {tokenizer.token(number)!r} and {token!r}"
            for number, token in enumerate(vocabulary[: tokenizer.vocab_size])
            if tokenizer.backend.id_to_token(number) not in (token, None)
        ]
        if wrong or tokenizer.vocab_size > len(vocabulary):
            raise CheckpointError(
                f"{folder}: tokenizer.json has other tokens than the vocabulary ({', '.join(wrong[:3])})",
                "They do not belong together; get the folder again, whole.",
            )
        return tokenizer
    found = pieces or next((folder / name for name in PIECES if is_file(folder / name)), None)
    if found is None:
        raise CheckpointError(
            f"{folder} has no tokenizer: CTranslate2 keeps none",
            f"Put the model's tokenizer.json, or its SentencePiece model as {PIECES[0]}, into the folder.",
        )
    other = found.with_name("target.spm")
    if found.name == "source.spm" and is_file(other) and read_bytes(found) != read_bytes(other):
        raise CheckpointError(
            f"{folder} has different tokenizers for source and target, and sublayer has one for both",
            "Take the model as Hugging Face has it: it is read with both.",
        )
    parts = {field: settings[f"{name}_token"] for name, field in (("unk", "unknown"), ("bos", "start"), ("eos", "end"))}
    return of_vocabulary(found, vocabulary, parts)


def _used(
    tokenizer: Tokenizer, vocabulary: Sequence[str], settings: Mapping[str, Any], folder: Path
) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer with what CTranslate2 puts around a source, and the decoding."""
    number = {token: place for place, token in enumerate(vocabulary)}
    start = settings.get("decoder_start_token") or settings["bos_token"]
    missing = [token for token in (start, settings["eos_token"], settings["bos_token"]) if token not in number]
    if missing:
        raise CheckpointError(
            f"{folder / 'config.json'} names the token {missing[0]!r}, which the vocabulary does not have", AGAIN
        )
    before = [number[settings["bos_token"]]] if settings["add_source_bos"] else []
    after = [number[settings["eos_token"]]] if settings["add_source_eos"] else []
    specials = tokenizer.specials
    if specials.end != number[settings["eos_token"]]:
        raise CheckpointError(
            f"{folder}: the tokenizer's end token is not {settings['eos_token']!r}, as config.json has it",
            "They do not belong together; get the folder again, whole.",
        )
    decoding = config.Decoding(start=number[start], source_end=bool(after))
    return tokenizer.replace(template=Template.around(before, after)), decoding.plain()
