"""Language modelling: each token from those before it, on packed documents or on the answers of conversations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sublayer import config
from sublayer.data.batch import TextBatch
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

    def loss(self, model: CausalModel, batch: TextBatch, total: int) -> Tensor:
        return _loss(model, batch, total, self.loss_function)

    def evaluate(self, model: CausalModel) -> dict[str, float]:
        found = likelihood(model, self.examples, self.batching)
        measured = {"loss": found.loss, "perplexity": found.perplexity}
        return measured if self.words is None else {**measured, "word_perplexity": found.word_perplexity(self.words)}

    def illustrate(self, folder: Path) -> None:
        """The numbers say it."""


def _loss(model: CausalModel, batch: TextBatch, total: int, loss: CrossEntropy) -> Tensor:
    there = batch.to(model.device)
    # No lengths: padding stands on the right, where no token looks.
    return projected(model, loss, model.hidden(there.tokens, None, there.segments), there.target, total)
