"""Translation: the loss of section 5.4, evaluated by BLEU of greedy translations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from sublayer import config
from sublayer.data.batch import Batch
from sublayer.data.encoding import EncodedPairs, encode
from sublayer.data.examples.interface import Examples
from sublayer.data.ragged import Ragged
from sublayer.data.report import Report
from sublayer.data.sources import PAIRS, Pairs, grouped
from sublayer.generation.translator import Translator
from sublayer.models import SequenceToSequence
from sublayer.models.evaluating import evaluating as in_evaluation_mode
from sublayer.tasks.losses import CrossEntropy, projected
from sublayer.tasks.objective import TokenObjective, nats_and_targets
from sublayer.tasks.scores import UNLEARNED, bleu_metric, bleu_tokenizer, cut_to_fit, score
from sublayer.tasks.task import Encoding, Material, Scored, Scoring, Task
from sublayer.text import PairAffixes, Specials, Tokenizer

LEAST = 300_000
"""Target tokens that a translation model must see before it says anything sensible. The demo's reaches 6 BLEU after
97 steps of about 3,000 (docs/figures/translation.json), and 27 after twice as many."""


class PairLoss(TokenObjective[Batch]):
    """The loss of whatever writes one text after reading another."""

    def loss(self, model: SequenceToSequence, batch: Batch, total: int) -> Tensor:
        return pair_loss(model, batch, total, self.loss_function)


def pair_loss(model: SequenceToSequence, batch: Batch, total: int, loss: CrossEntropy) -> Tensor:
    """The loss of a decoder's tokens, given a source."""
    # Where no source is padded the encoder needs no mask; asked before the move, so that no device is waited for.
    full = int(batch.source_lengths.min()) == batch.source.shape[1]
    there = batch.to(model.device)
    hidden = model.hidden(there.source, None if full else there.source_lengths, there.target_in)
    return projected(model, loss, hidden, there.target_out, total)


def validation_loss(model: SequenceToSequence, pairs: Examples[Batch], batching: config.Batching) -> float:
    """Mean cross-entropy per target token in nats, without label smoothing or dropout."""
    nats, targets = nats_and_targets(model, pairs, batching, pair_loss)
    return nats / targets


@dataclass(frozen=True)
class Translating(PairLoss):
    """pairs: those to validate on, as they were read. tokenize: how BLEU cuts texts into words."""

    pairs: Pairs
    tokenizer: Tokenizer
    decoding: config.Decoding
    tokenize: str = "13a"
    rows: ClassVar = "pairs"
    least: ClassVar = LEAST

    def evaluate(self, model: SequenceToSequence) -> dict[str, float]:
        """Loss on all validation pairs, BLEU of greedy translations of the validation sentences."""
        with in_evaluation_mode(model):
            loss = validation_loss(model, self.examples, self.c.batches)
            bleu = self._bleu(Translator(model, self.tokenizer, self.decoding), *grouped(self.pairs))
        return {"loss": loss, "bleu": bleu}

    def _bleu(self, translator: Translator, sources: Sequence[str], references: Sequence[Sequence[str]]) -> float:
        fitting, _ = cut_to_fit(translator, sources)
        translations = translator.translate(fitting, beam=1)
        return score([one.text for one in translations], references, self.tokenize).bleu


class Translation(Task[config.TranslationTask, Pairs, EncodedPairs]):
    """One text into another."""

    kind: ClassVar = config.TranslationTask
    reader: ClassVar = PAIRS
    command: ClassVar = 'sublayer translate {model} "..."'
    python: ClassVar = 'model.translate(["..."])[0].text'

    def with_template(self, plain: Tokenizer, specials: Specials) -> Tokenizer:
        """Nothing stands around a text: an encoder-decoder's affixes are put on apart."""
        return plain.replace(specials=specials)

    def examples(self, table: Pairs, how: Encoding) -> EncodedPairs:
        return encode(
            table, how.tokenizer, how.max_length, PairAffixes.of(how.tokenizer, how.decoding), positions=how.positions
        )

    def around(self, how: Encoding) -> tuple[int, ...]:
        affixes = PairAffixes.of(how.tokenizer, how.decoding)
        return affixes.source.length, affixes.target_length

    def of_ids(self, columns: Sequence[Ragged], report: Report, how: Encoding) -> EncodedPairs:
        sources, targets = columns
        return EncodedPairs(
            sources, targets, np.arange(len(sources)), report, PairAffixes.of(how.tokenizer, how.decoding)
        )

    def objective(self, material: Material[Pairs, EncodedPairs]) -> Translating:
        recipe = material.recipe
        tokenize = self._tokenize(recipe, recipe.decoding.target_language, None)
        bleu_metric(tokenize)  # what it needs is missed now, and not after the first thousand steps
        return Translating(
            material.examples, recipe.training, material.table, material.tokenizer, recipe.decoding, tokenize
        )

    def score(self, loaded: Any, recipe: config.Recipe, table: Pairs, how: Scoring) -> Scored:
        """Translations as the model makes them in use, by sacreBLEU with its signatures."""
        translator: Translator = loaded
        tokenize = self._tokenize(recipe, translator.decoding.target_language, how.tokenize)
        given, references = grouped(table)
        sources, cut = cut_to_fit(translator, given)
        started = time.perf_counter()
        translations = translator.translate(
            sources,
            beam=how.beam,
            length_penalty=how.length_penalty,
            progress=how.progress(len(sources)),
        )
        seconds = time.perf_counter() - started
        texts = [translation.text for translation in translations]
        found = score(texts, references, tokenize)
        ended = sum(not translation.complete for translation in translations)
        warnings = [f"{cut} sources are longer than the model's positions and are cut there"] if cut else []
        warnings += [f"{ended} translations reached their length limit and are cut there"] if ended else []
        rows = zip(given, references, texts, strict=True)
        return Scored(
            {
                "sentences": f"{found.sentences:,} ({seconds:.1f} s)",
                "BLEU": f"{found.bleu:.2f}   {found.bleu_signature}",
                "chrF": f"{found.chrf:.2f}   {found.chrf_signature}",
            },
            [UNLEARNED] if found.unlearned else [],
            warnings,
            [{"source": one, "references": several, "translation": text} for one, several, text in rows],
        )

    def _tokenize(self, recipe: config.Recipe, language: str | None, asked: str | None) -> str:
        """How BLEU cuts texts into words: as asked, else as the recipe says, else by the target language."""
        settings = self.settings if asked is None else config.TranslationTask.parse({"bleu": asked}, "--tokenize")
        return bleu_tokenizer(language or recipe.data.target_language, settings.bleu)

    def does(self, recipe: config.Recipe) -> str:
        return f"Translates {recipe.data.source_language} to {recipe.data.target_language}"

    def languages(self, recipe: config.Recipe) -> str:
        return f", {recipe.data.source_language} to {recipe.data.target_language}"

    def held_out(self) -> str:
        return (
            "BLEU is of greedy translations. `sublayer evaluate` scores it on the held-out sentences in `test.jsonl`."
        )
