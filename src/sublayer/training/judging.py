"""A trained model judged on text that was held out, by the measures that its training was watched with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sublayer import config
from sublayer.config.load import load_recipe
from sublayer.data.held_out import read_rows
from sublayer.data.split import Splits
from sublayer.data.tasks import AnyTable, encode_for
from sublayer.hub import folder as model_folder
from sublayer.training.objective import shown
from sublayer.training.work import Work, labels, objective

CONTEXT = 1024
"""Tokens that a language model is judged in at most, where no recipe says how many it was trained with."""


@dataclass(frozen=True)
class Judged:
    """scores: by the keys of `objective.MEASURES`. count: of how many `noun`. table: all that were asked for."""

    scores: dict[str, float]
    count: int
    noun: str
    table: Any

    def __str__(self) -> str:
        return f"{shown(self.scores)} ({self.count:,} {self.noun})"


def judge(model: Any, work: Work, table: AnyTable) -> Judged:
    """What the task of `work` measures, on the rows of `table` that fit; nothing is changed in the model.

    Raises:
        DataError: no row fits, or one has a label that the model does not know.
    """
    recipe = work.recipe
    examples = encode_for(
        recipe.task, table, work.tokenizer, recipe.data.max_length, labels(recipe.model), recipe.decoding
    )
    asked = replace(work, splits=replace(work.splits, validation=table), validation=examples)
    return Judged(objective(asked).evaluate(model), examples.report.kept, examples.report.noun, table)


def judge_folder(folder: Path, data: Path | None, device: Any) -> Judged:
    """The model in a folder, on the rows that were held out when it was trained, or on a file (`held_out.read_rows`).

    Raises:
        CheckpointError: there is no whole model. DataError: as in `judge`, or the text cannot be read.
        ConfigError: no recipe says what the model is for, and nor does its shape.
    """
    found = model_folder.read(folder, device)
    recipe = recipe_of(model_folder.find(folder), found.model.config)
    table = read_rows(recipe.task, model_folder.find(folder) / "test.jsonl" if data is None else data)
    # Weights of labels belong to the training, and so does what they are counted from.
    task = recipe.task
    if isinstance(task, config.ClassificationTask):
        task = task.model_copy(update={"weights": config.EqualWeights()})
    recipe = recipe.model_copy(update={"task": task, "model": found.model.config})
    examples: Any = encode_for(task, table, found.tokenizer, recipe.data.max_length, labels(recipe.model))
    return judge(found.model, Work(recipe, Splits(table, table, table), found.tokenizer, examples, examples), table)


def recipe_of(folder: Path, model: config.Model) -> config.Recipe:
    """The recipe in a model folder; of a model that came from elsewhere one that says what its shape is for.

    Raises:
        ConfigError: the recipe is damaged, or the model's shape says nothing of its task.
    """
    written = folder / "recipe.toml"
    if written.is_file() and "[training" in written.read_text(encoding="utf-8"):
        return load_recipe(str(written)).recipe
    task: dict[str, Any] = {"type": TASKS[model.head.type if isinstance(model, config.EncoderOnly) else model.kind]}
    room = min(model.max_length, CONTEXT)
    if task["type"] == "causal":
        task["evaluation_stride"] = max(room // 2, 1)
    source = {"type": "corpus", "name": "none"}
    return config.Recipe.parse(
        {
            "name": "judged",
            "task": task,
            "data": {"source": source, "max_length": room},
            "model": model.plain(),
            "training": {"steps": 1},
        },
        str(folder),
    )


TASKS = {
    "encoder-decoder": "translation",
    "decoder-only": "causal",
    "recurrent-encoder-decoder": "translation",
    "recurrent-decoder-only": "causal",
    "masked-language": "masked",
    "classification": "classification",
    "tagging": "tagging",
    "sentence-embedding": "embedding",
}
"""What a model is judged by, by its shape or the head of an encoder, where no recipe says it."""
