"""From a recipe to everything that its task needs: text read, split and encoded, labels, tokenizer, objective."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sublayer import config
from sublayer.config.difference import differences, is_path
from sublayer.data.batch import AnyBatch
from sublayer.data.examples.interface import Examples
from sublayer.data.filters import clean
from sublayer.data.report import Report
from sublayer.data.shards.index import HELD_OUT, Shards
from sublayer.data.shards.windows import Windows
from sublayer.data.split import Splits, split
from sublayer.data.tables.documents import DOCUMENTS
from sublayer.data.tables.table import Table
from sublayer.errors import ConfigError, DataError
from sublayer.hub import folder as model_folder
from sublayer.tasks import AnyTask, task_of
from sublayer.tasks.objective import Objective
from sublayer.tasks.task import Encoding, Material
from sublayer.text import Tokenizer
from sublayer.text.word_vectors import read_vectors
from sublayer.training.distributed.ranks import ALONE, Ranks
from sublayer.training.progress import Reporter


@dataclass(frozen=True)
class TaskData:
    """A recipe and its text.

    recipe: with the vocabulary's size and the labels filled in. splits: the text as it was read; of prepared text the
    training part has a report and no rows. training, validation: the same, as the task shows it to a model.
    """

    recipe: config.Recipe
    splits: Splits[Table[Any]]
    tokenizer: Tokenizer
    training: Examples[AnyBatch] | Windows[AnyBatch]
    validation: Examples[AnyBatch]

    @property
    def task(self) -> AnyTask:
        """What the recipe asks for."""
        return task_of(self.recipe.task)

    @property
    def digest(self) -> str:
        """Of the tokenizer and the training text as ids: what makes the batches, and the model, the same ones."""
        digest = hashlib.blake2b(self.tokenizer.fingerprint.encode(), digest_size=16)
        for array in self.training.arrays():
            digest.update(array.tobytes())
        return digest.hexdigest()


def prepare(
    recipe: config.Recipe, folder: Path, kept: Path | None, reporter: Reporter, ranks: Ranks = ALONE
) -> TaskData:
    """Read, split and encode the text. Of several processes the first makes the tokenizer, and all encode alike.

    Args:
        folder: relative paths start here. kept: the tokenizer of a run that goes on; where it is not there, it is that
            of the model that the recipe starts from, or else one is trained.

    Raises:
        DataError: the processes have read different text.
    """
    task = task_of(recipe.task)
    if recipe.data.shards is not None:
        data = _prepared(recipe, folder / recipe.data.shards, reporter)
        _require_equal(ranks, data)
        return data
    table = task.read(recipe.data.source, folder)
    splits: Splits[Table[Any]] = split(table, recipe.data.split, folder, task.read)
    splits = replace(splits, train=clean(splits.train, recipe.data.filter))
    noun = table.report.noun
    for name, part in (("text", table), ("training", splits.train)):
        if part.report.dropped or part.report.noted:
            reporter.say(f"{name}: {part.report}")
    sizes = [f"{len(part):,}" for part in (splits.train, splits.validation, splits.test)]
    reporter.say(f"{sizes[0]} training {noun}, {sizes[1]} for validation, {sizes[2]} held out")
    recipe = _with_labels(recipe, splits.train)
    tokenizer = None
    if ranks.first:
        found = kept is not None and kept.is_file() and Tokenizer.load(kept)
        tokenizer = found or tokenizer_of(recipe, folder, lambda: splits.train)
    tokenizer = ranks.of_first(tokenizer)
    assert tokenizer is not None
    recipe = _with_vocabulary(recipe, tokenizer)
    encoded: list[Examples[AnyBatch]] = []
    for name, part in (("training", splits.train), ("validation", splits.validation)):
        examples = task.examples(part, Encoding.of(recipe, tokenizer, evaluation=name == "validation"))
        if examples.report.kept < len(part) or examples.report.noted != part.report.noted:
            reporter.say(f"{name}: {examples.report}")
        encoded.append(examples)
    data = TaskData(recipe, splits, tokenizer, *encoded)
    _require_equal(ranks, data)
    return data


def _require_equal(ranks: Ranks, data: TaskData) -> None:
    digests = ranks.all(data.digest) if not ranks.alone else []
    others = [str(rank) for rank, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise DataError(
            f"the text that rank {', '.join(others)} reads is not that of rank 0",
            "Give all machines the same text, under the same path.",
        )


def objective(data: TaskData) -> Objective[AnyBatch]:
    """What the task asks of a model."""
    # No task that reads prepared text asks anything of what is trained on.
    training = None if isinstance(data.training, Windows) else data.training
    material = Material(data.recipe, data.splits.validation, data.validation, data.tokenizer, training)
    return data.task.objective(material)


def tokenizer_of(recipe: config.Recipe, folder: Path, training: Callable[[], Table[Any]]) -> Tokenizer:
    """The tokenizer of the model that the recipe starts from, or else one that is trained on the training text.

    That one also knows the words that have vectors to begin with.
    """
    task = task_of(recipe.task)
    match recipe.start:
        case None:
            return task.train_tokenizer(recipe.tokenizer, training())
        case config.Checkpoint(path=path):
            return task.adopt(Tokenizer.load(model_folder.find(folder / path) / "tokenizer.json"))
        case config.WordVectors(path=path, words=count):
            known = [word for word, _ in read_vectors(folder / path, count)]
            return task.train_tokenizer(recipe.tokenizer, training(), known)


def decisive(recipe: config.Recipe) -> dict[str, Any]:
    """What of a recipe decides which rows prepared text has, and what their ids are, as plain data."""
    plain = recipe.plain()
    data = {name: plain["data"][name] for name in ("source", "split", "filter", "max_length")}
    if task_of(recipe.task).reader is DOCUMENTS:
        del data["max_length"]  # a document goes on in the next row
    return {"task": recipe.task.type, "data": data, "tokenizer": plain["tokenizer"], "start": plain["start"]}


def _prepared(recipe: config.Recipe, folder: Path, reporter: Reporter) -> TaskData:
    """What `prepare` gives, of text that `sublayer data prepare` put into `folder`."""
    task, shards = task_of(recipe.task), Shards.open(folder)
    index, stream = shards.index, task.reader.stream
    found = differences(index.recipe, decisive(recipe))
    other = [f"{where} was {was}, is {now}" for where, (was, now) in found.items() if not is_path(where)]
    if other or stream is None or stream.columns != index.columns:
        said = ", ".join(other) or f"it has {', '.join(index.columns)}"
        raise ConfigError(f"{folder} was prepared for another recipe: {said}", "Prepare the text by this recipe.")
    reporter.busy("reading the prepared text")
    shards.verify()
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    if (tokenizer.fingerprint, tokenizer.vocab_size) != (index.tokenizer, index.vocab_size):
        raise DataError(f"{folder / 'tokenizer.json'} is not what made the ids beside it", "Prepare the text again.")
    recipe = _with_vocabulary(recipe, tokenizer)
    report = index.report.report
    held = [list(shards.held_out(name)) for name in HELD_OUT]
    tables = [stream.table(rows, Report(len(rows), len(rows), noun=report.noun)) for rows in held]
    splits = Splits(stream.table([], report), *tables)
    reporter.say(f"training: {shards.report}")
    reporter.say(f"{len(shards):,} training {report.noun}, {len(held[0]):,} for validation, {len(held[1]):,} held out")
    how = Encoding.of(recipe, tokenizer, evaluation=False)
    training = Windows(shards, partial(task.of_ids, how=how))
    validation = task.examples(splits.validation, Encoding.of(recipe, tokenizer, evaluation=True))
    return TaskData(recipe, splits, tokenizer, training, validation)


def _with_labels(recipe: config.Recipe, training: Table[Any]) -> config.Recipe:
    """The labels are those of the training text, where the recipe (or the model it starts from) names none."""
    head = getattr(recipe.model, "head", None)
    if not isinstance(head, config.Classification | config.Tagging) or head.labels:
        return recipe
    head = head.model_copy(update={"labels": task_of(recipe.task).labels(training)})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"head": head})})


def _with_vocabulary(recipe: config.Recipe, tokenizer: Tokenizer) -> config.Recipe:
    """The vocabulary's size is the tokenizer's: text may be too small to fill the size that was asked for.

    A model from elsewhere may have room for more than its tokenizer knows, and keeps it.
    """
    if isinstance(recipe.start, config.Checkpoint) and recipe.model.vocab_size >= tokenizer.vocab_size:
        return recipe
    model = recipe.model.model_copy(update={"vocab_size": tokenizer.vocab_size})
    return recipe.model_copy(update={"model": model})
