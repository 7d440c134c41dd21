"""Language modelling: each token from those before it, on documents packed into rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sublayer import config
from sublayer.data.batch import TextBatch
from sublayer.data.examples.interface import Examples
from sublayer.data.examples.packed import PackedDocuments
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report
from sublayer.data.tables.documents import Document
from sublayer.data.tables.table import Rows
from sublayer.models import CausalModel
from sublayer.tasks.losses import CrossEntropy, projected
from sublayer.tasks.objective import TokenObjective, nats_and_targets
from sublayer.tasks.task import DocumentTask, Encoding, Material, start_template
from sublayer.text import Affixes, Specials, Tokenizer


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
    return Likelihood(*nats_and_targets(model, examples, batching, causal_loss))


@dataclass(frozen=True)
class Modelling(TokenObjective[TextBatch]):
    """words: how many the validation text has, for the perplexity of a word; None where not asked for."""

    words: int | None
    rows: ClassVar = "rows"

    def loss(self, model: CausalModel, batch: TextBatch, total: int) -> Tensor:
        return causal_loss(model, batch, total, self.loss_function)

    def evaluate(self, model: CausalModel) -> dict[str, float]:
        found = likelihood(model, self.examples, self.c.batches)
        measured = {"loss": found.loss, "perplexity": found.perplexity}
        return measured if self.words is None else {**measured, "word_perplexity": found.word_perplexity(self.words)}


def causal_loss(model: CausalModel, batch: TextBatch, total: int, loss: CrossEntropy) -> Tensor:
    """The loss of a batch of texts, on the targets that they have."""
    there = batch.to(model.device)
    # No lengths: padding stands on the right, where no token looks.
    return projected(model, loss, model.hidden(there.tokens, None, there.segments), there.target, total)


class Causal(DocumentTask[config.CausalTask, Examples[TextBatch]]):
    """Each token from those before it."""

    kind: ClassVar = config.CausalTask
    command: ClassVar = 'sublayer generate {model} "..."'

    @classmethod
    def without_recipe(cls, room: int) -> dict[str, Any]:
        """Half a row of context for every token, where there is as much."""
        return {"type": cls.name(), "evaluation_stride": max(room // 2, 1)}

    def with_template(self, plain: Tokenizer, specials: Specials) -> Tokenizer:
        """A language model's text begins with `<s>`."""
        return plain.replace(template=start_template(plain.start_id))

    def of_ids(self, columns: Sequence[Ragged], report: Report, how: Encoding) -> PackedDocuments:
        affixes = Affixes.of_documents(how.tokenizer)
        texts = columns[0].within(affixes.before, affixes.after)
        room, c = how.max_length, self.settings
        # A stride that is left out is a whole row.
        return PackedDocuments(texts, room, c.stride or room, c.evaluation_stride or room, affixes.pad, report)

    def objective(self, material: Material[Rows[Document], Examples[TextBatch]]) -> Modelling:
        words = sum(document.words for document in material.table)
        return Modelling(material.examples, material.recipe.training, words)

    def does(self, recipe: config.Recipe) -> str:
        return "Goes on with a text"
