"""The model card: what a stranger who finds the folder needs to know."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any, assert_never

from sublayer import config
from sublayer.data import corpora
from sublayer.data.split import Splits
from sublayer.hub.pulling import USES
from sublayer.models import Model
from sublayer.training.judging import Judged
from sublayer.training.metrics import read_metrics
from sublayer.training.objective import shown


def model_card(
    recipe: config.Recipe, splits: Splits[Any], model: Model, run: Path, judged: Judged | None = None
) -> str:
    """Markdown: what it is, how to run it, what it was trained on, and how it did."""
    c, noun = recipe.model, splits.train.report.noun
    count = sum(p.numel() for p in model.parameters())
    same = "source sentence" if noun == "pairs" else "text"
    return f"""# {recipe.name}

{recipe.description or f"{_does(recipe)}."}

{_shape(recipe)}: width {c.dim}, {c.vocab_size:,} tokens, {count:,} parameters; trained with
sublayer {version("sublayer")} for the task "{recipe.task.type}".{_start(recipe)}
{_use(recipe, run)}
## Data

{_data(recipe)}
{len(splits.train):,} training {noun}, {len(splits.validation):,} for validation, {len(splits.test):,} held out; no
held-out {same} stands in the training text.

## Scores

{_last(run)}{_scored(recipe, judged)}

`recipe.toml` holds every setting.
"""


def _does(recipe: config.Recipe) -> str:
    """What the model does, in a sentence without its end."""
    task = recipe.task
    match task:
        case config.TranslationTask():
            return f"Translates {recipe.data.source_language} to {recipe.data.target_language}"
        case config.CausalTask():
            return "Goes on with a text"
        case config.MaskedTask():
            return "Fills in hidden tokens"
        case config.SpanCorruptionTask() | config.DenoisingTask():
            return "Restores what is missing in a text; made to be trained further for something else"
        case config.ClassificationTask():
            return f"Gives a text one of the labels {_labels(recipe)}"
        case config.TaggingTask():
            return f"Gives each word one of the tags {_labels(recipe)}"
        case config.EmbeddingTask():
            return "Turns a text into a vector, near for texts that belong together"
        case config.InstructionsTask():
            return "Answers in a conversation"
        case _:
            assert_never(task)


def _labels(recipe: config.Recipe) -> str:
    return ", ".join(getattr(getattr(recipe.model, "head", None), "labels", ()))


def _shape(recipe: config.Recipe) -> str:
    c, data = recipe.model, recipe.data
    match c:
        case config.EncoderDecoder():
            between = f", {data.source_language} to {data.target_language}" if recipe.task.type == "translation" else ""
            return f"An encoder-decoder Transformer{between}, {c.encoder.layers} + {c.decoder.layers} layers"
        case config.DecoderOnly():
            return f"A decoder-only Transformer, {c.decoder.layers} layers"
        case config.RecurrentEncoderDecoder():
            between = f", {data.source_language} to {data.target_language}" if recipe.task.type == "translation" else ""
            layers = f"{c.encoder.layers} + {c.decoder.layers}"
            return f"A recurrent encoder-decoder ({c.cell.upper()}){between}, {layers} layers"
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
    return f" It began with the weights of {recipe.start.path}."


def _use(recipe: config.Recipe, run: Path) -> str:
    if not isinstance(recipe.task, config.TranslationTask):
        head = recipe.model.head.type if isinstance(recipe.model, config.EncoderOnly) else recipe.model.kind
        return f"\n## Use\n\n    {USES[head].format(out=run)}\n"
    return f"""
## Use

    sublayer translate {run} "..."

    import sublayer
    model = sublayer.load("{run}")
    model.translate(["..."])[0].text
"""


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


def _scored(recipe: config.Recipe, judged: Judged | None) -> str:
    said = "" if judged is None else f"On what was held out: {judged}.\n"
    if isinstance(recipe.task, config.TranslationTask):
        scored = "`sublayer evaluate` scores it on the held-out sentences in `test.jsonl`."
        return f"{said}BLEU is of greedy translations. {scored}"
    return f"{said}What was held out stands in `test.jsonl`."


def _data(recipe: config.Recipe) -> str:
    source = recipe.data.source
    named = source.corpora if isinstance(source, config.SeveralCorpora) else (source,)
    found = [corpora.find(each.name) for each in named if isinstance(each, config.NamedCorpus)]
    if not found:
        return "The user's own text."
    # A corpus may be named once for each of its parts.
    told = [f"{one.title}. Licence: {one.licence} ({one.licence_url}). {one.attribution}" for one in found]
    return "\n\n".join(dict.fromkeys(told))
