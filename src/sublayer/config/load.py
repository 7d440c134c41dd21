"""Recipes from files: found by name or path, read with their overrides, and written back."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import tomli_w

from sublayer.config.folders import model_file
from sublayer.config.former_names import with_present_names
from sublayer.config.override import overridden, read_override
from sublayer.config.part import UNSET, Part
from sublayer.config.presets import merge, with_preset
from sublayer.config.recipe import Recipe, with_types
from sublayer.errors import ConfigError, nearest
from sublayer.untrusted import expanded, is_file, is_folder, read_bytes, read_object


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and the folder that its relative paths are resolved against: the recipe's own, or of a shipped recipe,
    which stands in nobody's, the one where the command was given.
    """

    recipe: Recipe
    folder: Path


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """The recipe in a file, or the shipped one of that name, with `overrides` such as "training.steps=200".

    An override of `model.preset` counts first, whatever its place: the others are laid on that preset's tree. Where
    the recipe has a `start`, its model is laid on the one that stands there.

    Raises:
        ConfigError: there is no such recipe, it cannot be read, or it is wrong; every problem is named at once.
    """
    path = find_recipe(name_or_path)
    where = " ".join([str(path), *(f"--set {override}" for override in overrides)])
    data, problems = resolve(read_toml(path), overrides)
    folder = path.resolve().parent
    if folder == recipes_folder().resolve():
        folder = Path.cwd()
    return LoadedRecipe(Recipe.parse(_over_start(data, folder), where, problems), folder)


def recipes_folder() -> Path:
    """Where the shipped recipes stand: inside the installed package, or in the checkout that this file is part of."""
    here = Path(__file__).resolve()
    packaged = here.parents[1] / "recipes"
    return packaged if packaged.is_dir() else here.parents[3] / "recipes"


def shipped_recipes() -> list[str]:
    """The names of the shipped recipes, sorted."""
    return sorted(path.stem for path in recipes_folder().glob("*.toml"))


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe: a path first, then the name of a shipped one.

    Raises:
        ConfigError: neither is there; names the nearest shipped recipe.
    """
    path = expanded(name_or_path)
    if is_file(path):
        return path
    name = name_or_path.removesuffix(".toml")
    if name in shipped_recipes():
        return recipes_folder() / f"{name}.toml"
    if is_folder(path):
        raise ConfigError(f"{name_or_path} is a folder, not a recipe", "Name a TOML file or a shipped recipe.")
    raise ConfigError(f"no recipe '{name_or_path}': there is no such file", nearest(path.stem, shipped_recipes()))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: the file cannot be read, is not UTF-8, or is not TOML; names line and column.
    """
    raw = read_bytes(path, ConfigError, "Check its permissions.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _place(raw[: error.start].decode("utf-8"))
        raise ConfigError(
            f"{path}, line {line}, column {column}: byte 0x{raw[error.start]:02x} is not UTF-8",
            "Save the file as UTF-8.",
        ) from None
    try:
        # Editors on Windows may put a byte order mark first, which says nothing in UTF-8 and is not TOML.
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        message = re.sub(r" \(at [^()]*\)$", "", str(error))
        found = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
        line, column = (int(found[1]), int(found[2])) if found else _place(text)
        raise ConfigError(f"{path}, line {line}, column {column}: {message}", "Correct it there.") from None
    except ValueError:
        raise ConfigError(f"{path} has a number of thousands of digits", "Write a smaller one.") from None
    except RecursionError:
        raise ConfigError(f"{path}: its lists or tables are nested too deep", "Flatten them.") from None


def resolve(data: Mapping[str, Any], overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """A recipe's plain data with overrides and preset resolved, and what was wrong with the preset.

    Raises:
        ConfigError: an override cannot be read.
    """
    data, read = with_present_names(data), [with_present_names(read_override(override)) for override in overrides]
    chosen = [{"model": {"preset": preset}} for preset in map(_take_preset, read) if preset is not None]
    whole, problems = with_preset(with_types(overridden(data, chosen[-1:])))
    return overridden(whole, read), problems


def dump_toml(recipe: Part) -> str:
    """`recipe` as TOML that `load_recipe` turns into an equal one.

    Values that are unset are left out, or written as "none" where leaving them out would mean something else.
    """
    return tomli_w.dumps(_written(recipe))


def _take_preset(override: dict[str, Any]) -> Any:
    """The preset that `override` chooses, which is taken out of it, or None."""
    model = override.get("model")
    return cast("dict[str, Any]", model).pop("preset", None) if isinstance(model, dict) else None


def _over_start(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`data` with the model that `start` names under the recipe's own.

    A model that says its kind stands by itself, but for the size of the vocabulary, which goes with the tokenizer.

    Raises:
        ConfigError: there is no readable model.
    """
    start, model = data.get("start"), data.get("model", {})
    told = cast("dict[str, Any]", start) if isinstance(start, dict) else {}
    path = told.get("path") if told.get("type", "checkpoint") == "checkpoint" else None
    if not isinstance(path, str) or not isinstance(model, dict) or {"kind", "vocab_size"} <= model.keys():
        return data
    file = model_file(folder / path)
    if file is None:
        raise ConfigError(
            f"start.path = '{path}' holds no model: there is no config.json in it", "Name a model folder or a run."
        )
    try:
        written = read_object(file, ConfigError, "Copy the folder again, whole.")
        below = {"kind": "encoder-decoder", **with_present_names(written["model"])}
        used = dict(written.get("decoding") or {})
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"start.path: {file} cannot be read ({error})", "Copy the folder again, whole.") from None
    if "kind" in model:
        below = {"vocab_size": below.get("vocab_size")}
    over = {**data, "model": merge(below, cast("dict[str, Any]", model))}
    # How an encoder-decoder begins its texts is learned, and goes with its weights.
    if below.get("kind") == "encoder-decoder" and isinstance(over.get("decoding", {}), dict):
        over["decoding"] = merge(used, cast("dict[str, Any]", over.get("decoding", {})))
    return over


def _place(text: str) -> tuple[int, int]:
    """Line and column, from 1, of the place just after `text`."""
    return text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1


def _written(part: Part) -> dict[str, Any]:
    """`part` as TOML can hold it: without None, which is left out where it is the default and spelled out elsewhere."""
    table: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if value is not None:
            table[name] = _plain(value)
        elif field.default is not None:
            table[name] = UNSET
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[Any, ...]", value)]
    return _written(value) if isinstance(value, Part) else value
