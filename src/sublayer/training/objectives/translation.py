"""Translation: the loss of section 5.4, judged by BLEU of greedy translations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sublayer import config
from sublayer.data.batch import Batch
from sublayer.data.encoding import EncodedPairs
from sublayer.data.sources import Pairs
from sublayer.data.split import grouped
from sublayer.generation.translator import Translator
from sublayer.models import SequenceToSequence
from sublayer.models.evaluating import evaluating
from sublayer.text import Tokenizer
from sublayer.training.evaluation import cut_to_fit, score, validation_loss
from sublayer.training.losses import CrossEntropy, projected

LEAST = 300_000
"""Target tokens that a translation model must see before it says anything sensible. The demo's reaches 6 BLEU after
97 steps of about 3,000 (docs/figures/translation.json), and 27 after twice as many."""


@dataclass(frozen=True)
class PairLoss:
    """The loss of whatever writes one text after reading another."""

    loss_function: CrossEntropy

    def choices(self, c: config.Model) -> int:
        return c.vocab_size

    def loss(self, model: SequenceToSequence, batch: Batch, total: int) -> Tensor:
        return pair_loss(model, batch, total, self.loss_function)


def pair_loss(model: SequenceToSequence, batch: Batch, total: int, loss: CrossEntropy) -> Tensor:
    """The loss of a decoder's tokens, given a source."""
    # Where no source is padded the encoder needs no mask; asked before the move, so that no device is waited for.
    full = int(batch.source_lengths.min()) == batch.source.shape[1]
    there = batch.to(model.device)
    hidden = model.hidden(there.source, None if full else there.source_lengths, there.target_in)
    return projected(model, loss, hidden, there.target_out, total)


@dataclass(frozen=True)
class Translating(PairLoss):
    """Pairs as they were read and as they were encoded, to validate on. tokenize: how BLEU cuts texts into words."""

    pairs: Pairs
    encoded: EncodedPairs
    tokenizer: Tokenizer
    batching: config.Batching
    decoding: config.Decoding
    tokenize: str = "13a"
    rows: str = "pairs"
    unit: str = "tokens"
    least: int = LEAST

    def evaluate(self, model: SequenceToSequence) -> dict[str, float]:
        """Loss on all validation pairs, BLEU of greedy translations of the validation sentences."""
        with evaluating(model):
            loss = validation_loss(model, self.encoded, self.batching)
            bleu = self._bleu(Translator(model, self.tokenizer, self.decoding), *grouped(self.pairs))
        return {"loss": loss, "bleu": bleu}

    def illustrate(self, folder: Path) -> None:
        """Two numbers say it."""

    def _bleu(self, translator: Translator, sources: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        fitting, _ = cut_to_fit(translator, sources)
        translations = translator.translate(fitting, beam=1)
        return score([one.text for one in translations], references, self.tokenize).bleu
