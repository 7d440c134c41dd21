"""Our model -> a folder that other libraries load: config.json, safetensors, generation_config.json, the tokenizer.

A family can express a tree if the config that it writes, read again, describes the same tree: then nothing is lost,
whatever the family's writer had eyes for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sublayer import config
from sublayer.errors import CheckpointError, SublayerError, nearest
from sublayer.files import replacing, write_json
from sublayer.hub import generation_config
from sublayer.hub.canonical import canonical, lost
from sublayer.hub.equivalent import equivalents
from sublayer.hub.families import FAMILIES
from sublayer.hub.family import Family, Tree
from sublayer.hub.importing import read_tree
from sublayer.hub.rules import Rule
from sublayer.hub.sentences import write_modules
from sublayer.hub.tensors import write_tensors
from sublayer.hub.tokens import SpecialTokens
from sublayer.models import Model, RecurrentDecoderOnly, RecurrentEncoderDecoder, Transformer
from sublayer.text import PairAffixes, Template, Tokenizer

FIRST_CHOICE: Mapping[str, str] = {"encoder-decoder": "marian", "decoder-only": "llama", "encoder-only": "bert"}
"""The family that a model trained here is written as, where that can express it."""

SHARD = 5_000_000_000

PARTS = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "pytorch_model*",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates",
    "vocab.*",
    "merges.txt",
    "*.spm",
    "spiece.model",
    "sentencepiece*.model",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "[0-9]_*",
)
"""What a folder of such a library may consist of, and what that library would read beside a new model if it stayed."""

IN_CONFIG = frozenset({"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"})
"""Numbers of tokens that stand in config.json too, where older readers look for them."""


def export(
    folder: Path,
    model: Model,
    *,
    tokenizer: Tokenizer | None = None,
    family: str | None = None,
    tokens: Mapping[str, Any] | None = None,
    decoding: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD,
) -> Family:
    """Write the model as `transformers` writes one, whole or not at all; what else stands in the folder is kept.

    Args:
        tokenizer: written beside it, where there is one.
        family: the family that the model came in by; it is taken if it can still express the model, and else the first
            that can.
        tokens: numbers of special tokens, by their names in generation_config.json ("eos_token_id").
        decoding: how the model is used unless a call says otherwise, as plain data (`folder.ModelBundle`), where there
            is a tokenizer: what is written then gives the same texts by `generate()` without arguments.
        shard_bytes: the largest file of tensors; a larger model becomes several with an index.

    Returns:
        The family.

    Raises:
        CheckpointError: no family can express the model; what the likeliest would lose is named. Or
            generation_config.json cannot say how it is used.
        StorageError: the disk refused.
    """
    if isinstance(model, RecurrentEncoderDecoder | RecurrentDecoderOnly):
        raise Lost().error(model.config)
    model, chosen, settings = expressed(model, family)
    special = dict(tokens or _tokens_of(tokenizer))
    if tokenizer is not None and decoding is not None:
        special |= generation_config.write(model.config, decoding, tokenizer)
        tokenizer = as_read(tokenizer, model.config, decoding)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    settings |= {"torch_dtype": dtype, **{key: value for key, value in special.items() if key in IN_CONFIG}}
    with replacing(folder, PARTS) as aside:
        aside.mkdir()
        write_json(aside / "config.json", settings)
        if not isinstance(model.config, config.EncoderOnly):
            write_json(aside / "generation_config.json", special)
        _write_tensors(aside, model, chosen, shard_bytes)
        if isinstance(model.config, config.EncoderOnly) and isinstance(model.config.head, config.SentenceEmbedding):
            write_modules(aside, model.config.head, model.config.dim)
        if tokenizer is not None:
            _write_tokenizer(tokenizer, aside, model.config)
    return chosen


def as_read(tokenizer: Tokenizer, tree: Tree, decoding: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that puts around a text what the model reads around it, which is not always its own template.

    An encoder-decoder's affixes may come from how it is used, and a decoder that is asked with an empty text begins
    with its start token.
    """
    if not isinstance(tree, config.EncoderDecoder):
        return tokenizer
    affixes = PairAffixes.of(tokenizer, config.Decoding.parse(decoding, "decoding"))
    template = Template.around(affixes.source.before, affixes.source.after)
    if (template.before, template.after) == (tokenizer.template.before, tokenizer.template.after):
        return tokenizer
    return tokenizer.replace(template=template)


def choose_family(tree: config.Model, preferred: str | None = None) -> tuple[Family, dict[str, Any]]:
    """The family that a model of this tree is written as, and its config.json.

    Raises:
        CheckpointError: none can express it.
    """
    recurrent = isinstance(tree, config.RecurrentEncoderDecoder | config.RecurrentDecoderOnly)
    found = Lost() if recurrent else _find(tree, preferred)
    if isinstance(found, Lost):
        raise found.error(tree)
    return found


REMEDY = "Keep it in sublayer's own format, or train one of such a family's form."


@dataclass(frozen=True)
class Lost:
    """What the closest family cannot express of a tree."""

    family: str = ""
    settings: tuple[str, ...] = ()

    def error(
        self, tree: config.Model, whose: str = "family of checkpoints that sublayer knows", remedy: str = REMEDY
    ) -> CheckpointError:
        reason = f"; as {self.family}, {'; '.join(self.settings)}" if self.settings else ""
        return CheckpointError(f"no {whose} can express this {tree.kind} model{reason}", remedy)


