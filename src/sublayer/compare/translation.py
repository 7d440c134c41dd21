"""Part 3: a Transformer and recurrent networks translate, trained on the same pairs for the same time.

The data, tokenizer, batches, loss, schedule and averaging are the recipe's. Optimizer and learning rate are each
contender's own: the best of a few, each tried for a short time, because what is good for one need not be for another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sublayer import config
from sublayer.compare.contenders import recurrent_pair
from sublayer.compare.ledger import Ledger
from sublayer.compare.plan import Translation, Tried
from sublayer.compare.runs import trained
from sublayer.config.cost import total_parameters
from sublayer.config.load import LoadedRecipe, load_recipe
from sublayer.data.jsonl import read_objects
from sublayer.hub.folder import load_translator
from sublayer.tasks.scores import score
from sublayer.training.metrics import read_metrics
from sublayer.training.progress import Reporter

LENGTHS: tuple[tuple[int, int | None], ...] = ((1, 5), (6, 8), (9, 12), (13, None))
"""Words of a source sentence, from and to."""

Pair = config.EncoderDecoder | config.RecurrentEncoderDecoder


def contenders(reference: config.EncoderDecoder) -> Mapping[str, Pair]:
    """By name, all with nearly the same number of parameters."""
    return {
        "transformer": reference,
        "lstm-attention": recurrent_pair("lstm", reference, config.Multiplicative()),
        "lstm-plain": recurrent_pair("lstm", reference, config.NoAttention()),
    }


def measure(c: Translation, ledger: Ledger, device: torch.device, told: Callable[[], Reporter], runs: Path) -> None:
    """Try every optimizer and learning rate, train with the best, translate what was held out.

    An entry "NAME/OPTIMIZER RATE": the loss on the validation set after a trial. An entry "NAME": parameters, what was
    chosen, the validations with their seconds, and BLEU on the test set, of all and by the length of the source.

    Args:
        runs: the folder of the runs; one that has come to its end is not trained again.
    """
    loaded = load_recipe(c.recipe)
    reference = loaded.recipe.model
    assert isinstance(reference, config.EncoderDecoder)
    size = loaded.recipe.tokenizer.vocab_size or reference.vocab_size
    reference = reference.model_copy(update={"vocab_size": size})
    for name, tree in contenders(reference).items():
        if name in ledger:
            continue
        for tried in c.tried:
            if f"{name}/{tried.name}" not in ledger:
                told().say(f"translation: {name}, {tried.name}, a trial of {c.trial:g} minutes")
                recipe = recipe_for(loaded.recipe, f"{name}-trial", tree, tried, c.trial, 100_000)
                out = runs / f"{name}-{tried.optimizer}-{tried.rate:g}"
                ledger[f"{name}/{tried.name}"] = _run(recipe, loaded.folder, out, device, told())[-1]
        best = min(c.tried, key=lambda tried: ledger[f"{name}/{tried.name}"]["loss"])
        steps = ledger[f"{name}/{best.name}"]["step"] / c.trial * c.minutes
        told().say(f"translation: {name}, {best.name}, {c.minutes:g} minutes")
        recipe = recipe_for(loaded.recipe, name, tree, best, c.minutes, max(10, int(steps / c.points)))
        checks = _run(recipe, loaded.folder, runs / name, device, told())
        told().say(f"translation: {name}, the test set")
        ledger[name] = {
            "parameters": total_parameters(tree),
            "width": tree.dim,
            "chosen": best.name,
            "checks": checks,
            **_tested(runs / name, device),
        }


def recipe_for(
    base: config.Recipe, name: str, tree: Pair, tried: Tried, minutes: float, validate_every: int
) -> config.Recipe:
    """The recipe with another model, optimizer and time."""
    adamw = config.AdamW(learning_rate=tried.rate)
    muon = config.Muon(learning_rate=tried.rate, others=adamw)
    training = base.training.model_copy(
        update={
            "minutes": minutes,
            "steps": None,
            "optimizer": muon if tried.optimizer == "muon" else adamw,
            "validate_every": validate_every,
            "checkpoint_every": validate_every,
        }
    )
    return base.model_copy(update={"name": name, "model": tree, "training": training})


def _run(
    recipe: config.Recipe, folder: Path, out: Path, device: torch.device, reporter: Reporter
) -> list[dict[str, float]]:
    """Train where it has not been trained yet; the validations: step, seconds, loss, BLEU."""
    trained(LoadedRecipe(recipe, folder), out, device, reporter)
    return [
        {name.removeprefix("valid/"): line[name] for name in ("step", "seconds", "valid/loss", "valid/bleu")}
        for line in read_metrics(out / "metrics.jsonl")
        if "valid/loss" in line
    ]


def _tested(run: Path, device: torch.device) -> dict[str, Any]:
    """BLEU of greedy translations of what was held out."""
    translator = load_translator(run, device)
    rows = [row for _, row in read_objects(run / "model" / "test.jsonl") if row is not None]
    sources = [str(row["source"]) for row in rows]
    references: list[Sequence[str]] = [list(map(str, row["references"])) for row in rows]
    found = [one.text for one in translator.translate(sources, beam=1)]
    by_length: dict[str, dict[str, float]] = {}
    for low, high in LENGTHS:
        some = [i for i, text in enumerate(sources) if low <= len(text.split()) <= (high or 10**6)]
        if some:
            bleu = score([found[i] for i in some], [references[i] for i in some]).bleu
            by_length[f"{low}-{high}" if high else f"{low} and more"] = {"bleu": bleu, "sentences": len(some)}
    whole = score(found, references)
    return {"bleu": whole.bleu, "chrf": whole.chrf, "signature": whole.bleu_signature, "by_length": by_length}
