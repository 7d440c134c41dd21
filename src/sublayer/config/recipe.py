"""The typed tree of a recipe: everything that decides how a trained model comes about.

A recipe is one TOML file. `sublayer schema` writes its JSON schema, so that an editor completes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, PositiveInt, model_validator

from sublayer.config.adapter import LowRank
from sublayer.config.data import Data
from sublayer.config.decoding import Decoding
from sublayer.config.model import (
    CELLS,
    EncoderOnly,
    MixtureOfExperts,
    Model,
    RecurrentDecoderOnly,
    RecurrentEncoderDecoder,
)
from sublayer.config.part import Part, Seed
from sublayer.config.presets import with_preset
from sublayer.config.shape import shape_of
from sublayer.config.task import Task, TranslationTask
from sublayer.config.tokenizer import Subwords, TokenizerRecipe, Words
from sublayer.config.training import Muon, Training

__all__ = ["Checkpoint", "Recipe", "WordVectors"]


class Checkpoint(Part):
    """Weights, vocabulary and tokenizer of a model folder, or of the run that made it.

    path: that folder. sha256: of its weights; others are refused. Unset means whichever stand there when a run begins,
    which writes it down. only: shell patterns over the names of parameters ("*" crosses dots): the others are drawn at
    random, and may have any shape. ["*.embedding.tokens.weight"] takes the tokens' vectors. Unset means all, but for a
    head of another kind.
    """

    type: Literal["checkpoint"] = "checkpoint"
    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    only: Annotated[tuple[str, ...], Field(min_length=1)] | None = None


class WordVectors(Part):
    """Vectors of whole words, from a text file as word2vec, GloVe and fastText write them (*.gz and *.zst as well).

    Every word of the file is known then, beside those of the training text, which begin with random vectors where the
    file has none. The vectors are scaled to the size that random ones have, and learn on.

    path: that file. words: take the first so many, which are the most frequent; unset means all. sha256: of the file;
    another is refused. Unset means whichever stands there when a run begins, which writes it down.
    """

    type: Literal["vectors"] = "vectors"
    path: str
    words: PositiveInt | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class Recipe(Part):
    """The root: text in, a trained model out.

    start: begin with the weights of another model; its tokenizer is taken, and its tree too, on which the keys of
    `model` are laid (a `model` that says its `kind` stands by itself). Or, with type = "vectors", begin with vectors of
    words from a file. Unset means weights drawn at random.
    adapter: learn low-rank adapters beside the weights of `start`, which stay as they are; a head that is new learns
    whole. Unset means that all weights learn.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str = ""
    seed: Seed = 1
    task: Task = TranslationTask()
    data: Data
    tokenizer: TokenizerRecipe = Subwords()
    start: Annotated[Checkpoint | WordVectors, Field(discriminator="type")] | None = None
    adapter: LowRank | None = None
    model: Model
    training: Training
    decoding: Decoding = Decoding()

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str, problems: Sequence[str] = ()) -> Self:
        """As `Part.parse`, with the preset that `data` may name, and the kind of model and the type of tokenizer that
        are meant where it does not say."""
        data, wrong = with_preset(data)
        wrong += _cell_problems(data)
        return super().parse(with_types(with_kind(data)), where, [*problems, *wrong])

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.data.max_length > self.model.max_length:
            raise ValueError(
                f"data.max_length = {self.data.max_length} is more than model.max_length = {self.model.max_length}"
            )
        if self.data.max_length < self.task.shortest:
            raise ValueError(f"data.max_length = {self.data.max_length} is less than {self.task.shortest}")
        return self

    @model_validator(mode="after")
    def _hidden_blocks_fit(self) -> Self:
        size = self.training.optimizer.hidden_block if isinstance(self.training.optimizer, Muon) else None
        stacks = {} if isinstance(self.model, RecurrentEncoderDecoder | RecurrentDecoderOnly) else self.model.stacks
        for name, (stack, _) in stacks.items():
            for network in (block.feed_forward for block in stack.blocks):
                if size is not None and not isinstance(network, MixtureOfExperts) and network.hidden % size:
                    raise ValueError(
                        f"model.{name}.block.feed_forward.hidden = {network.hidden} is not a multiple of "
                        f"training.optimizer.hidden_block = {size}"
                    )
        return self

    @model_validator(mode="after")
    def _task_fits(self) -> Self:
        task, model = self.task, self.model
        if model.kind not in task.kinds:
            alike = [kind for kind in task.kinds if (kind in RECURRENT) == (model.kind in RECURRENT)]
            known = [*alike, *task.kinds][0]
            raise ValueError(f"task '{task.type}' trains model.kind = '{known}', not '{model.kind}'")
        if isinstance(model, EncoderOnly) and model.head.type != task.head:
            raise ValueError(f"task '{task.type}' needs model.head.type = '{task.head}', not '{model.head.type}'")
        for where, source in self.data.every_source().items():
            if source.type not in task.sources:
                known = ", ".join(f"'{each}'" for each in task.sources)
                raise ValueError(f"task '{task.type}' reads {where}.type = {known}, not '{source.type}'")
        stopping = self.training.early_stopping
        if stopping is not None and stopping.metric not in task.metrics:
            known = ", ".join(f"'{each}'" for each in task.metrics)
            raise ValueError(
                f"task '{task.type}' measures {known}: training.early_stopping.metric cannot be '{stopping.metric}'"
            )
        if isinstance(self.start, Checkpoint) and self.tokenizer != Subwords():
            raise ValueError("tokenizer is set, but start.path brings a tokenizer of its own")
        if isinstance(self.start, WordVectors) and not isinstance(self.tokenizer, Words):
            raise ValueError(f"start.type = 'vectors' needs tokenizer.type = 'words', not '{self.tokenizer.type}'")
        if self.adapter is not None and not isinstance(self.start, Checkpoint):
            raise ValueError("adapter is set, but start names no model: name the one to adapt, start.path = '...'")
        task.check(self.data, model)
        return self


