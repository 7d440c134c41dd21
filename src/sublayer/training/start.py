"""What a model begins with: the weights of another model, or vectors of words from a file."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sublayer import config, files
from sublayer.errors import CheckpointError, ConfigError, DataError
from sublayer.hub import folder as model_folder
from sublayer.hub.adapted import Base, weights_sum
from sublayer.hub.canonical import canonical, lost
from sublayer.models import Model
from sublayer.nn.adapter import kinds
from sublayer.tasks.task import head_labels
from sublayer.text import Tokenizer
from sublayer.text.word_vectors import read_vectors

HEADS = ("head", "output", "pooler")
"""Where the parameters stand that may be new when a model begins with the weights of another."""


@dataclass(frozen=True)
class Start:
    """What a model began with.

    begun: the recipe's `start`, with the sum of what stood there. base: its place. told: what it gave, for a person.
    fresh: the names of the parameters that are not from there. decoding, imported: as in `hub.folder.ModelBundle`.
    """

    begun: config.Checkpoint | config.WordVectors
    base: Base
    told: list[str]
    fresh: list[str] = field(default_factory=list[str])
    decoding: Mapping[str, Any] = field(default_factory=dict[str, Any])
    imported: Mapping[str, Any] = field(default_factory=dict[str, Any])


def begin_from(model: Model, start: config.Checkpoint | config.WordVectors, tokenizer: Tokenizer) -> Start:
    """Give `model` what the recipe says it begins with.

    Args:
        tokenizer: the model's, by which words have their rows.

    Raises:
        ConfigError: `start.only` names nothing, or the vectors are not as wide as the model's.
        CheckpointError: there is no whole model, it has other weights than those that `start` asks for, or it is
            another but for its head.
        DataError: the vectors cannot be read, are others than those that `start` asks for, or know no word.
    """
    if isinstance(start, config.WordVectors):
        return _from_vectors(model, start, tokenizer)
    return _from_checkpoint(model, start)


def _from_checkpoint(model: Model, start: config.Checkpoint) -> Start:
    """The weights of another model; a head of another kind, or for other labels, keeps those it has."""
    path = Path(start.path)
    folder = model_folder.find(path).resolve()
    held = weights_sum(folder)
    if start.sha256 not in (None, held):
        raise CheckpointError(
            f"the weights in {path} have the SHA-256 {held[:12]}…, and start.sha256 is {start.sha256[:12]}…",
            "Put back the model that was there, or start another run.",
        )
    bundle = model_folder.read(folder)
    found = bundle.model
    theirs, own = dict(found.named_parameters()), dict(model.named_parameters())
    # A layer of another head may have the name and the shape of one of ours, and means something else.
    same_head = _head(found.config) == _head(model.config)
    chosen = _named(start.only or ("*",), own)
    missing = [
        name
        for name in chosen
        if name not in theirs or theirs[name].shape != own[name].shape or (name.startswith("head.") and not same_head)
    ]
    # A head of another kind begins anew, unless it was asked for.
    wrong = [name for name in missing if start.only is not None or name.partition(".")[0] not in HEADS]
    if wrong:
        raise CheckpointError(
            f"the model in {path} is not the one that the recipe describes: {', '.join(wrong[:5])}",
            "Leave out of [model] whatever start.path already says, or name in start.only what is to be taken.",
        )
    taken = set(chosen) - set(missing)
    with torch.no_grad():
        for name in taken:
            own[name].copy_(theirs[name])
    fresh = [name for name in own if name not in taken]
    begun = start.model_copy(update={"sha256": held})
    # Where only parts are taken, the rest is another model on purpose.
    unlike = _unlike(found.config, model.config) if start.only is None else []
    new = f"; new: {', '.join(fresh)}" if fresh else ""
    told = [f"weights of {start.path}{new}"]
    if unlike:
        # Heads, rotations: meant or not, it is said.
        told.append(f"the recipe's model is not quite that one: {'; '.join(unlike)}")
    return Start(begun, Base(str(folder), held), told, fresh, bundle.decoding, bundle.imported)


def _from_vectors(model: Model, start: config.WordVectors, tokenizer: Tokenizer) -> Start:
    """The vectors of the words that the tokenizer knows, in every table of tokens; other words keep what they have.

    Files differ in how large their numbers are, and what a recipe is tuned for is the size of its own: the vectors are
    scaled to the standard deviation that the table begins with.
    """
    path = Path(start.path)
    found = _first_of_each(read_vectors(path, start.words), tokenizer)
    held = files.sha256(path)
    if start.sha256 not in (None, held):
        raise DataError(
            f"the vectors in {path} have the SHA-256 {held[:12]}…, and start.sha256 is {start.sha256[:12]}…",
            "Put back the file that was there, or start another run.",
        )
    if not found:
        raise DataError(f"{path} has a vector for no word of the text", "Check its language and its case.")
    rows, vectors = torch.tensor([*found]), torch.from_numpy(np.stack([*found.values()]))
    tables = [weight for name, weight in model.named_parameters() if name.endswith("embedding.tokens.weight")]
    for table in tables:
        if table.shape[1] != vectors.shape[1]:
            raise ConfigError(
                f"the vectors in {path} have {vectors.shape[1]} numbers, and those of the model {table.shape[1]}",
                f"Set model.embedding.width = {vectors.shape[1]}.",
            )
        with torch.no_grad():
            table[rows] = (vectors * (float(table.std()) / float(vectors.std()))).to(table)
    told = f"vectors of {len(found):,} of {tokenizer.vocab_size:,} tokens: {start.path}"
    return Start(start.model_copy(update={"sha256": held}), Base(str(path.resolve()), held), [told])


def _first_of_each(
    vectors: Iterable[tuple[str, NDArray[np.float32]]], tokenizer: Tokenizer
) -> dict[int, NDArray[np.float32]]:
    """For each token that is a word of the file its vector: the first, where several are one once normalized."""
    found: dict[int, NDArray[np.float32]] = {}
    rest = iter(vectors)
    while some := list(islice(rest, 10_000)):
        for (_, vector), ids in zip(some, tokenizer.encode([word for word, _ in some]), strict=True):
            if len(ids) == 1 and ids[0] != tokenizer.unknown_id:
                found.setdefault(ids[0], vector)
    return found


def _named(patterns: Sequence[str], names: Collection[str]) -> list[str]:
    """The parameters that `start.only` names."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"start.only: '{pattern}' names no parameter", f"There are {kinds(names)}.")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _unlike(one: config.Model, other: config.Model) -> list[str]:
    """Where two trees differ, but for their heads; what differs in every layer once."""
    found = lost(_rounded(canonical(one)), _rounded(canonical(other)))
    kept = [each for each in found if not each.startswith(HEADS)]
    return list(dict.fromkeys(re.sub(r"blocks\[\d+\]", "blocks", each) for each in kept))


def _rounded(data: Any) -> Any:
    """Plain data with numbers to six digits: elsewhere they may have been kept in float32."""
    return json.loads(json.dumps(data), parse_float=lambda digits: float(f"{float(digits):.6g}"))


def _head(c: config.Model) -> tuple[str, tuple[str, ...]]:
    """What a model's head is for."""
    return (c.head.type, head_labels(c)) if isinstance(c, config.EncoderOnly) else ("", ())
