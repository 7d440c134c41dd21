"""What `describe` is asked about: a preset, a recipe or a model folder, as one kind of value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from sublayer.config import PRESETS, Checkpoint, Decoding, Model, Training
from sublayer.config.folders import model_file
from sublayer.config.load import load_recipe, read_toml, resolve, shipped_recipes
from sublayer.config.part import Part
from sublayer.errors import CheckpointError, ConfigError, nearest
from sublayer.untrusted import expanded, is_file, is_folder, read_object


@dataclass(frozen=True)
class DescribedModel:
    """A model with what it is trained and used with.

    name: what the user called it. tree: the whole configuration behind it.
    note: what the parameters were counted with, where that is not the tree as it stands. folder: where its weights are.
    """

    name: str
    tree: Part
    model: Model
    training: Training
    decoding: Decoding
    note: str = ""
    folder: Path | None = None


class Bare(Part):
    """A model without a recipe, which still can be trained and used as any recipe would by default."""

    model: Model
    training: Training
    decoding: Decoding = Decoding()


def find_model(what: str, overrides: Sequence[str]) -> DescribedModel:
    """The model called `what`: a preset's name first, then a model folder, then a recipe.

    Raises:
        ConfigError: there is no such thing, or it is wrong. CheckpointError: a folder that holds no model.
    """
    if what in PRESETS:
        return _bare(what, f"preset {what}", {"model": {"preset": what}, "training": {"steps": 1}}, overrides)
    path = expanded(what)
    if is_folder(path):
        return _folder(what, path, overrides)
    if not is_file(path) and what.removesuffix(".toml") not in shipped_recipes():
        known = [*PRESETS, *shipped_recipes()]
        raise ConfigError(f"there is no preset, recipe or model folder '{what}'", nearest(path.stem, known))
    recipe = load_recipe(what, overrides).recipe
    size = recipe.tokenizer.vocab_size
    if isinstance(recipe.start, Checkpoint):
        size = recipe.model.vocab_size
        note = f" (with the vocabulary of {recipe.start.path}: {size:,})"
    elif size is None:
        size = recipe.model.vocab_size
        note = f" (with a vocabulary of {size:,}; training takes as many {recipe.tokenizer.type} as the text has)"
    else:
        note = f" (with the tokenizer's vocabulary of {size:,})"
    model = recipe.model.model_copy(update={"vocab_size": size})
    return DescribedModel(what, recipe, model, recipe.training, recipe.decoding, note)


def _folder(what: str, path: Path, overrides: Sequence[str]) -> DescribedModel:
    file = model_file(path)
    if file is None:
        raise CheckpointError(
            f"{path} is not a model folder: it has no config.json", "Name a preset, a recipe or a model folder."
        )
    model = read_object(file, remedy="Train again, or copy the folder anew.").get("model")
    if not isinstance(model, dict):
        raise CheckpointError(f"{file} has no table 'model'", "Copy the folder anew, or name another.")
    recipe = file.with_name("recipe.toml")
    kept = read_toml(recipe) if is_file(recipe) else {}
    trained = {key: kept[key] for key in ("training", "decoding") if key in kept}
    whole = {"training": {"steps": 1}, **trained, "model": cast("dict[str, Any]", model)}
    return replace(_bare(what, str(file), whole, overrides), folder=file.parent)


def _bare(what: str, where: str, data: dict[str, Any], overrides: Sequence[str]) -> DescribedModel:
    resolved, problems = resolve(data, overrides)
    where = " ".join([where, *(f"--set {override}" for override in overrides)])
    bare = Bare.parse(resolved, where, problems)
    return DescribedModel(what, bare.model, bare.model, bare.training, bare.decoding)