def expressed(
    model: Transformer, preferred: str | None, families: Sequence[Family] = FAMILIES, **said: str
) -> tuple[Transformer, Family, dict[str, Any]]:
    """The model as a family can express it (another one that computes the same, where it must be), which can, and its
    config.json.

    Args:
        preferred: the name of the family that is tried first. families: those that are tried.
        said: how the error calls these families, and what to do (`Lost.error`).

    Raises:
        CheckpointError: none can; says what the nearest would lose.
    """
    nearest_miss: Lost | None = None
    for same in equivalents(model):
        found = _find(same.config, preferred, families)
        if not isinstance(found, Lost):
            return same, *found
        if nearest_miss is None or len(found.settings) < len(nearest_miss.settings):
            nearest_miss = found
    assert nearest_miss is not None
    raise nearest_miss.error(model.config, **said)


def _find(
    tree: Tree, preferred: str | None, families: Sequence[Family] = FAMILIES
) -> tuple[Family, dict[str, Any]] | Lost:
    known = {family.name: family for family in families}
    if preferred is not None and preferred not in known:
        raise CheckpointError(f"no family is called '{preferred}'", nearest(preferred, known))
    if isinstance(tree, config.EncoderOnly) and isinstance(tree.head, config.SentenceEmbedding):
        # Pooling and normalization have files of their own; the encoder is a model without a head.
        tree = tree.model_copy(update={"head": config.NoHead()})
    if isinstance(tree, config.EncoderOnly) and not tree.encoder.layers:
        return Lost(FIRST_CHOICE[tree.kind], ("encoder.layers = 0 would have to be 1 or more",))
    order = [name for name in (preferred, FIRST_CHOICE[tree.kind]) if name in known]
    misses: list[Lost] = []
    for name in dict.fromkeys([*order, *known]):
        settings, lost = _attempt(known[name], tree)
        if settings is not None and not lost:
            return known[name], settings
        if lost:
            # What is lost in every layer is said once.
            once = dict.fromkeys(re.sub(r"blocks\[\d+\]", "block", each) for each in lost)
            misses.append(Lost(name, tuple(once)))
    return min(misses, key=lambda miss: len(miss.settings), default=Lost())


def _attempt(family: Family, tree: Tree) -> tuple[dict[str, Any] | None, list[str]]:
    """The family's config of the tree, if it has one, and what that would lose."""
    settings = family.write(tree)
    if settings is None:
        return None, []
    try:
        again = read_tree(family, settings)
    except SublayerError as error:
        return None, [str(error)]
    if family.settle is not None and lost(canonical(tree), canonical(again)):
        again = family.settle(again, {name for rule in family.rules(tree) for name in rule.theirs})
    return settings, lost(canonical(tree), canonical(again))


def _tokens_of(tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The special tokens of a model that was trained here."""
    if tokenizer is None:
        return {}
    roles = tokenizer.specials
    end = () if roles.end is None else (roles.end,)
    return SpecialTokens(start=roles.start, beginning=roles.start, end=end, padding=roles.pad).write()


def _write_tensors(folder: Path, model: Transformer, family: Family, shard_bytes: int) -> None:
    """All tensors, one file after the other: beside the model there is never more than one file's in memory."""
    shards = _shards(model, list(family.rules(model.config)), shard_bytes)
    fixed = _fixed(model, family)
    if len(shards) == 1:
        write_tensors(folder / "model.safetensors", _theirs(model, shards[0]) | fixed)
        return
    table: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = _theirs(model, shard) | (fixed if number == 1 else {})
        write_tensors(folder / name, tensors)
        table |= dict.fromkeys(tensors, name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": table})


def _shards(model: Transformer, rules: list[Rule], shard_bytes: int) -> list[list[Rule]]:
    """The rules, in groups whose tensors go into one file."""
    shards: list[list[Rule]] = [[]]
    held = 0
    for rule in rules:
        size = sum(model.get_parameter(name).nbytes for name in rule.ours)
        if shards[-1] and held + size > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(rule)
        held += size
    return shards


@torch.no_grad()
def _theirs(model: Transformer, rules: list[Rule]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for rule in rules:
        ours = [model.get_parameter(name).detach().cpu() for name in rule.ours]
        found |= dict(zip(rule.theirs, rule.write(ours), strict=True))
    return found


def _fixed(model: Transformer, family: Family) -> dict[str, Tensor]:
    """Tables that follow from the config, in the model's type, by way of float32 as libraries make them."""
    dtype = next(model.parameters()).dtype
    widest = torch.promote_types(dtype, torch.float32)
    return {name: table.to(widest).to(dtype, copy=True) for name, table in family.fixed(model.config).items()}


def _write_tokenizer(tokenizer: Tokenizer, folder: Path, tree: Tree) -> None:
    """The one place where a tokenizer leaves in the form of other libraries."""
    from sublayer.text.export import export as export_tokenizer

    export_tokenizer(
        tokenizer,
        folder,
        max_length=_longest(tree),
        token_type_ids=isinstance(tree, config.EncoderOnly) and tree.embedding.token_types > 1,
        side="left" if isinstance(tree, config.DecoderOnly) else "right",
    )


def _longest(tree: Tree) -> int:
    """The longest text that is read whole: what an embedder cuts, others refuse."""
    head = tree.head if isinstance(tree, config.EncoderOnly) else None
    cut = head.longest if isinstance(head, config.SentenceEmbedding) else None
    return tree.max_length if cut is None else min(cut, tree.max_length)
