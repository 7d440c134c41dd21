"""The model card: what a stranger who finds the folder needs to know."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from sublayer import config
from sublayer.data import corpora
from sublayer.data.split import Splits
from sublayer.models import EncoderDecoder
from sublayer.training.metrics import read_metrics


def model_card(recipe: config.Recipe, splits: Splits, model: EncoderDecoder, run: Path) -> str:
    """Markdown: what it is, how to run it, what it was trained on, how it did in validation."""
    c = model.config
    languages = f"{recipe.data.source_language} to {recipe.data.target_language}"
    count = sum(p.numel() for p in model.parameters())
    checks = [line for line in read_metrics(run / "metrics.jsonl") if "valid/bleu" in line]
    last = (
        f"Last validation: loss {checks[-1]['valid/loss']:.3f} nats per token, BLEU {checks[-1]['valid/bleu']:.1f} "
        f"(greedy), after {checks[-1]['seconds'] / 60:.1f} minutes of training.\n"
        if checks
        else ""
    )
    return f"""# {recipe.name}

{recipe.description or f"Translates {languages}."}

An encoder-decoder Transformer, {languages}: {c.encoder.layers} + {c.decoder.layers} layers, width {c.dim},
{c.vocab_size:,} tokens, {count:,} parameters; trained with sublayer {version("sublayer")}.

## Use

    sublayer translate {run} "..."

    import sublayer
    model = sublayer.load("{run}")
    model.translate(["..."])[0].text

## Data

{_data(recipe)}
{len(splits.train):,} training pairs, {len(splits.validation):,} for validation, {len(splits.test):,} held out; no
held-out source sentence stands in the training text.

## Scores

{last}`sublayer evaluate` scores it on the held-out sentences in `test.jsonl`.

`recipe.toml` holds every setting.
"""


def _data(recipe: config.Recipe) -> str:
    source = recipe.data.source
    if isinstance(source, config.NamedCorpus):
        corpus = corpora.find(source.name)
        return f"{corpus.title}. Licence: {corpus.licence}. {corpus.attribution}"
    return "The user's own text."
