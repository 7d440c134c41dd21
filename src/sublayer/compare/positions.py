"""Part 4: one small language model with each kind of positions, trained on short texts and tested on longer ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer import config
from sublayer.compare.contenders import transformer_lm
from sublayer.compare.ledger import Ledger
from sublayer.compare.plan import Positions
from sublayer.compare.runs import trained
from sublayer.config.cost import total_parameters
from sublayer.config.load import LoadedRecipe
from sublayer.data.batch import as_tensor
from sublayer.data.ragged import encode_texts
from sublayer.data.tables.documents import read_documents
from sublayer.hub import folder as model_folder
from sublayer.training.progress import Reporter

KINDS: Mapping[str, config.Position] = {
    "sinusoidal": config.Sinusoidal(),
    "learned": config.Learned(),
    "rotary": config.Rotary(),
    "alibi": config.Alibi(),
    "relative": config.RelativeBias(),
    "none": config.NoPosition(),
}
TEST = config.NamedCorpus(name="wikitext-2", part="test")


def measure(c: Positions, ledger: Ledger, device: torch.device, told: Callable[[], Reporter], runs: Path) -> None:
    """Train a model with each kind of positions, and read the same test text in rows of each length.

    An entry: parameters; at each length the nats of a token, of the whole text; and of the longest rows the nats of the
    tokens in each stretch of positions.
    """
    for name, position in KINDS.items():
        if name in ledger:
            continue
        recipe = recipe_for(c, name, position)
        out = runs / name
        told().say(f"positions: {name}")
        trained(LoadedRecipe(recipe, Path.cwd()), out, device, told())
        told().say(f"positions: {name}, the test text")
        ledger[name] = _tested(c, out, device)


def recipe_for(c: Positions, name: str, position: config.Position) -> config.Recipe:
    """A language model of WikiText-2 on rows of `c.trained` tokens, with room for the longest that is tested."""
    tree = transformer_lm(c.dim, c.layers, c.vocab_size, max(c.tested), position=position)
    return config.Recipe(
        name=f"positions-{name}",
        task=config.CausalTask(),
        data=config.Data(
            source=config.NamedCorpus(name="wikitext-2", part="train"),
            split=config.GivenSplit(validation=config.NamedCorpus(name="wikitext-2", part="validation"), test=TEST),
            max_length=c.trained,
        ),
        tokenizer=config.Subwords(type="bpe", vocab_size=c.vocab_size),
        model=tree,
        training=config.Training(
            steps=c.steps,
            label_smoothing=0.0,
            batches=config.Batching(tokens=c.tokens),
            optimizer=config.AdamW(learning_rate=c.rate, weight_decay=0.1),
            schedule=config.Linear(warmup=max(1, min(200, c.steps // 10))),
            averaging=config.NoAveraging(),
            precision="auto",
            validate_every=c.steps,
            checkpoint_every=c.steps,
        ),
    )


@torch.no_grad()
def _tested(c: Positions, run: Path, device: torch.device) -> dict[str, Any]:
    found = model_folder.read(run, device)
    model: Any = found.model
    table = read_documents(TEST, run)
    tokens = as_tensor(encode_texts(table.texts(), found.tokenizer).tokens.astype(np.int64))
    longest = max(c.tested)
    # The same tokens are predicted at every length: as many as fill rows of the longest.
    count = (min(len(tokens) - 1, c.test_tokens) // longest) * longest
    fed, wanted = tokens[:count].to(device), tokens[1 : count + 1].to(device)
    losses: dict[str, float] = {}
    stretches: dict[str, float] = {}
    for length in c.tested:
        rows, targets = fed.view(-1, length), wanted.view(-1, length)
        parts = [
            F.cross_entropy(
                model.project(model.hidden(some)).float().transpose(1, 2), target, reduction="none"
            ).double()
            for some, target in zip(_eights(rows), _eights(targets), strict=True)
        ]
        nats = torch.cat(parts)
        losses[str(length)] = nats.mean().item()
        if length == longest:
            edges = [0, *c.tested]
            for begin, end in pairwise(edges):
                stretches[f"{begin}-{end}"] = nats[:, begin:end].mean().item()
    return {
        "parameters": total_parameters(model.config),
        "tokens": count,
        "nats": losses,
        "stretches": stretches,
        "trained_tokens": c.steps * c.tokens,
    }


def _eights(rows: Tensor) -> list[Tensor]:
    """Eight rows at a time; torch's own signature says nothing about the parts."""
    return list(cast("tuple[Tensor, ...]", rows.split(8)))  # pyright: ignore[reportUnknownMemberType]
