"""Sentences of one request as jobs of the schedulers, and their translations put together again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sublayer.generation.beam import BeamSearch, BeamText
from sublayer.generation.loop import Choosing, ChosenText, most_probable
from sublayer.generation.translator import Translator
from sublayer.serving.aligning import aligned
from sublayer.serving.limits import RequestLimits
from sublayer.serving.marked import Parts, Sentence
from sublayer.serving.placing import Aligned, needs_alignment, placed
from sublayer.serving.refusals import Gone, Late, Refusal
from sublayer.serving.scheduler import Scheduler
from sublayer.serving.served import ServedModel
from sublayer.serving.tickets import Job, Ticket, shared
from sublayer.text.batching import by_length

MOST_SENTENCES = 1024
"""Of one request."""
MOST_MARKS = 400
"""Tags in one sentence."""
ALIGNED = 512
"""Tokens of sentences and translations that are read again at once, between two steps of the others."""


@dataclass(eq=False)
class _Said:
    """A translation. aligned: where it was needed, and there is a word in it."""

    text: str
    tokens: Sequence[int]
    aligned: Aligned | None = None


@dataclass(eq=False)
class _Asked:
    """A sentence that a translator is asked for, and its translations, best first.

    is_aligned: whether it matters which word became which.
    """

    text: str
    translator: Translator
    served: ServedModel
    job: Job
    is_aligned: bool = False
    said: list[_Said] = field(default_factory=list[_Said])


class Translating:
    """The texts of a request.

    Args:
        answers: translations of each text, best first.
    """

    def __init__(self, limits: RequestLimits, answers: int) -> None:
        self._limits, self._answers = limits, answers
        self._texts: list[tuple[Translator | None, Parts]] = []
        self._asked: dict[tuple[int, str], _Asked] = {}
        self._tickets: list[Ticket] = []
        self._gone = False

    def keep(self, text: str) -> None:
        """A text that stays as it is."""
        self._texts.append((None, [text]))

    def add(self, parts: Parts, translator: Translator, served: ServedModel) -> None:
        """A text in parts.

        Raises:
            Refusal: there are too many sentences, or too many tags in one.
        """
        wanted = [part for part in parts if isinstance(part, Sentence) and part.has_words]
        if any(len(part.marks) + len(part.kept) > MOST_MARKS for part in wanted):
            raise Refusal(
                f"a sentence has over {MOST_MARKS} tags in it", "Put paragraphs into blocks of their own.", field="q"
            )
        new = {part.text: None for part in wanted if (id(translator), part.text) not in self._asked}
        for text, ids in zip(new, translator.encode(list(new)) if new else [], strict=True):
            self._asked[id(translator), text] = _Asked(text, translator, served, self._job(translator, ids))
        for part in wanted:
            self._asked[id(translator), part.text].is_aligned |= needs_alignment(part)
        if len(self._asked) > MOST_SENTENCES:
            raise Refusal(
                f"the texts have over {MOST_SENTENCES} sentences", "Send them in several requests.", field="q"
            )
        self._texts.append((translator, parts))

    def _job(self, translator: Translator, ids: list[int]) -> Job:
        c = translator.decoding
        request = translator.request([ids], c)
        beam = max(c.beam, self._answers)
        constraints = translator.constraints(c)
        if beam > 1:
            search = BeamSearch(beam, c.length_penalty, request.end_ids, c.early_stopping, constraints)
        else:
            search = Choosing(most_probable, constraints, scored=False)
        return Job(request.prompts[0], shared(search), request.steps[0], request.end_ids, source=ids)

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._gone = True
        for ticket in self._tickets:
            ticket.give_up()

    async def finish(self) -> list[list[str]]:
        """The translations of each text, as many as were asked for.

        Raises:
            Refusal: as `Scheduler.submit` and `Ticket.events`.
        """
        by_model: dict[ServedModel, list[_Asked]] = {}
        for each in self._asked.values():
            by_model.setdefault(each.served, []).append(each)
        try:
            for served, several in by_model.items():
                ticket = Ticket([each.job for each in several], self._limits.seconds)
                _scheduler(served).submit(ticket)
                self._tickets.append(ticket)
            await asyncio.gather(*map(self._finish, by_model.items(), self._tickets))
        finally:
            self.give_up()
        return await asyncio.to_thread(self._written)

    async def _finish(self, own: tuple[ServedModel, list[_Asked]], ticket: Ticket) -> None:
        """Let the sentences of one model be translated, and aligned where that is needed."""
        served, several = own
        async for _ in ticket.events():
            pass
        for each in several:
            each.said = _texts(each.job, each.translator)
        pairs = [(each, one) for each in several if each.is_aligned for one in each.said if one.text]
        try:
            async with asyncio.timeout(max(0.0, ticket.deadline - time.monotonic())):
                for rows in by_length([len(each.job.source or ()) + len(one.tokens) for each, one in pairs], ALIGNED):
                    if self._gone:
                        raise Gone
                    await _scheduler(served).call(partial(_align, [pairs[row] for row in rows]))
        except TimeoutError:
            raise Late(ticket.seconds) from None

    def _written(self) -> list[list[str]]:
        def one(translator: Translator | None, part: str | Sentence, place: int) -> str:
            if isinstance(part, str):
                return part
            if not part.has_words:
                return part.untranslated
            found = self._asked[id(translator), part.text].said
            best = found[min(place, len(found) - 1)]
            return placed(part, best.text, best.aligned)

        return [
            ["".join(one(translator, part, place) for part in parts) for place in range(self._answers)]
            for translator, parts in self._texts
        ]


def _scheduler(served: ServedModel) -> Scheduler[Any]:
    assert isinstance(served.runs, Scheduler)
    return served.runs


def _texts(job: Job, translator: Translator) -> list[_Said]:
    """The translations of a sentence, best first."""
    text = job.texts[0]
    if isinstance(text, BeamText):
        tokens = [hypothesis.tokens for hypothesis in text.ranked()]
    else:
        assert isinstance(text, ChosenText)
        tokens = [[token for token in text.tokens if token not in text.end_ids]]
    decoded = translator.tokenizer.decode(tokens)
    return [_Said(text.strip(), ids) for text, ids in zip(decoded, tokens, strict=True)]


def _align(pairs: Sequence[tuple[_Asked, _Said]]) -> None:
    """Find which words became which. In the model's thread."""
    by_translator: dict[Translator, list[tuple[_Asked, _Said]]] = {}
    for each, one in pairs:
        by_translator.setdefault(each.translator, []).append((each, one))
    for translator, own in by_translator.items():
        sources = [(each.text, each.job.source or []) for each, _ in own]
        for (_, one), found in zip(own, aligned(translator, sources, [one.tokens for _, one in own]), strict=True):
            one.aligned = found
