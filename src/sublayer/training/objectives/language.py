"""Language modelling: each token from those before it, on packed documents or on the answers of conversations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from sublayer import config
from sublayer.data.batch import IGNORE, TextBatch
from sublayer.data.examples.interface import Examples
from sublayer.data.loader import validation
from sublayer.models import CausalModel
from sublayer.training.losses import CrossEntropy, projected
from sublayer.training.objective import evaluating


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds a text: `nats` of negative log-likelihood in all, over so many tokens."""

    nats: float
    tokens: int

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """Of a token; it depends on the tokenizer, so that only models with the same one can be compared by it."""
        return math.exp(self.loss)

    def word_perplexity(self, words: int) -> float:
        """exp(nats of the whole text / words in it), whatever the tokens are.

        The standard definition for WikiText and the Penn Treebank: words are what stands between white space, and the
        end of each line counts as one (Merity et al. 2016; for other tokens than words, Radford et al. 2019, section
        3.1). The ends of the documents are predicted too, and only make it larger.
        """
        return math.exp(self.nats / words)


def likelihood(model: CausalModel, examples: Examples[TextBatch], batching: config.Batching) -> Likelihood:
    """The likelihood of every token once, without dropout.

    A document longer than a row is read in overlapping rows, each token a target in the first row that has it: how far
    the rows are apart (`evaluation_stride`) says how much context a token has at least.
    """
    loss = CrossEntropy(label_smoothing=0.0)
    nats, tokens = 0.0, 0
    with evaluating(model):
        for batch in validation(examples, batching):
            nats += _loss(model, batch, 1, loss).item()
            tokens += batch.targets
    return Likelihood(nats, tokens)


@dataclass(frozen=True)
class Modelling:
    """examples: the validation text. words: how many it has, for the perplexity of a word; None where not asked for."""

    loss_function: CrossEntropy
    examples: Examples[TextBatch]
    batching: config.Batching
    words: int | None
    rows: str = "rows"
    unit: str = "tokens"
    least: int = 0

    def choices(self, c: config.Model) -> int:
        return c.vocab_size

    def loss(self, model: CausalModel, batch: TextBatch, total: int) -> Tensor:
        return _loss(model, batch, total, self.loss_function)

    def evaluate(self, model: CausalModel) -> dict[str, float]:
        found = likelihood(model, self.examples, self.batching)
        measured = {"loss": found.loss, "perplexity": found.perplexity}
        return measured if self.words is None else {**measured, "word_perplexity": found.word_perplexity(self.words)}

    def illustrate(self, folder: Path) -> None:
        """The numbers say it."""


@dataclass(frozen=True)
class Answering(Modelling):
    """Answers of conversations, which can also be right or wrong as a whole."""

    def evaluate(self, model: CausalModel) -> dict[str, float]:
        """With the part of the conversations whose answers a greedy search would give, word for word."""
        found, exact = answered(model, self.examples, self.batching)
        return {"loss": found.loss, "perplexity": found.perplexity, "exact_match": exact}


def answered(
    model: CausalModel, examples: Examples[TextBatch], batching: config.Batching, piece: int = 2**23
) -> tuple[Likelihood, float]:
    """The likelihood of the answers, and the part of the conversations in which the model prefers every token of every
    answer, its end included.

    A token that is the most probable one after those before it is what greedy search says next, and so, from the
    first token of an answer to its end, all of it: no search is needed to know what it would find.

    Args:
        piece: logits (tokens * vocabulary) in memory at a time.
    """
    nats, tokens, exact, count = 0.0, 0, 0, 0
    size = max(1, piece // model.config.vocab_size)
    with evaluating(model):
        for batch in validation(examples, batching):
            there = batch.to(model.device)
            asked = there.target != IGNORE
            hidden = model.hidden(there.tokens, None, there.segments)[asked]
            wrong: list[Tensor] = []
            parts = [cast("tuple[Tensor, ...]", each.split(size)) for each in (hidden, there.target[asked])]
            for some, target in zip(*parts, strict=True):
                logits = model.project(some)
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                nats += F.cross_entropy(logits, target, reduction="sum").item()
                wrong.append(logits.argmax(dim=-1) != target)
            missed = torch.zeros_like(asked)
            missed[asked] = torch.cat(wrong)
            exact += int((~missed.any(dim=1)).sum())
            tokens += batch.targets
            count += len(batch.rows)
    return Likelihood(nats, tokens), exact / count


def _loss(model: CausalModel, batch: TextBatch, total: int, loss: CrossEntropy) -> Tensor:
    there = batch.to(model.device)
    # No lengths: padding stands on the right, where no token looks.
    return projected(model, loss, model.hidden(there.tokens, None, there.segments), there.target, total)
