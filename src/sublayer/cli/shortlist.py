"""`sublayer shortlist`: the few tokens that each translation chooses among, and what that costs and gains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sublayer.cli.arguments import ModelFolder, Threads, WeightFormat
from sublayer.cli.terminal import console, say

if TYPE_CHECKING:
    from sublayer.generation.shortlist import Shortlist
    from sublayer.generation.translator import Translator
    from sublayer.training.task_data import TaskData


def shortlist(
    model: ModelFolder,
    *,
    candidates: Annotated[int, typer.Option(min=1, help="Target tokens to keep for each source token.")] = 50,
    frequent: Annotated[int, typer.Option(min=0, help="Most frequent tokens to allow in every translation.")] = 200,
    weights: WeightFormat = None,
    threads: Threads = None,
) -> None:
    """Make a vocabulary shortlist from the model's training text; score the held-out text with it and without.

    For each source token it keeps the target tokens that IBM Model 1 finds most probable. It is written into the
    model's folder, where `sublayer translate --shortlist` finds it.

    Example: sublayer shortlist runs/demo
    """
    from sublayer.generation.shortlist import write_shortlist
    from sublayer.hub.loading import load_translator
    from sublayer.hub.location import find
    from sublayer.tasks.held_out import read_rows
    from sublayer.tasks.task import Scoring

    folder = find(model)
    translator = load_translator(folder, "cpu", weights)
    data = _training_text(folder)
    found = _build(data, translator, candidates, frequent)
    listed = translator.with_shortlist(found)
    say(f"Written to {write_shortlist(folder, found)}")
    table = read_rows(data.task, folder / "test.jsonl")
    for name, each in (("all tokens", translator), ("shortlist", listed)):
        lines = data.task.score(each, data.recipe, table, Scoring()).lines
        # Without the signatures, which are the same.
        told = [f"{what} {value.partition('   ')[0]}" for what, value in lines.items()]
        say(f"{name:10}  {'   '.join(told)}")
    sizes = [int(found.of([source], ())[1].sum()) for source in translator.encode(list(dict.fromkeys(table.texts())))]
    say(f"A translation chooses among {sum(sizes) / len(sizes):,.0f} of {translator.vocab_size:,} tokens on average")


def _training_text(folder: Path) -> TaskData:
    """What the model was trained on.

    Raises:
        ConfigError: no recipe says it, or it was not pairs of texts. DataError: it is not there.
    """
    from sublayer.config.load import load_recipe
    from sublayer.data.encoding import EncodedPairs
    from sublayer.errors import ConfigError
    from sublayer.training.progress import reporter
    from sublayer.training.task_data import prepare

    remedy = "Name the folder of a run of `sublayer train`."
    recipe = folder / "recipe.toml"
    if not recipe.is_file() or "[training" not in recipe.read_text(encoding="utf-8"):
        raise ConfigError(f"{folder} does not say what the model was trained on", remedy)
    loaded = load_recipe(str(recipe))
    data = prepare(loaded.recipe, loaded.folder, folder / "tokenizer.json", reporter())
    if not isinstance(data.training, EncodedPairs):
        raise ConfigError(f"{folder} was not trained on pairs of texts", remedy)
    return data


def _build(data: TaskData, translator: Translator, candidates: int, frequent: int) -> Shortlist:
    from sublayer.data.encoding import EncodedPairs
    from sublayer.generation.shortlist import build

    pairs = data.training
    assert isinstance(pairs, EncodedPairs)
    with console(stderr=True).status("looking for the most probable tokens"):
        return build(
            (pairs.sources.tokens, pairs.sources.starts),
            (pairs.targets.tokens, pairs.targets.starts),
            translator.vocab_size,
            translator.tokenizer.fingerprint,
            each=candidates,
            frequent=frequent,
        )
