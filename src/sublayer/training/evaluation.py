"""A trained model evaluated on text that was held out: what `sublayer evaluate` does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sublayer import config
from sublayer.config.load import load_recipe
from sublayer.errors import ConfigError
from sublayer.generation.translator import Translator
from sublayer.hub import folder as model_folder
from sublayer.hub.loading import let_go
from sublayer.tasks import AnyTask, task_named, task_of, usual_task
from sublayer.tasks.held_out import read_rows
from sublayer.tasks.task import Scored, Scoring

CONTEXT = 1024
"""Tokens that a language model is evaluated in at most, where no recipe says how many it was trained with."""


@dataclass(frozen=True)
class EvaluatedModel:
    """A model that is evaluated. recipe: how it came about; or, of one from elsewhere, what its shape is for."""

    folder: Path
    loaded: Any
    recipe: config.Recipe

    @property
    def task(self) -> AnyTask:
        """What it is evaluated at."""
        return task_of(self.recipe.task)


def read_model(
    path: Path, device: Any, asked: str | None = None, weights: config.Weights | None = None
) -> EvaluatedModel:
    """The model in a folder, read once, with its recipe.

    Args:
        asked: the task that it is evaluated at, where no recipe says it. weights: as in `load`.

    Raises:
        CheckpointError: there is no whole model. ConfigError: no recipe says what the model is for, and nor does its
            shape; or it does not do what is asked.
    """
    bundle = model_folder.read(path, device)
    folder = model_folder.find(path)
    loaded = model_folder.ready(bundle, path, weights=weights)
    # A language model's loss is the modules' business.
    if isinstance(loaded, Translator):
        let_go(loaded, folder)
    recipe = recipe_of(folder, bundle.model.config, asked)
    return EvaluatedModel(folder, loaded, recipe.model_copy(update={"model": bundle.model.config}))


def evaluate(evaluated: EvaluatedModel, data: Path | None, how: Scoring) -> Scored:
    """The scores of a model on what was held out when it was trained, or on a file (`held_out.read_rows`).

    Raises:
        DataError: the text cannot be read, or no row of it fits. ConfigError: as in `Task.score`.
    """
    path = evaluated.folder / "test.jsonl" if data is None else data
    return evaluated.task.score(evaluated.loaded, evaluated.recipe, read_rows(evaluated.task, path), how)


def recipe_of(folder: Path, model: config.Model, asked: str | None = None) -> config.Recipe:
    """The recipe in a model folder; of a model that came from elsewhere one that says what it is `asked`, or what its
    shape is for.

    Raises:
        ConfigError: the recipe is damaged or says otherwise, or the model's shape says nothing of its task.
    """
    written = folder / "recipe.toml"
    if written.is_file() and "[training" in written.read_text(encoding="utf-8"):
        recipe = load_recipe(str(written)).recipe
        if asked not in (None, recipe.task.type):
            raise ConfigError(f"--task = {asked}, but {folder} was trained for '{recipe.task.type}'", "Leave it away.")
        return recipe
    task = usual_task(model) if asked is None else task_named(asked)
    if task is None:
        raise ConfigError(f"nothing says what {folder} is for", "Train it for a task.")
    room, kind = min(model.max_length, CONTEXT), task.kind.sources[0]
    # Nothing is read from it: whoever evaluates the model names a file.
    source = {"type": kind, "name" if kind == "corpus" else "path": "none"}
    return config.Recipe.parse(
        {
            "name": "evaluated",
            "task": task.without_recipe(room),
            "data": {"source": source, "max_length": room},
            "model": model.plain(),
            "training": {"steps": 1},
        },
        str(folder),
    )
