"""How good a model is: loss per token, BLEU and chrF on text that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sublayer import config
from sublayer.data.encoding import EncodedPairs
from sublayer.data.loader import validation
from sublayer.models import SequenceToSequence
from sublayer.training.losses import CrossEntropy

UNLEARNED = (
    "the model has not learned to translate yet: its translations share nothing with the references. "
    "Train it for longer: sublayer train RECIPE --out RUN --resume --set training.minutes=… (more than before)"
)
"""Said of a BLEU of 0.0, where it is not only that the texts are too short to have four words in a row."""


@dataclass(frozen=True)
class Scores:
    """Corpus BLEU and chrF by sacreBLEU, with the signatures that make them comparable."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str
    sentences: int

    @property
    def unlearned(self) -> bool:
        """Whether the translations share next to nothing with the references: no four words, and few characters."""
        return round(self.bleu, 1) == 0 and self.chrf < 20


def score(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Scores:
    """Corpus scores of translations.

    Args:
        references: for each hypothesis one or more; sentences may differ in how many they have.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    most = max(len(one) for one in references)
    # sacreBLEU wants streams: the k-th references of all sentences, None where a sentence has fewer.
    streams: Any = [[one[k] if k < len(one) else None for one in references] for k in range(most)]
    bleu, chrf = BLEU(), CHRF()
    return Scores(
        bleu=bleu.corpus_score(list(hypotheses), streams).score,
        chrf=chrf.corpus_score(list(hypotheses), streams).score,
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
        sentences=len(hypotheses),
    )


def validation_loss(model: SequenceToSequence, encoded: EncodedPairs, batching: config.Batching) -> float:
    """Mean cross-entropy per target token in nats, without label smoothing or dropout."""
    loss = CrossEntropy(label_smoothing=0.0)
    total, tokens = 0.0, 0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in validation(encoded, batching):
            there = batch.to(model.device)
            hidden = model.hidden(there.source, there.source_lengths, there.target_in)
            total += loss(model.output, hidden, there.target_out, 1).item()
            tokens += batch.target_tokens
    model.train(was_training)
    return total / tokens