def with_kind(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain data with `kind` where `model` leaves it out: encoder-decoder.

    A cell's name as `kind` ("lstm", say) is the recurrent network that does what the task asks, of such cells.
    """
    model = data.get("model")
    if not isinstance(model, Mapping):
        return dict(data)
    table = dict(cast("Mapping[str, Any]", model))
    if table.get("kind") in CELLS:
        table = {**table, "kind": _recurrent_kind(data) or RECURRENT[0], "cell": table["kind"]}
    return {**data, "model": {"kind": "encoder-decoder", **table}}


def with_types(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain data with the type that is meant where it does not say: a tokenizer of byte-level BPE, and
    another model to start from."""
    usual = {"tokenizer": "bpe", "start": "checkpoint"}
    tables = {name: data[name] for name in usual if isinstance(data.get(name), Mapping)}
    return {**data, **{name: {"type": usual[name], **table} for name, table in tables.items()}}


RECURRENT = ("recurrent-encoder-decoder", "recurrent-decoder-only")


def _recurrent_kind(data: Mapping[str, Any]) -> str | None:
    """The kind of recurrent network that does what a recipe's task asks; None where none does."""
    task = data.get("task", {})
    name = cast("Mapping[str, Any]", task).get("type", "translation") if isinstance(task, Mapping) else None
    tasks = shape_of(Task).variants
    kinds = getattr(tasks[name], "kinds", ()) if isinstance(name, str) and name in tasks else RECURRENT
    return next((kind for kind in kinds if kind in RECURRENT), None)


def _cell_problems(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with a model whose kind is a cell's name, which the tree that it stands for no longer shows."""
    model = data.get("model")
    if not isinstance(model, Mapping):
        return []
    table = cast("Mapping[str, Any]", model)
    kind = table.get("kind")
    if kind not in CELLS:
        return []
    if table.get("cell", kind) != kind:
        return [f"model.cell = {table['cell']!r} is not model.kind = {kind!r}; leave it out"]
    if _recurrent_kind(data) is None:
        return [f"model.kind = {kind!r}: no recurrent network does what task '{data['task']['type']}' asks"]
    return []
