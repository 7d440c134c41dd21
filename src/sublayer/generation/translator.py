"""Translation: an encoder-decoder with its tokenizer.

Sentences are sorted by length and batched internally. Results come back in the order of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sublayer.config.decoding import Constraints, Decoding
from sublayer.errors import InputError
from sublayer.generation.beam import BeamSearch, beam_search, best_texts
from sublayer.generation.decoding_model import DecodingModel, Deferred
from sublayer.generation.engine_steps import EngineSteps
from sublayer.generation.finite import NotFinite
from sublayer.generation.greedy import greedy, greedy_texts
from sublayer.generation.request import DecodeRequest, Hypothesis
from sublayer.text import PairAffixes, Tokenizer
from sublayer.text.batching import by_length

if TYPE_CHECKING:
    from torch import Tensor

    from sublayer.generation.constraints import Constraint
    from sublayer.generation.shortlist import Shortlist
    from sublayer.models import SequenceToSequence
    from sublayer.models.backend import DecoderBackend


@dataclass(frozen=True)
class Alternative:
    """One of the n best translations, ranked by `score`.

    log_probability: natural log, end token included. complete: False if it was cut at the length limit.
    """

    text: str
    tokens: list[int]
    score: float
    log_probability: float
    complete: bool


@dataclass(frozen=True)
class Translation(Alternative):
    """The translation of one sentence: the best one.

    n_best: all that were asked for, best first. alignment: float32 [target tokens, source tokens + end], the
    cross-attention at each target token; None unless asked for.
    """

    source: str
    n_best: list[Alternative]
    alignment: Tensor | None = None

    @property
    def best(self) -> Alternative:
        return self.n_best[0]


class Translator(DecodingModel["SequenceToSequence"]):
    """A trained encoder-decoder and its tokenizer.

    decoding: default settings of `translate`. shortlist: the tokens that translations choose among; None for all.
    backend: the backend that decodes; default: the fastest that there is for the model (`fast/decoding/`).
    """

    def __init__(
        self,
        model: SequenceToSequence | Deferred[SequenceToSequence],
        tokenizer: Tokenizer,
        decoding: Decoding,
        *,
        backend: DecoderBackend[Any] | None = None,
    ) -> None:
        super().__init__(model, tokenizer, backend)
        self.decoding = decoding
        self.shortlist: Shortlist | None = None

    def with_decoding(self, **changes: Any) -> Translator:
        """Return a translator of the same model with other defaults, fields of `Decoding`.

        Raises:
            ConfigError: a value is out of range. InputError: the tokenizer does not know the language.
        """
        other = copy(self)
        other.decoding = Decoding.parse({**self.decoding.plain(), **changes}, "translate")
        other.__dict__.pop("affixes", None)  # they follow from the decoding
        return other

    def with_shortlist(self, shortlist: Shortlist | None) -> Translator:
        """Return a translator of the same model whose translations choose among these tokens; None for all.

        Raises:
            InputError: the engine does not decode this model alone.
        """
        if shortlist is not None and (self._alone is None or not self._alone.lists):
            raise InputError(
                "a shortlist is given, and the engine does not decode this model alone",
                "Load it anew, with sublayer.load(...) on a CPU, or leave the shortlist out.",
            )
        other = self.with_decoding()
        other.shortlist = shortlist
        return other

    @cached_property
    def affixes(self) -> PairAffixes:
        """The special tokens around sources and translations."""
        return PairAffixes.of(self.tokenizer, self.decoding)

    def translate(
        self,
        sentences: Sequence[str],
        *,
        beam: int | None = None,
        n_best: int = 1,
        length_penalty: float | None = None,
        alignments: bool = False,
        batch_tokens: int = 8000,
        progress: Callable[[int], None] | None = None,
    ) -> list[Translation]:
        """Translate sentences, in order.

        Args:
            beam: number of beams; 1 is greedy search. n_best: translations to return for each sentence, at most `beam`.
            length_penalty: of beam search, log P / length ** length_penalty. Default of both: the model's own.
            alignments: also return the attention between target and source tokens.
            batch_tokens: budget of a batch, beams * padded source tokens.
            progress: called with the number of sentences that were just finished.

        Raises:
            InputError: a sentence is empty or longer than the model's positions (the error gives its number), or
                n_best > beam.
        """
        if isinstance(sentences, str):
            raise InputError(f"sentences = {sentences!r} is one string", "Give a list: translate([sentence]).")
        chosen = self._decoding(beam, length_penalty)
        if not 1 <= n_best <= chosen.beam:
            raise InputError(f"n_best = {n_best} with beam = {chosen.beam}", "Ask for 1 to `beam` translations.")
        sources = self.encode(sentences)
        found: list[Translation | None] = [None] * len(sources)
        for rows, hypotheses in self._searched(sources, chosen, batch_tokens):
            for row, best in zip(rows, hypotheses, strict=True):
                texts = self.tokenizer.decode([hypothesis.tokens for hypothesis in best[:n_best]])
                options = [
                    Alternative(text.strip(), h.tokens, h.score, h.log_probability, h.complete)
                    for text, h in zip(texts, best, strict=False)
                ]
                found[row] = Translation(**vars(options[0]), source=sentences[row], n_best=options)
            if progress is not None:
                progress(len(rows))
        translations = [translation for translation in found if translation is not None]
        return self._aligned(sources, translations) if alignments else translations

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return source ids with the special tokens around them, as the encoder reads them.

        Raises:
            InputError: a sentence is empty, or longer than the model's positions.
        """
        longest = self.max_length
        sources = [self.affixes.source.added_to(ids) for ids in self.tokenizer.encode(sentences)]
        for number, (sentence, ids) in enumerate(zip(sentences, sources, strict=True), start=1):
            if not sentence.strip():
                raise InputError(f"sentence {number} is empty", "Leave it out, or give it words.")
            if len(ids) > longest:
                raise InputError(
                    f"sentence {number} has {len(ids)} tokens, but this model's positions end at {longest}: "
                    f"'{sentence[:40]}…'",
                    "Split it into sentences.",
                )
        return sources

    def search(
        self, sources: Sequence[Sequence[int]], *, beam: int | None = None, batch_tokens: int = 8000
    ) -> list[list[Hypothesis]]:
        """Return the hypotheses of each source, in order. Sources are token ids from `encode`."""
        found: list[list[Hypothesis]] = [[] for _ in sources]
        for rows, hypotheses in self._searched(sources, self._decoding(beam, None), batch_tokens):
            for row, best in zip(rows, hypotheses, strict=True):
                found[row] = best
        return found

    def _decoding(self, beam: int | None, length_penalty: float | None) -> Decoding:
        given = {"beam": beam, "length_penalty": length_penalty}
        told = {name: value for name, value in given.items() if value is not None}
        return Decoding.parse({**self.decoding.plain(), **told}, "translate")

    def _searched(
        self, sources: Sequence[Sequence[int]], decoding: Decoding, batch_tokens: int
    ) -> Iterator[tuple[list[int], list[list[Hypothesis]]]]:
        for rows in by_length([len(ids) for ids in sources], max(1, batch_tokens // decoding.beam)):
            yield rows, self._search_batch([sources[row] for row in rows], decoding)

    def request(self, sources: Sequence[Sequence[int]], c: Decoding) -> DecodeRequest:
        """Where the translations of these sources begin and end, by these settings."""
        affixes, longest = self.affixes, self.max_length
        return DecodeRequest(
            first=[affixes.start] * len(sources),
            end_ids=frozenset({affixes.end, *c.end_ids}),
            steps=[min(longest, c.room(len(ids))) for ids in sources],
        )

    def constraints(self, c: Decoding) -> tuple[Constraint, ...]:
        """What may be said in a translation, by these settings."""
        from sublayer.generation.constraints import ForcedEnd, constraints_of

        most = self.max_length if c.max_tokens is None else min(self.max_length, c.max_tokens)
        last = None if c.forced_end is None else ForcedEnd(most - 1, c.forced_end)
        ends = frozenset({self.affixes.end, *c.end_ids})
        return constraints_of(self._forced(c), ends, self.vocab_size, last)

    def _forced(self, c: Decoding) -> Constraints:
        """The constraints that are asked for, and those of the languages."""
        return c.constraints.model_copy(update={"forced": self.affixes.forced})

    def _search_batch(self, sources: list[Sequence[int]], c: Decoding) -> list[list[Hypothesis]]:
        request, alone = self.request(sources, c), self._alone
        # Constraints are functions of torch's tensors, so they are made only where there are any.
        is_free = c.forced_end is None and self._forced(c) == Constraints()
        constraints = () if is_free else self.constraints(c)
        if self.shortlist is not None and (alone is None or constraints):
            raise InputError(
                "a shortlist is given with constraints, a forced end, or a model that was asked for its modules",
                "Leave one of them out.",
            )
        if alone is not None:
            listed = None if self.shortlist is None else self.shortlist.of(sources, sorted(request.end_ids))
            steps = EngineSteps(alone, self.affixes.pad, listed)
            state = steps.start(sources, num_beams=c.beam, capacity=max(request.steps))
            try:
                if c.beam == 1:
                    return greedy_texts(steps, state, request, length_penalty=c.length_penalty, constraints=constraints)
                search = BeamSearch(c.beam, c.length_penalty, request.end_ids, c.early_stopping, constraints)
                return best_texts(steps, state, search, request)
            except NotFinite:
                pass  # the modules can tell where that begins
        return self._search_model(sources, request, c, constraints)

    def _search_model(
        self, sources: list[Sequence[int]], request: DecodeRequest, c: Decoding, constraints: tuple[Constraint, ...]
    ) -> list[list[Hypothesis]]:
        import torch

        from sublayer.models.batching import padded

        source, lengths = padded(sources, self.affixes.pad, self.model.device)
        options: dict[str, Any] = {"length_penalty": c.length_penalty, "constraints": constraints}
        with torch.inference_mode():
            if c.beam == 1:
                return greedy(self.backend, source, lengths, request, **options)
            return beam_search(
                self.backend, source, lengths, request, beam=c.beam, early_stopping=c.early_stopping, **options
            )

    def _aligned(self, sources: list[list[int]], translations: list[Translation]) -> list[Translation]:
        from sublayer.generation.alignment import alignments as align

        maps = align(
            self.model,
            sources,
            [translation.tokens for translation in translations],
            start_id=self.affixes.start,
        )
        return [replace(translation, alignment=one) for translation, one in zip(translations, maps, strict=True)]
