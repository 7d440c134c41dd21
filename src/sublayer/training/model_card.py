"""The model card: what a stranger who finds the folder needs to know."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from sublayer import config
from sublayer.data import corpora
from sublayer.data.split import Splits
from sublayer.models import Model
from sublayer.tasks import AnyTask, task_of
from sublayer.tasks.objective import shown
from sublayer.tasks.task import Measured
from sublayer.training.metrics import read_metrics


def model_card(
    recipe: config.Recipe, splits: Splits[Any], model: Model, run: Path, evaluated: Measured | None = None
) -> str:
    """Markdown: what it is, how to run it, what it was trained on, and how it did."""
    validation, test = len(splits.validation), len(splits.test)
    c, report, task = recipe.model, splits.train.report, task_of(recipe.task)
    scored = "" if evaluated is None else f"On what was held out: {evaluated}.\n"
    count, again = sum(p.numel() for p in model.parameters()), _overlap(splits)
    return f"""# {recipe.name}

{recipe.description or f"{task.does(recipe)}."}

{_shape(recipe, task)}: width {c.dim}, {c.vocab_size:,} tokens, {count:,} parameters; trained with
sublayer {version("sublayer")} for the task "{task.name()}".{_start(recipe)}
{_use(task, run)}
## Data

{_data(recipe)}
{report.kept:,} training {report.noun}, {validation:,} for validation, {test:,} held out; {again}

## Scores

{_last(run)}{scored}{task.held_out()}

`recipe.toml` holds every setting.
"""


def _overlap(splits: Splits[Any]) -> str:
    report = splits.train.report
    if report.noted:
        return f"of the training text\n{'; '.join(map(str, report.noted))}."
    return f"no\nheld-out {'source sentence' if report.noun == 'pairs' else 'text'} stands in the training text."


def _shape(recipe: config.Recipe, task: AnyTask) -> str:
    c, languages = recipe.model, task.languages(recipe)
    match c:
        case config.EncoderDecoder():
            return f"An encoder-decoder Transformer{languages}, {c.encoder.layers} + {c.decoder.layers} layers"
        case config.DecoderOnly():
            return f"A decoder-only Transformer, {c.decoder.layers} layers"
        case config.RecurrentEncoderDecoder():
            layers = f"{c.encoder.layers} + {c.decoder.layers}"
            return f"A recurrent encoder-decoder ({c.cell.upper()}){languages}, {layers} layers"
        case config.RecurrentDecoderOnly():
            return f"A recurrent language model ({c.cell.upper()}), {c.decoder.layers} layers"
        case config.EncoderOnly():
            return f"An encoder-only Transformer, {c.encoder.layers} layers, with the head '{c.head.type}'"


def _start(recipe: config.Recipe) -> str:
    if recipe.start is None:
        return ""
    if recipe.adapter is not None:
        return (
            f" Low-rank adapters (rank {recipe.adapter.rank}) on the model in {recipe.start.path}, whose weights are "
            "not in this folder: `sublayer merge` makes one model of both."
        )
    what = "vectors of words" if isinstance(recipe.start, config.WordVectors) else "weights"
    return f" It began with the {what} of {recipe.start.path}."


def _use(task: AnyTask, run: Path) -> str:
    python = f"""
    import sublayer
    model = sublayer.load("{run}")
    {task.python}
"""
    return f"""
## Use

    {task.command.format(model=run)}
{python if task.python else ""}"""


def _last(run: Path) -> str:
    """The last validation."""
    checks = [line for line in read_metrics(run / "metrics.jsonl") if "valid/loss" in line]
    if not checks:
        return ""
    found = {name.removeprefix("valid/"): value for name, value in checks[-1].items() if name.startswith("valid/")}
    return (
        f"Last validation: {shown(found)} (the loss in nats per target), "
        f"after {checks[-1]['seconds'] / 60:.1f} minutes of training.\n"
    )


def _data(recipe: config.Recipe) -> str:
    source = recipe.data.source
    named = source.corpora if isinstance(source, config.SeveralCorpora) else (source,)
    found = [corpora.find(each.name) for each in named if isinstance(each, config.NamedCorpus)]
    if not found:
        return "The user's own text."
    # A corpus may be named once for each of its parts.
    told = [f"{one.title}. Licence: {one.licence} ({one.licence_url}). {one.attribution}" for one in found]
    return "\n\n".join(dict.fromkeys(told))
