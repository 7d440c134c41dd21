"""A model -> a folder that `ctranslate2.Translator` or `ctranslate2.Generator` loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import CheckpointError, InputError
from sublayer.files import replacing, write_json
from sublayer.hub.ctranslate2 import model_bin
from sublayer.hub.ctranslate2.layout import SPECIFICATIONS, fixed, numbers, rules, ties
from sublayer.hub.ctranslate2.nearest import lacks, refusal
from sublayer.hub.equivalent import equivalents
from sublayer.hub.exporting import PARTS, as_read
from sublayer.hub.folder import ModelBundle
from sublayer.models import DecoderOnly, EncoderDecoder, Model
from sublayer.text import PairAffixes, Tokenizer

MOST_DECODED = 256
"""Tokens that CTranslate2 decodes where nothing is said."""
FILES = (*PARTS, "model.bin", "*vocabulary.json", "*vocabulary.txt", "vmap.txt")
"""What such a folder may consist of."""


def export(folder: Path, bundle: ModelBundle, weights: model_bin.Weights = "float32") -> list[str]:
    """Write the model, its vocabulary and its tokenizer, whole or not at all; what else stands in the folder is kept.

    Returns:
        What config.json cannot say of how the model is used, a line each.

    Raises:
        CheckpointError: CTranslate2 cannot express the model, or what is put around its texts; it is named.
        StorageError: the disk refused.
    """
    model = expressed(bundle.model)
    settings, unsaid = settings_of(model.config, bundle)
    with replacing(folder, FILES) as aside:
        aside.mkdir()
        write_parts(aside, model, bundle.tokenizer, settings, weights)
        _write_tokenizer(aside, model.config, bundle)
    return unsaid


def expressed(model: Model) -> EncoderDecoder | DecoderOnly:
    """The model as CTranslate2 can express it: itself, or another one that computes the same.

    Raises:
        CheckpointError: there is none; says which settings would have to be others.
    """
    if not isinstance(model, EncoderDecoder | DecoderOnly):
        raise refusal(model.config)
    misses: list[dict[str, tuple[Any, Any]]] = []
    for same in equivalents(model):
        assert isinstance(same, EncoderDecoder | DecoderOnly)
        lacking = lacks(same.config)
        if not lacking:
            return same
        misses.append(lacking)
    raise refusal(model.config, min(misses, key=len))


def write_parts(
    folder: Path,
    model: EncoderDecoder | DecoderOnly,
    tokenizer: Tokenizer,
    settings: Mapping[str, Any],
    weights: model_bin.Weights,
) -> None:
    """Write what CTranslate2 reads: model.bin, config.json, the vocabulary."""
    variables: dict[str, Callable[[], Tensor]] = {
        name: partial(Tensor.clone, value) for name, value in numbers(model.config).items()
    }
    made = {name: partial(torch.Tensor.float, table) for name, table in fixed(model.config).items()}
    for rule in rules(model.config):
        for place, name in enumerate(rule.theirs):
            made[name] = partial(_written, model, rule.ours, rule.write, place)
    for name, tensor in made.items():
        variables |= model_bin.stored(name, tensor, weights)
    specification, revision = SPECIFICATIONS[model.config.kind]
    model_bin.write(folder / "model.bin", specification, revision, variables, ties(model.config))
    write_json(folder / "config.json", dict(settings))
    name = "shared_vocabulary" if isinstance(model, EncoderDecoder) else "vocabulary"
    write_json(folder / f"{name}.json", vocabulary(tokenizer, model.config.vocab_size))


def vocabulary(tokenizer: Tokenizer, rows: int) -> list[str]:
    """The token of each row; rows without a token have names of their own."""
    found = [tokenizer.backend.id_to_token(number) if number < tokenizer.vocab_size else None for number in range(rows)]
    return [f"<row {number}>" if token is None else token for number, token in enumerate(found)]


def settings_of(
    tree: config.EncoderDecoder | config.DecoderOnly, bundle: ModelBundle
) -> tuple[dict[str, Any], list[str]]:
    """config.json, and what it cannot say.

    Raises:
        CheckpointError: what stands around a source cannot be said.
    """
    tokenizer, roles = bundle.tokenizer, bundle.tokenizer.specials
    end = roles.end if roles.end is not None else 0
    # Where there is no unknown token none is ever asked for, but the name must be one of the vocabulary.
    unknown = end if roles.unknown is None else roles.unknown
    attentions = [block.attention for stack, _ in tree.stacks.values() for block in stack.blocks]
    found: dict[str, Any] = {
        "unk_token": tokenizer.token(unknown),
        "bos_token": tokenizer.token(end if roles.start is None else roles.start),
        "eos_token": tokenizer.token(end),
        "layer_norm_epsilon": tree.decoder.block.norm.eps,
        "multi_query_attention": any(each.key_value_heads != each.heads for each in attentions),
        # CTranslate2 passes it over: `sublayer pull` reads it.
        "max_length": tree.max_length,
    }
    if isinstance(tree, config.DecoderOnly):
        c = config.Generation.parse(bundle.decoding, "decoding")
        ends = [tokenizer.token(end) for end in c.end_ids]
        return found, [f"end_token = {[found['eos_token'], *ends]}"] if ends else []
    affixes = PairAffixes.of(tokenizer, config.Decoding.parse(bundle.decoding, "decoding"))
    before, after = affixes.source.before, affixes.source.after
    if len(before) > 1 or after not in ((), (affixes.end,)):
        raise CheckpointError(
            "CTranslate2 can put one token before a source and the end token after it, and this model reads"
            f" {tokenizer.pieces(before)} before and {tokenizer.pieces(after)} after it",
            "Take a model of one pair of languages; or give one with another template (Tokenizer.replace).",
        )
    found |= {
        "eos_token": tokenizer.token(affixes.end),
        "decoder_start_token": tokenizer.token(affixes.start),
        "add_source_bos": bool(before),
        "add_source_eos": bool(after),
        **({"bos_token": tokenizer.token(before[0])} if before else {}),
    }
    forced = [tokenizer.token(token) for token in affixes.forced]
    unsaid = [f"target_prefix = {forced}"] if forced else []
    if isinstance(tree.decoder.position, config.Learned) and tree.max_length < MOST_DECODED:
        # Past a learned table CTranslate2 ends with an error.
        unsaid.append(f"max_decoding_length = {tree.max_length}")
    return found, unsaid


@torch.no_grad()
def _written(
    model: EncoderDecoder | DecoderOnly, ours: tuple[str, ...], write: Callable[..., Any], place: int
) -> Tensor:
    return write([model.get_parameter(name).detach().cpu() for name in ours])[place]


def _write_tokenizer(folder: Path, tree: config.EncoderDecoder | config.DecoderOnly, bundle: ModelBundle) -> None:
    """Whoever calls CTranslate2 cuts the text: by tokenizer.json, or by SentencePiece where the tokenizer is one."""
    from sublayer.text.export import export as export_tokenizer
    from sublayer.text.piece_model import piece_model_of, write_piece_model

    tokenizer = as_read(bundle.tokenizer, tree, bundle.decoding)
    export_tokenizer(tokenizer, folder, max_length=tree.max_length, token_type_ids=False)
    with suppress(InputError):
        pieces = piece_model_of(tokenizer.backend)
        write_piece_model(folder / "sentencepiece.model", pieces, tokenizer.specials.roles)
